// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules of nftables that redirect, for whatever the module is compared with.

use std::net::SocketAddr;

use super::direct;
use crate::net::layout::{ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK};
use crate::traffic::target::Target;
use mutexlab_model::traffic::{Family, Protocol, Traffic};

/// Name of the table.
const TABLE: &str = "mutexlab";

/// Packets to the original destination of `traffic`: which they are.
struct Match {
    family: &'static str,
    protocol: &'static str,
    original: SocketAddr,
}

impl Match {
    fn new(traffic: &Traffic) -> Self {
        Self {
            family: family_name(traffic.family),
            protocol: match traffic.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            original: Target::Original.address(traffic),
        }
    }

    fn table(&self, content: &str) -> String {
        format!("table {} {TABLE} {{\n{content}}}\n", self.family)
    }

    /// `what` befalls them, where packets come in and where the machine's own start, as with the
    /// module.
    fn nat(&self, what: &str) -> String {
        at_both(&format!("{} {what}", self.expression()))
    }

    fn expression(&self) -> String {
        format!(
            "{} daddr {} {} dport {}",
            self.family,
            self.original.ip(),
            self.protocol,
            self.original.port()
        )
    }
}

/// Destination NAT.
pub fn dnat(traffic: &Traffic) -> String {
    let packets = Match::new(traffic);
    let upstream = Target::Upstream.address(traffic);
    packets.table(&packets.nat(&format!("dnat to {upstream}")))
}

/// Destination NAT of everything but what goes to the LAN, behind rules for others.
pub fn dnat_direct(traffic: &Traffic) -> String {
    let packets = Match::new(traffic);
    let Match {
        family, protocol, ..
    } = packets;
    let upstream = Target::Upstream.address(traffic);
    let mut rules: Vec<String> = direct::others(traffic.family)
        .map(|(net, prefix)| {
            format!("{family} daddr {net}/{prefix} meta l4proto {protocol} dnat to {upstream}")
        })
        .collect();
    let (net, prefix) = direct::lan(traffic.family);
    rules.push(format!("{family} daddr {net}/{prefix} accept"));
    rules.push(format!("meta l4proto {protocol} dnat to {upstream}"));
    packets.table(&at_both(&rules.join("\n\t\t")))
}

/// Destination NAT, and a flow table for what is forwarded.
pub fn flow_table(traffic: &Traffic) -> String {
    let packets = Match::new(traffic);
    let upstream = Target::Upstream.address(traffic);
    let devices = [ROUTER_CLIENT_LINK.name, ROUTER_SERVER_LINK.name].join(", ");
    let table = format!(
        "\tflowtable short {{\n\t\thook ingress priority 0;\n\t\tdevices = {{ {devices} }};\n\t}}\n"
    );
    let rule = format!("meta l4proto {} flow add @short", packets.protocol);
    let forward = chain("forward", "filter hook forward priority 0", &rule);
    packets.table(&(table + &packets.nat(&format!("dnat to {upstream}")) + &forward))
}

/// Connections to a proxy that listens here at `port`, whose packets get `mark`; the machine's own
/// packets get it, too, and come back over the loopback by it.
pub fn tproxy(traffic: &Traffic, port: u16, mark: u32) -> String {
    let packets = Match::new(traffic);
    let matched = packets.expression();
    let mark = format!("meta mark set {mark} accept");
    let incoming = chain(
        "prerouting",
        "filter hook prerouting priority -150",
        &format!("{matched} tproxy to :{port} {mark}"),
    );
    let own = chain(
        "output",
        "route hook output priority -150",
        &format!("{matched} {mark}"),
    );
    packets.table(&(incoming + &own))
}

/// Connections to a proxy that listens here at `port`, and asks connection tracking where they were
/// meant to go.
pub fn redirect(traffic: &Traffic, port: u16) -> String {
    let packets = Match::new(traffic);
    packets.table(&packets.nat(&format!("redirect to :{port}")))
}

/// Takes the table away.
pub fn removal(family: Family) -> String {
    format!("delete table {} {TABLE}\n", family_name(family))
}

/// `rules` where packets come in and where the machine's own start.
fn at_both(rules: &str) -> String {
    chain("prerouting", "nat hook prerouting priority -100", rules)
        + &chain("output", "nat hook output priority -100", rules)
}

fn chain(name: &str, kind: &str, rule: &str) -> String {
    format!("\tchain {name} {{\n\t\ttype {kind};\n\t\t{rule}\n\t}}\n")
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_model::traffic::Ends;

    fn traffic(ends: Ends, family: Family, protocol: Protocol) -> Traffic {
        Traffic {
            ends,
            family,
            protocol,
            ..Traffic::USUAL
        }
    }

    #[test]
    fn rules_name_the_right_addresses() {
        let rules = dnat(&traffic(Ends::Wire, Family::V6, Protocol::Tcp));
        let rule = "ip6 daddr 2001:db8:2::c8 tcp dport 7 dnat to [2001:db8:2::64]:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        let rules = dnat(&traffic(Ends::Wire, Family::V4, Protocol::Udp));
        let rule = "ip daddr 198.51.100.200 udp dport 7 dnat to 198.51.100.100:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        let rules = dnat_direct(&traffic(Ends::Wire, Family::V6, Protocol::Udp));
        let rule = "ip6 daddr 2001:db8:2::/64 accept\n\t\tmeta l4proto udp dnat to [2001:db8:2::64]:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        assert_eq!(rules.matches("dnat to").count(), 2 * 61, "{rules}");
        let rules = flow_table(&traffic(Ends::Stack, Family::V4, Protocol::Udp));
        let rule = "ip daddr 198.51.100.3 udp dport 7 dnat to 198.51.100.2:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        assert!(rules.contains("devices = { clients, servers };"), "{rules}");
    }
}
