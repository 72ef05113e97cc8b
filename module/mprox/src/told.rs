// SPDX-License-Identifier: MIT OR Apache-2.0

//! A context as it is shown.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mprox_client::{
    Action, Configuration, ContextInfo, Family, Protocol, Rule, Selection, Upstream,
};
use mprox_file::Network;
use serde::Serialize;

/// A context.
#[derive(Debug, Serialize)]
pub struct Told {
    name: Option<String>,
    generation: u32,
    upstreams: Vec<ToldGroup>,
    rules: Vec<ToldRule>,
}

#[derive(Debug, Serialize)]
struct ToldGroup {
    name: String,
    select: &'static str,
    servers: Vec<String>,
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
    action: &'static str,
    via: Option<String>,
}

impl Told {
    /// What the kernel told of it.
    pub fn new(info: &ContextInfo, configuration: &Configuration) -> Self {
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
                },
                servers: group.upstreams.iter().map(server).collect(),
            })
            .collect();
        let rules = configuration.rules.iter();
        let rules = rules.map(|one| ToldRule::new(one, &upstreams)).collect();
        Self {
            name: info.name.map(|name| format!("{name:?}")),
            generation: info.generation,
            upstreams,
            rules,
        }
    }
}

fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    match family {
        Family::V4 => Ipv4Addr::new(a, b, c, d).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

fn server(upstream: &Upstream) -> String {
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
    fn new(rule: &Rule, groups: &[ToldGroup]) -> Self {
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
            action: match rule.action {
                Action::Redirect => "redirect",
                Action::Direct => "direct",
            },
            via: match rule.action {
                Action::Redirect => group.map(|group| group.name.clone()),
                Action::Direct => None,
            },
        }
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
        match &self.via {
            Some(via) => write!(f, " via {via}"),
            None => write!(f, " {}", self.action),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("of the socket");
        writeln!(f, "context {name}, generation {}", self.generation)?;
        for ToldGroup {
            name,
            select,
            servers,
        } in &self.upstreams
        {
            writeln!(f, "  upstreams {name}, {select}: {}", servers.join(", "))?;
        }
        self.rules
            .iter()
            .try_for_each(|rule| writeln!(f, "  rule {rule}"))
    }
}

#[cfg(test)]
mod tests {
    use mprox_client::ContextName;
    use mprox_file::ProxyFile;

    use super::*;

    #[test]
    fn a_context_is_shown_as_it_was_said() {
        let text = r#"
            [upstreams.web]
            servers = ["192.0.2.10:8080", "[2001:db8::1]:8080", "192.0.2.11"]
            select = "failover"

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
        "#;
        let file = ProxyFile::parse("x.toml".to_owned(), text.to_owned()).unwrap();
        let info = ContextInfo {
            name: ContextName::new(b"home"),
            generation: 3,
            ..ContextInfo::default()
        };
        let told = Told::new(&info, &file.configuration);
        let expected = "\
context home, generation 3
  upstreams web, failover: 192.0.2.10:8080, [2001:db8::1]:8080, 192.0.2.11
  rule lan: ipv4 to 10.0.0.0/8 direct
  rule forwarded ipv4 tcp from 192.0.2.0/24 port 443 interface eth0 via web
  rule forwarded ipv4 tcp from 192.0.2.0/24 ports 8000-8010 interface eth0 via web
";
        assert_eq!(told.to_string(), expected);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["upstreams"][0]["servers"][1], "[2001:db8::1]:8080");
        assert_eq!(json["rules"][2]["ports"], serde_json::json!([8000, 8010]));
    }
}
