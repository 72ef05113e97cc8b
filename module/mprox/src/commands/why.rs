// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox why`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use clap::Args;
use mprox_client::{Client, Configuration, ContextName, Counted, Protocol};
use mprox_file::{Machine, ProxyFile, System};
use serde::Serialize;

use super::{explain, open, parse_name, say, without_right};
use crate::program::run;
use crate::told::Told;
use crate::verdict::{asked, Answer, Connection};

/// Say which rule decides about a connection, and what becomes of it
///
/// Of the machine's own, if whose it is is said, or --local; else of others' that come in. What was not said and would matter is told. The
/// kernel's rules are asked, or those of a file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox why 192.0.2.2:40000 → 203.0.113.7:443 --in eth1     A client's connection\n  \
    mprox why 192.0.2.2 203.0.113.7:53 --protocol udp         The same, of datagrams\n  \
    mprox why 192.0.2.1 203.0.113.7:443 --user alice          One of this machine's\n  \
    mprox why 192.0.2.2 203.0.113.7:443 --file new.toml       By the rules of a file, and where they stand in it")]
pub struct WhyCommand {
    /// Who begins it and where it is to go: ADDRESS:PORT twice, with an arrow between them or not; the client's port may be left out
    #[arg(required = true, num_args = 2..=3, value_name = "CLIENT SERVER")]
    ends: Vec<String>,
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp", value_parser = super::flows::parse_protocol)]
    protocol: Protocol,
    /// The interface through which it comes in; of the machine's own, would go out
    #[arg(long = "in", visible_alias = "interface", value_name = "INTERFACE")]
    interface: Option<String>,
    /// It is one of the machine's own
    #[arg(long)]
    local: bool,
    /// Of the machine's own: whose the socket is, a name or a number
    #[arg(long, visible_alias = "uid", value_name = "USER")]
    user: Option<String>,
    /// Of the machine's own: the group of who opened it
    #[arg(long, visible_alias = "gid", value_name = "GROUP")]
    group: Option<String>,
    /// Of the machine's own: the path of its control group
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Of the machine's own: the name of the process
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Its mark: 1, or 0x100
    #[arg(long, value_name = "MARK", default_value = "0", value_parser = parse_mark)]
    mark: u32,
    /// Its differentiated services code point
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..64))]
    dscp: u8,
    /// Ask the rules of this file, and not the kernel's
    #[arg(long, value_name = "FILE", conflicts_with = "context")]
    file: Option<PathBuf>,
    /// Ask this context's alone [default: all that have names]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    context: Option<ContextName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let read = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.map_err(|_| format!("`{text}` is no mark, such as 1 or 0x100"))
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or without a port.
fn parse_end(text: &str) -> Result<SocketAddr> {
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Ok(end);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = bare.parse().with_context(|| {
        format!("`{text}` is no address and port, such as 192.0.2.1:80 or [2001:db8::1]:80")
    })?;
    Ok(SocketAddr::new(address, 0))
}

/// What rules say of the connection.
#[derive(Debug, Serialize)]
struct Verdict {
    context: Option<String>,
    // Rules that may match before the one that decides.
    maybe: Vec<MaybeRule>,
    // None: no rule matches.
    rule: Option<DecidingRule>,
}

#[derive(Debug, Serialize)]
struct MaybeRule {
    number: usize,
    rule: String,
    place: Option<String>,
    if_so: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct DecidingRule {
    number: usize,
    rule: String,
    place: Option<String>,
    upstreams: Option<String>,
    // What `ip route get` says of each upstream.
    routes: Vec<String>,
}

impl WhyCommand {
    pub fn run(&self) -> Result<()> {
        let connection = self.connection()?;
        let mut all = Vec::new();
        if let Some(path) = &self.file {
            let file = ProxyFile::load(path)?;
            let told = Told::of(&file.configuration);
            let place = |number| file.place_of_rule(number);
            all.push(verdict(
                None,
                &file.configuration,
                &told,
                place,
                &connection,
            ));
        } else {
            let mut client = open()?;
            for name in self.names(&mut client)? {
                let told = client.context(Some(&name)).and_then(|info| {
                    let counted: Counted = client.counted(Some(&name))?;
                    Ok((Told::new(&info, &counted), counted.configuration))
                });
                let (told, configuration) = told.map_err(|error| explain(error, &name))?;
                let name = Some(format!("{name:?}"));
                all.push(verdict(name, &configuration, &told, |_| None, &connection));
            }
        }
        if self.json {
            return say(&serde_json::to_string(&all)?);
        }
        if all.is_empty() {
            return say(&"no context has a name in this network namespace: it goes where it goes, unless a process such as `mprox run` redirects it");
        }
        all.iter().try_for_each(|one| say(&one.text().trim_end()))
    }

    fn names(&self, client: &mut Client) -> Result<Vec<ContextName>> {
        Ok(match self.context {
            Some(name) => vec![name],
            None => {
                let infos = client.contexts().map_err(without_right)?;
                infos.into_iter().filter_map(|info| info.name).collect()
            }
        })
    }

    fn connection(&self) -> Result<Connection> {
        let mut ends = self
            .ends
            .iter()
            .filter(|word| !matches!(word.as_str(), "->" | "→"));
        let (Some(client), Some(server), None) = (ends.next(), ends.next(), ends.next()) else {
            bail!("a client and a server, each an address and port: mprox why 192.0.2.2:40000 203.0.113.7:443");
        };
        let (client, server) = (parse_end(client)?, parse_end(server)?);
        if server.port() == 0 {
            bail!(
                "to which port of {}? say {}",
                server.ip(),
                SocketAddr::new(server.ip(), 443)
            );
        }
        if client.is_ipv4() != server.is_ipv4() {
            bail!(
                "{} and {} are of different IP versions",
                client.ip(),
                server.ip()
            );
        }
        let number = |text: &String, look_up: &dyn Fn(&str) -> Result<u32, String>| {
            let read = text.parse().or_else(|_| look_up(text));
            read.map_err(|why: String| anyhow::anyhow!(why))
        };
        let user = self
            .user
            .as_ref()
            .map(|text| number(text, &|name| Machine.user(name)));
        let group = self
            .group
            .as_ref()
            .map(|text| number(text, &|name| Machine.group(name)));
        let control_groups = self.cgroup.as_ref().map(|path| control_groups(path));
        let is_own = self.local
            || self.user.is_some()
            || self.group.is_some()
            || self.cgroup.is_some()
            || self.program.is_some();
        Ok(Connection {
            protocol: self.protocol,
            client,
            server,
            forwarded: !is_own,
            interface: self.interface.clone(),
            mark: self.mark,
            dscp: self.dscp,
            user: user.transpose()?,
            group: group.transpose()?,
            control_groups: control_groups.transpose()?,
            program: self.program.clone(),
        })
    }
}

/// The inode numbers of a control group and of those above it.
fn control_groups(path: &str) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut left = path.trim_end_matches('/');
    loop {
        let one = if left.is_empty() { "/" } else { left };
        let number = Machine.control_group(one);
        numbers.push(number.map_err(|why| anyhow::anyhow!(why))?);
        match left.rsplit_once('/') {
            Some((above, _)) => left = above,
            None => return Ok(numbers),
        }
    }
}

fn verdict(
    context: Option<String>,
    configuration: &Configuration,
    told: &Told,
    place: impl Fn(usize) -> Option<String>,
    connection: &Connection,
) -> Verdict {
    let lines = told.rule_lines();
    let groups = told.upstream_lines();
    let line = |number: usize| lines.get(number).cloned().unwrap_or_default();
    let mut verdict = Verdict {
        context,
        maybe: Vec::new(),
        rule: None,
    };
    for (number, answer) in asked(configuration, connection) {
        match answer {
            Answer::DependsOn(if_so) => verdict.maybe.push(MaybeRule {
                number: number + 1,
                rule: line(number),
                place: place(number),
                if_so,
            }),
            Answer::Matches => {
                let rule = configuration.rules.get(number);
                let group = rule
                    .filter(|rule| rule.action == mprox_client::Action::Redirect)
                    .map(|rule| usize::from(rule.group));
                verdict.rule = Some(DecidingRule {
                    number: number + 1,
                    rule: line(number),
                    place: place(number),
                    upstreams: group.and_then(|group| groups.get(group).cloned()),
                    routes: group
                        .map_or_else(Vec::new, |group| routes(configuration, group, connection)),
                });
            }
        }
    }
    verdict
}

/// How each upstream of the connection's IP version is reached from here, as ip-route(8) tells.
fn routes(configuration: &Configuration, group: usize, connection: &Connection) -> Vec<String> {
    let upstreams = configuration.groups.get(group).into_iter();
    let upstreams = upstreams.flat_map(|group| &group.upstreams);
    let places = upstreams.map(|one| crate::told::address(one.family, one.address));
    let mut places: Vec<IpAddr> = places
        .filter(|place| place.is_ipv4() == connection.server.is_ipv4())
        .collect();
    places.sort();
    places.dedup();
    // Enough to see.
    places.truncate(8);
    places.into_iter().map(route).collect()
}

fn route(place: IpAddr) -> String {
    let output = match run("ip", &["route", "get", &place.to_string()]) {
        Ok(output) => output,
        Err(error) => return format!("{place}: `ip route get` cannot be asked: {error}"),
    };
    let said = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    let first = said.lines().next().unwrap_or_default().trim();
    match output.status.success() {
        true => first.to_owned(),
        false => format!("{place}: no route: {first}"),
    }
}

impl Verdict {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |line: std::fmt::Arguments<'_>| {
            // A string takes all.
            let _ = writeln!(text, "{line}");
        };
        if let Some(name) = &self.context {
            put(format_args!("context {name}"));
        }
        let at = |place: &Option<String>| match place {
            Some(place) => format!(", at {place}"),
            None => String::new(),
        };
        for one in &self.maybe {
            let MaybeRule { number, rule, .. } = one;
            put(format_args!(
                "  number {number} may match: {rule}{}",
                at(&one.place)
            ));
            put(format_args!(
                "    it depends on {}",
                one.if_so.join(" and ")
            ));
        }
        match &self.rule {
            None => put(format_args!(
                "  no rule matches for sure: it goes where it goes"
            )),
            Some(one) => {
                let DecidingRule { number, rule, .. } = one;
                put(format_args!(
                    "  number {number} matches: {rule}{}",
                    at(&one.place)
                ));
                if let Some(upstreams) = &one.upstreams {
                    put(format_args!("    {upstreams}"));
                }
                for route in &one.routes {
                    put(format_args!("    route: {route}"));
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_addresses_with_ports_or_without() {
        for (text, expected) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("192.0.2.1", "192.0.2.1:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
        ] {
            assert_eq!(parse_end(text).unwrap().to_string(), expected);
        }
        assert!(parse_end("example.org:80").is_err());
        assert_eq!(parse_mark("0xff"), Ok(255));
        assert!(parse_mark("ff").is_err());
    }
}
