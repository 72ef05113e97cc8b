// SPDX-License-Identifier: MIT OR Apache-2.0

//! A context as it is shown.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mprox_client::{
    Action, Condition, Configuration, ContextInfo, Counted, Element, Family, Field, Protocol, Rule,
    Selection, Set, Upstream, ValueKind, Values,
};
use mprox_file::{control_group_path, process_of, Network};
use serde::Serialize;

/// A context.
#[derive(Debug, Serialize)]
pub struct Told {
    name: Option<String>,
    generation: u32,
    upstreams: Vec<ToldGroup>,
    sets: Vec<ToldSet>,
    rules: Vec<ToldRule>,
}

#[derive(Debug, Serialize)]
struct ToldGroup {
    name: String,
    select: &'static str,
    servers: Vec<ToldServer>,
}

#[derive(Debug, Serialize)]
struct ToldServer {
    // Without a port, it keeps the client's.
    address: String,
    weight: u8,
    connections: u64,
}

#[derive(Debug, Serialize)]
struct ToldSet {
    // Numbers of those that have none.
    name: String,
    of: &'static str,
    elements: usize,
}

#[derive(Debug, Serialize)]
struct ToldCondition {
    field: &'static str,
    not: bool,
    // One value or range of them, or the name of a set behind an `@`.
    values: String,
}

#[derive(Debug, Serialize)]
struct ToldRule {
    name: Option<String>,
    ip: u8,
    protocol: Option<&'static str>,
    direction: Option<&'static str>,
    from: Option<String>,
    to: Option<String>,
    ports: Option<[u16; 2]>,
    interface: Option<String>,
    conditions: Vec<ToldCondition>,
    action: &'static str,
    via: Option<String>,
    connections: u64,
}

/// What sets are called: their numbers, if they have no names.
pub fn set_names(sets: &[Set]) -> impl Iterator<Item = String> + '_ {
    sets.iter()
        .enumerate()
        .map(|(number, set)| match set.label.as_str() {
            "" => number.to_string(),
            label => label.to_owned(),
        })
}

/// What is in a set.
pub fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Addresses => "addresses",
        ValueKind::Numbers => "numbers",
        ValueKind::Names => "names",
    }
}

/// An element of a set: a value, or the first and the last of some.
pub fn element(one: &Element) -> String {
    fn range<T: PartialEq + fmt::Display>([first, last]: [T; 2]) -> String {
        match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        }
    }
    match *one {
        Element::V4(ends) => range(ends.map(Ipv4Addr::from)),
        Element::V6(ends) => range(ends.map(Ipv6Addr::from)),
        Element::Number(ends) => range(ends),
        Element::Name(name) => {
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        }
    }
}

impl Told {
    /// A configuration of which nothing was counted.
    pub fn of(configuration: &Configuration) -> Self {
        let counted = Counted {
            configuration: configuration.clone(),
            of_rules: Vec::new(),
            to_upstreams: Vec::new(),
        };
        Self::new(&ContextInfo::default(), &counted)
    }

    /// A line for each group of upstreams.
    pub fn upstream_lines(&self) -> Vec<String> {
        let line = |group: &ToldGroup| {
            let servers: Vec<_> = group.servers.iter().map(ToldServer::to_string).collect();
            let ToldGroup { name, select, .. } = group;
            format!("upstreams {name}, {select}: {}", servers.join(", "))
        };
        self.upstreams.iter().map(line).collect()
    }

    /// A line for each rule.
    pub fn rule_lines(&self) -> Vec<String> {
        self.rules
            .iter()
            .map(|rule| format!("rule {rule}"))
            .collect()
    }

    /// What the kernel told of it.
    pub fn new(info: &ContextInfo, counted: &Counted) -> Self {
        let Counted {
            configuration,
            of_rules,
            to_upstreams,
        } = counted;
        let groups = configuration.groups.iter().enumerate();
        let upstreams: Vec<_> = groups
            .map(|(number, group)| ToldGroup {
                name: match group.label.as_str() {
                    "" => number.to_string(),
                    label => label.to_owned(),
                },
                select: match group.selection {
                    Selection::RoundRobin => "round-robin",
                    Selection::Failover => "failover",
                    Selection::Random => "random",
                    Selection::SourceHash => "source-hash",
                },
                servers: {
                    let counts = to_upstreams.get(number).into_iter().flatten().copied();
                    let all = group
                        .upstreams
                        .iter()
                        .zip(counts.chain(std::iter::repeat(0)));
                    all.map(|(upstream, count)| ToldServer::new(upstream, count))
                        .collect()
                },
            })
            .collect();
        let sets: Vec<_> = set_names(&configuration.sets)
            .zip(&configuration.sets)
            .map(|(name, set)| ToldSet {
                name,
                of: kind_name(set.kind),
                elements: set.elements.len(),
            })
            .collect();
        let counts = of_rules.iter().copied().chain(std::iter::repeat(0));
        let rules = configuration.rules.iter().zip(counts);
        let rules = rules
            .map(|(one, count)| ToldRule::new(one, &upstreams, &sets, count))
            .collect();
        Self {
            name: info.name.map(|name| format!("{name:?}")),
            generation: info.generation,
            upstreams,
            sets,
            rules,
        }
    }
}

/// An address.
pub fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    match family {
        Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

/// Address and port of an upstream.
pub fn server(upstream: &Upstream) -> String {
    let address = address(upstream.family, upstream.address);
    match upstream.port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    }
}

fn network(family: Family, address: [u8; 16], prefix: u8) -> Option<String> {
    let network = Network {
        family,
        address,
        prefix,
    };
    (prefix > 0).then(|| network.to_string())
}

impl ToldRule {
    fn new(rule: &Rule, groups: &[ToldGroup], sets: &[ToldSet], connections: u64) -> Self {
        let interface = rule.interface.split(|&byte| byte == 0).next();
        let interface = interface.map(|name| String::from_utf8_lossy(name).into_owned());
        let group = groups.get(usize::from(rule.group));
        Self {
            name: match rule.label.as_str() {
                "" => None,
                label => Some(label.to_owned()),
            },
            ip: rule.family as u8,
            protocol: rule.protocol.map(|protocol| match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            }),
            direction: match rule.hooks {
                1 => Some("forwarded"),
                2 => Some("local"),
                _ => None,
            },
            from: network(rule.family, rule.source, rule.source_prefix),
            to: network(rule.family, rule.destination, rule.destination_prefix),
            ports: ((rule.port_first, rule.port_last) != (0, u16::MAX))
                .then_some([rule.port_first, rule.port_last]),
            interface: interface.filter(|name| !name.is_empty()),
            conditions: rule
                .conditions
                .iter()
                .map(|one| ToldCondition::new(&one, sets))
                .collect(),
            action: match rule.action {
                Action::Redirect => "redirect",
                Action::Direct => "direct",
                Action::Drop => "drop",
                Action::Reject => "reject",
            },
            via: match rule.action {
                Action::Redirect => group.map(|group| group.name.clone()),
                _ => None,
            },
            connections,
        }
    }
}

impl ToldCondition {
    fn new(condition: &Condition, sets: &[ToldSet]) -> Self {
        let number = |number: u64| match condition.field {
            Field::ControlGroup => {
                control_group_path(number).unwrap_or_else(|| format!("#{number}"))
            }
            Field::Process => match process_of(number) {
                Some(process) => process.to_string(),
                None => format!("#{number}"),
            },
            Field::Mark => format!("{number:#x}"),
            _ => number.to_string(),
        };
        let values = match condition.values {
            Values::Range { first, last } if first == last => number(first),
            Values::Range { first, last } => format!("{}-{}", number(first), number(last)),
            Values::Name(name) => {
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                String::from_utf8_lossy(name).into_owned()
            }
            Values::Set(set) => match sets.get(usize::from(set)) {
                Some(set) => format!("@{}", set.name),
                None => format!("@{set}"),
            },
        };
        Self {
            field: match condition.field {
                Field::Source => "from",
                Field::Destination => "to",
                Field::SourcePort => "source port",
                Field::DestinationPort => "port",
                Field::Interface => "interface",
                Field::Mark => "mark",
                Field::Dscp => "dscp",
                Field::User => "user",
                Field::Group => "group",
                Field::ControlGroup => "cgroup",
                Field::Process => "process",
                Field::Program => "program",
            },
            not: condition.not,
            values: match condition.mask {
                u32::MAX => values,
                mask => format!("{values}/{mask:#x}"),
            },
        }
    }
}

impl ToldServer {
    fn new(upstream: &Upstream, connections: u64) -> Self {
        Self {
            address: server(upstream),
            weight: upstream.weight.get(),
            connections,
        }
    }
}

impl fmt::Display for ToldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        f.write_str(&connections(self.connections))
    }
}

/// A count behind something, if there is any.
fn connections(count: u64) -> String {
    match count {
        0 => String::new(),
        1 => " (1 connection)".to_owned(),
        count => format!(" ({count} connections)"),
    }
}

impl fmt::Display for ToldCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.not {
            f.write_str("not ")?;
        }
        write!(f, "{} {}", self.field, self.values)
    }
}

impl fmt::Display for ToldRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        if let Some(direction) = self.direction {
            write!(f, "{direction} ")?;
        }
        write!(f, "ipv{}", self.ip)?;
        if let Some(protocol) = self.protocol {
            write!(f, " {protocol}")?;
        }
        if let Some(from) = &self.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = &self.to {
            write!(f, " to {to}")?;
        }
        match self.ports {
            Some([first, last]) if first == last => write!(f, " port {first}")?,
            Some([first, last]) => write!(f, " ports {first}-{last}")?,
            None => {}
        }
        if let Some(interface) = &self.interface {
            write!(f, " interface {interface}")?;
        }
        for condition in &self.conditions {
            write!(f, " {condition}")?;
        }
        match &self.via {
            Some(via) => write!(f, " via {via}")?,
            None => write!(f, " {}", self.action)?,
        }
        f.write_str(&connections(self.connections))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("of the socket");
        writeln!(f, "context {name}, generation {}", self.generation)?;
        for line in self.upstream_lines() {
            writeln!(f, "  {line}")?;
        }
        for ToldSet { name, of, elements } in &self.sets {
            writeln!(f, "  set {name}: {elements} {of}")?;
        }
        self.rule_lines()
            .iter()
            .try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use mprox_client::ContextName;
    use mprox_file::{Machine, ProxyFile};

    use super::*;

    #[test]
    fn a_context_is_shown_as_it_was_said() {
        let text = r#"
            [upstreams.web]
            servers = ["192.0.2.10:8080", "[2001:db8::1]:8080", "192.0.2.11"]
            select = "failover"

            [upstreams.two]
            servers = ["192.0.2.10", "192.0.2.11"]
            weights = [3, 1]
            select = "source-hash"

            [[rule]]
            name = "lan"
            to = ["10.0.0.0/8"]
            action = "direct"

            [[rule]]
            protocol = "tcp"
            direction = "forwarded"
            from = "192.0.2.0/24"
            ports = [443, "8000-8010"]
            interface = "eth0"
            via = "web"

            [sets.slow]
            networks = ["10.0.0.0/8", "2001:db8::/32"]

            [[rule]]
            ip = 4
            to = "@slow"
            users = [5, 6]
            not-programs = "curl"
            mark = "0x100/0xff00"
            dscp = "ef"
            action = "reject"
        "#;
        let directory = std::path::Path::new("");
        let file = ProxyFile::parse("x.toml".to_owned(), text.to_owned(), directory, &Machine);
        let file = file.unwrap();
        let info = ContextInfo {
            name: ContextName::new(b"home"),
            generation: 3,
            ..ContextInfo::default()
        };
        let counted = Counted {
            configuration: file.configuration,
            of_rules: vec![7, 1],
            to_upstreams: vec![vec![0, 1], vec![2]],
        };
        let told = Told::new(&info, &counted);
        let expected = "\
context home, generation 3
  upstreams two, source-hash: 192.0.2.10 weight 3, 192.0.2.11 (1 connection)
  upstreams web, failover: 192.0.2.10:8080 (2 connections), [2001:db8::1]:8080, 192.0.2.11
  set slow: 2 addresses
  rule lan: ipv4 to 10.0.0.0/8 direct (7 connections)
  rule forwarded ipv4 tcp from 192.0.2.0/24 port 443 interface eth0 via web (1 connection)
  rule forwarded ipv4 tcp from 192.0.2.0/24 ports 8000-8010 interface eth0 via web
  rule local ipv4 mark 0x100/0xff00 dscp 46 user 5-6 not program curl to @slow reject
";
        assert_eq!(told.to_string(), expected);
        let json = serde_json::to_value(&told).unwrap();
        let server = &json["upstreams"][1]["servers"][1];
        assert_eq!(server["address"], "[2001:db8::1]:8080");
        assert_eq!(json["rules"][2]["ports"], serde_json::json!([8000, 8010]));
    }
}
