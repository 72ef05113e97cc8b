// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which rule of a configuration decides about a connection, as far as that can be told by what is known of it.
//!
//! It says what the module's look-up does (`datapath/rules.rs`), and beyond that which rules would match if something that was not said
//! were so. Tests in guests compare it with what then happens.

use std::net::{IpAddr, SocketAddr};

use mprox_client::{
    Condition, Configuration, Element, Family, Field, Protocol, Rule, Set, Values, HOOK_LOCAL_OUT,
    HOOK_PRE_ROUTING,
};

/// A connection that is to be judged.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Who begins it; a port of zero is not known.
    pub client: SocketAddr,
    /// Where it is to go.
    pub server: SocketAddr,
    /// Whether it comes in from outside; else it is the machine's own.
    pub forwarded: bool,
    /// The interface through which it comes in, or would go out.
    pub interface: Option<String>,
    /// Its mark.
    pub mark: u32,
    /// Its differentiated services code point.
    pub dscp: u8,
    /// The user whose the socket is.
    pub user: Option<u32>,
    /// The group of who opened it.
    pub group: Option<u32>,
    /// The inode numbers of its control group, and of those above.
    pub control_groups: Option<Vec<u64>>,
    /// The name of the process.
    pub program: Option<String>,
}

/// What a rule says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It matches.
    Matches,
    /// It would, if these were so.
    DependsOn(Vec<&'static str>),
}

/// The rules that match it or may, by their numbers, up to the first one that surely does.
pub fn asked(configuration: &Configuration, connection: &Connection) -> Vec<(usize, Answer)> {
    let mut found = Vec::new();
    for (number, rule) in configuration.rules.iter().enumerate() {
        match answer(rule, &configuration.sets, connection) {
            None => {}
            Some(Answer::Matches) => {
                found.push((number, Answer::Matches));
                break;
            }
            Some(depends) => found.push((number, depends)),
        }
    }
    found
}

// `None`: it does not match.
fn answer(rule: &Rule, sets: &[Set], connection: &Connection) -> Option<Answer> {
    let hook = match connection.forwarded {
        true => HOOK_PRE_ROUTING,
        false => HOOK_LOCAL_OUT,
    };
    let port = connection.server.port();
    let is_its = rule.hooks & hook != 0
        && family(connection.server.ip()) == rule.family
        && rule.protocol.is_none_or(|one| one == connection.protocol)
        && (rule.port_first..=rule.port_last).contains(&port)
        && begins(
            connection.server.ip(),
            rule.destination,
            rule.destination_prefix,
        )
        && begins(connection.client.ip(), rule.source, rule.source_prefix);
    if !is_its {
        return None;
    }
    let mut depends = Vec::new();
    let wanted = rule.interface.split(|&byte| byte == 0).next();
    let wanted = wanted.filter(|name| !name.is_empty());
    match (wanted, &connection.interface) {
        (Some(wanted), Some(name)) if wanted != name.as_bytes() => return None,
        (Some(_), None) => depends.push("the interface"),
        _ => {}
    }
    for condition in rule.conditions.iter() {
        match holds(&condition, sets, connection) {
            Held::Yes => {}
            Held::No => return None,
            Held::If(what) => depends.push(what),
        }
    }
    Some(match depends.is_empty() {
        true => Answer::Matches,
        false => Answer::DependsOn(depends),
    })
}

fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    let mut all = [0; 16];
    match address {
        IpAddr::V4(address) => all[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => all = address.octets(),
    }
    all
}

fn begins(address: IpAddr, network: [u8; 16], prefix: u8) -> bool {
    let [one, other] = [octets(address), network].map(u128::from_be_bytes);
    let rest = 128 - u32::from(prefix.min(128));
    (one ^ other).checked_shr(rest).unwrap_or(0) == 0
}

enum Held {
    Yes,
    No,
    /// If this, which was not said, is as it should be.
    If(&'static str),
}

fn holds(condition: &Condition, sets: &[Set], connection: &Connection) -> Held {
    let told = |is: bool| match is != condition.not {
        true => Held::Yes,
        false => Held::No,
    };
    let has = |number: u64| match condition.values {
        Values::Range { first, last } => (first..=last).contains(&number),
        Values::Name(_) => false,
        Values::Set(set) => in_set(sets, set, |one| match one {
            Element::Number([first, last]) => (*first..=*last).contains(&number),
            _ => false,
        }),
    };
    let has_name = |name: &str| {
        let is = |one: &[u8]| one.split(|&byte| byte == 0).next() == Some(name.as_bytes());
        match &condition.values {
            Values::Name(one) => is(one),
            Values::Range { .. } => false,
            Values::Set(set) => in_set(sets, *set, |one| match one {
                Element::Name(one) => is(one),
                _ => false,
            }),
        }
    };
    let has_address = |address: IpAddr| match condition.values {
        Values::Set(set) => in_set(sets, set, |one| match (one, address) {
            (Element::V4([first, last]), IpAddr::V4(address)) => {
                (*first..=*last).contains(&u32::from(address))
            }
            (Element::V6([first, last]), IpAddr::V6(address)) => {
                (*first..=*last).contains(&u128::from(address))
            }
            _ => false,
        }),
        _ => false,
    };
    // What is not known of others' connections, is neither; of the machine's own, it was not said.
    let own = |known: Option<bool>, what: &'static str| match known {
        _ if connection.forwarded => Held::No,
        Some(is) => told(is),
        None => Held::If(what),
    };
    match condition.field {
        Field::Source => told(has_address(connection.client.ip())),
        Field::Destination => told(has_address(connection.server.ip())),
        Field::SourcePort => match connection.client.port() {
            0 => Held::If("the client's port"),
            port => told(has(port.into())),
        },
        Field::DestinationPort => told(has(connection.server.port().into())),
        Field::Interface => match &connection.interface {
            Some(name) => told(has_name(name)),
            None => Held::If("the interface"),
        },
        Field::Mark => told(has(u64::from(connection.mark & condition.mask))),
        Field::Dscp => told(has(connection.dscp.into())),
        Field::User => own(connection.user.map(|user| has(user.into())), "the user"),
        Field::Group => own(connection.group.map(|group| has(group.into())), "the group"),
        Field::ControlGroup => {
            let groups = connection.control_groups.as_ref();
            let known = groups.map(|groups| groups.iter().any(|group| has(*group)));
            own(known, "the control group")
        }
        Field::Program => own(
            connection.program.as_deref().map(has_name),
            "the program's name",
        ),
        Field::Process => own(None, "the process"),
    }
}

fn in_set(sets: &[Set], number: u16, is: impl Fn(&Element) -> bool) -> bool {
    let set = sets.get(usize::from(number));
    set.is_some_and(|set| set.elements.iter().any(is))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mprox_file::{Machine, ProxyFile};

    use super::*;

    fn connection(server: &str) -> Connection {
        Connection {
            protocol: Protocol::Tcp,
            client: "192.0.2.2:40000".parse().unwrap(),
            server: server.parse().unwrap(),
            forwarded: true,
            interface: None,
            mark: 0,
            dscp: 0,
            user: None,
            group: None,
            control_groups: None,
            program: None,
        }
    }

    fn said(rules: &str, connection: &Connection) -> Vec<(usize, Answer)> {
        let text = format!("[upstreams.web]\nservers = [\"192.0.2.10\"]\n{rules}");
        let file = ProxyFile::parse("x.toml".to_owned(), text, Path::new(""), &Machine).unwrap();
        asked(&file.configuration, connection)
    }

    #[test]
    fn the_first_that_matches_decides() {
        let rules = r#"
            [[rule]]
            ip = 4
            to = "10.0.0.0/8"
            action = "direct"
            [[rule]]
            ip = 4
            protocol = "tcp"
            ports = "80-89"
            from = "192.0.2.0/24"
            via = "web"
            [[rule]]
            ip = 4
            action = "drop"
        "#;
        for (server, expected) in [
            ("10.1.2.3:80", Some(0)),
            ("11.1.2.3:80", Some(1)),
            ("11.1.2.3:89", Some(1)),
            ("11.1.2.3:90", Some(2)),
            ("[2001:db8::1]:80", None),
        ] {
            let expected: Vec<_> = expected
                .map(|number| (number, Answer::Matches))
                .into_iter()
                .collect();
            assert_eq!(said(rules, &connection(server)), expected, "{server}");
        }
    }

    #[test]
    fn what_was_not_said_may_decide() {
        let rules = r#"
            [[rule]]
            ip = 4
            users = [5, 6]
            interface = "eth0"
            action = "reject"
            [[rule]]
            ip = 4
            not-users = 5
            action = "drop"
            [[rule]]
            ip = 4
            interface = "eth1"
            via = "web"
        "#;
        // Whose it is nobody knows of others' connections.
        let forwarded = connection("11.1.2.3:80");
        let expected = [(2, Answer::DependsOn(vec!["the interface"]))];
        assert_eq!(said(rules, &forwarded), expected);
        let through = |name: &str| Connection {
            interface: Some(name.to_owned()),
            ..forwarded.clone()
        };
        assert_eq!(said(rules, &through("eth1")), [(2, Answer::Matches)]);
        assert_eq!(said(rules, &through("eth2")), []);
        let own = Connection {
            forwarded: false,
            ..forwarded
        };
        let told = said(rules, &own);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(
            told[0].1,
            Answer::DependsOn(vec!["the interface", "the user"])
        );
        assert_eq!(told[1].1, Answer::DependsOn(vec!["the user"]));
        let of_user = |user| Connection {
            user: Some(user),
            interface: Some("eth0".to_owned()),
            ..own.clone()
        };
        assert_eq!(said(rules, &of_user(6)), [(0, Answer::Matches)]);
        assert_eq!(said(rules, &of_user(7)), [(1, Answer::Matches)]);
    }

    #[test]
    fn sets_marks_and_names_are_looked_into() {
        let rules = r#"
            [sets.far]
            networks = ["203.0.113.0/24", "198.51.100.0/25"]
            [[rule]]
            ip = 4
            to = "@far"
            not-ports = [80, 443]
            mark = "0x100/0xff00"
            action = "reject"
        "#;
        let with = |server, mark| Connection {
            mark,
            ..connection(server)
        };
        for (server, mark, is) in [
            ("203.0.113.7:81", 0x100, true),
            ("203.0.113.7:81", 0x1_01ff, true),
            ("203.0.113.7:81", 0x200, false),
            ("203.0.113.7:80", 0x100, false),
            ("203.0.112.7:81", 0x100, false),
            ("198.51.100.127:81", 0x100, true),
            ("198.51.100.128:81", 0x100, false),
        ] {
            assert_eq!(
                said(rules, &with(server, mark)).len() == 1,
                is,
                "{server} {mark:#x}"
            );
        }
        let rules = r#"
            [[rule]]
            ip = 4
            programs = ["curl", "wget"]
            dscp = "ef"
            action = "reject"
        "#;
        let own = |program: Option<&str>, dscp| Connection {
            forwarded: false,
            program: program.map(str::to_owned),
            dscp,
            ..connection("203.0.113.7:81")
        };
        assert_eq!(said(rules, &own(Some("wget"), 46)), [(0, Answer::Matches)]);
        assert_eq!(said(rules, &own(Some("ssh"), 46)), []);
        assert_eq!(said(rules, &own(None, 46)).len(), 1);
        assert_eq!(said(rules, &own(None, 0)), []);
    }
}
