// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox flows`.

use std::io::{stdout, IsTerminal};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Result};
use clap::Args;
use mprox_client::{ContextName, Family, FlowFilter, FlowsMeant, Prefix, Protocol};
use mprox_file::Network;

use super::{count, explain, open, parse_name, say, without_right};
use crate::told_flow::{FlowLine, FlowTable};

/// The connections that are redirected, or pass as they are
///
/// Each that the rules were asked about and that still has a place in the table: with what was sent each way, for how long it was
/// silent, and the context whose rule redirected it ("-": none with a name). What is told is not of one moment.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox flows                                 All of them\n  \
    mprox flows --from 192.0.2.0/24 --port 443  Those of some clients, to a port\n  \
    mprox flows --context home --watch          Those that a context redirects, again each second\n  \
    mprox flows --to 203.0.113.7 --kill         Forget those to an address: what comes next asks the rules\n  \
    mprox flows --json | jq '.[].upstream'      For a program")]
pub struct FlowsCommand {
    /// Only those of clients in this network, or at this address
    #[arg(long, value_name = "NETWORK", value_parser = Network::parse)]
    from: Option<Network>,
    /// Only those that were to go to this network, or address
    #[arg(long, value_name = "NETWORK", value_parser = Network::parse)]
    to: Option<Network>,
    /// Only those that were to go to this port, or one of these: 443, or 8000-8099
    #[arg(long, value_name = "PORT", value_parser = parse_ports)]
    port: Option<(u16, u16)>,
    /// Only those of this protocol: tcp or udp
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    protocol: Option<Protocol>,
    /// Only those that rules of this context redirected
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    context: Option<ContextName>,
    /// Show them again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", conflicts_with = "kill",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
    /// Forget them, and say how many
    #[arg(long)]
    kill: bool,
    /// With --kill: all of them are meant
    #[arg(long, requires = "kill")]
    all: bool,
    /// Print JSON; with --watch, a line each time
    #[arg(long)]
    json: bool,
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = |_| format!("`{text}` is neither a port, such as 443, nor some, such as 8000-8099");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (
        first.parse::<u16>().map_err(wrong)?,
        last.parse::<u16>().map_err(wrong)?,
    );
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!("{first} is more than {last}")),
    }
}

/// A protocol on the command line.
pub(super) fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("a protocol is `tcp` or `udp`".to_owned()),
    }
}

/// Puts the cursor where it began and takes away what was there.
pub(super) const CLEAR: &str = "\x1b[H\x1b[2J";

impl FlowsCommand {
    pub fn run(&self) -> Result<()> {
        let meant = self.meant()?;
        let mut client = open()?;
        let failed = |error: mprox_client::Error| match (error.errno(), &self.context) {
            (Some(nix::libc::ENOENT), Some(name)) => explain(error, name),
            (Some(nix::libc::ENOENT), None) => anyhow::anyhow!(
                "nothing is redirected in this network namespace: it has no context"
            ),
            _ => without_right(error),
        };
        if self.kill {
            let gone = client.end_flows(&meant).map_err(failed)?;
            return match self.json {
                true => say(&format_args!("{}", serde_json::json!({ "flows": gone }))),
                false => say(&format_args!("{} forgotten", count(gone as usize, "flow"))),
            };
        }
        loop {
            let told = client.flows(&meant).map_err(failed)?;
            let lines: Vec<FlowLine> = told.iter().map(FlowLine::new).collect();
            let begin = match self.watch.is_some() && !self.json && stdout().is_terminal() {
                true => CLEAR,
                false => "",
            };
            match (self.json, lines.as_slice()) {
                (true, lines) => say(&format_args!("{}", serde_json::to_string(lines)?)),
                (false, []) => say(&format_args!("{begin}no such flow")),
                (false, lines) => say(&format_args!("{begin}{}", FlowTable(lines))),
            }?;
            match self.watch {
                None => return Ok(()),
                Some(seconds) => thread::sleep(Duration::from_secs(seconds.into())),
            }
        }
    }

    fn meant(&self) -> Result<FlowsMeant> {
        let family = match (&self.from, &self.to) {
            (Some(from), Some(to)) if from.family != to.family => {
                bail!("{from} and {to} are of different IP versions: no flow goes from one to the other")
            }
            (Some(one), _) | (None, Some(one)) => Some(one.family),
            (None, None) => None::<Family>,
        };
        let prefix = |network: &Option<Network>| {
            network.map_or(Prefix::default(), |network| Prefix {
                address: network.address,
                length: network.prefix,
            })
        };
        let filter = FlowFilter {
            family,
            protocol: self.protocol,
            source: prefix(&self.from),
            destination: prefix(&self.to),
            ports: self.port.unwrap_or(FlowFilter::ALL.ports),
        };
        let says_nothing = filter == FlowFilter::ALL && self.context.is_none();
        if self.kill && says_nothing && !self.all {
            bail!("which flows? --from, --to, --port, --protocol or --context say so, and --all means all of them");
        }
        Ok(FlowsMeant {
            context: self.context,
            filter: Some(filter),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flows: FlowsCommand,
    }

    fn meant(words: &[&str]) -> Result<FlowsMeant> {
        let words = ["flows"].iter().chain(words);
        Line::try_parse_from(words)?.flows.meant()
    }

    #[test]
    fn options_say_which_flows_are_meant() {
        let all = meant(&[]).unwrap();
        assert_eq!(all.filter, Some(FlowFilter::ALL));
        let some = meant(&[
            "--from",
            "192.0.2.0/24",
            "--port",
            "80-90",
            "--protocol",
            "udp",
            "--context",
            "home",
        ])
        .unwrap();
        let filter = some.filter.unwrap();
        assert_eq!(filter.family, Some(Family::V4));
        assert_eq!((filter.source.length, filter.destination.length), (24, 0));
        assert_eq!(filter.ports, (80, 90));
        assert_eq!(filter.protocol, Some(Protocol::Udp));
        assert!(some.context.is_some());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--kill"][..],
            &["--all"],
            &["--port", "90-80"],
            &["--port", "http"],
            &["--protocol", "icmp"],
            &["--from", "192.0.2.1", "--to", "2001:db8::1"],
            &["--from", "192.0.2.1/24"],
            &["--watch", "0"],
            &["--watch", "--kill", "--all"],
        ] {
            assert!(meant(words).is_err(), "{words:?}");
        }
        assert!(meant(&["--kill", "--all"]).is_ok());
        assert!(meant(&["--kill", "--port", "80"]).is_ok());
    }
}
