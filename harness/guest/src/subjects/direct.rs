// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules as of a machine that sends everything but the LAN elsewhere, and many more for others: the packets go to the
//! LAN, so that they are none of a subject's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proxy::context;
use crate::proxy::context::Rule;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::addresses::WIRE_ORIGINAL;

/// How many rules for others stand before the one that lets the packets by.
const OTHERS: u8 = 60;

/// Networks to which no packet goes, and the lengths of their prefixes.
pub fn others(family: Family) -> impl Iterator<Item = (IpAddr, u8)> {
    (0..OTHERS).map(move |number| match family {
        // Of 203.0.113.0/24 (RFC 5737) and 2001:db8:ff00::/40.
        Family::V4 => (Ipv4Addr::new(203, 0, 113, 4 * number).into(), 30),
        Family::V6 => {
            let third = 0xff00 + u16::from(number);
            (
                Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, 0).into(),
                48,
            )
        }
    })
}

/// The network where the servers are, and the length of its prefix.
pub fn lan(family: Family) -> (IpAddr, u8) {
    match (family, WIRE_ORIGINAL.address(family)) {
        (_, IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            (Ipv4Addr::new(a, b, c, 0).into(), 24)
        }
        (_, IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            (Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), 64)
        }
    }
}

/// The module's rules.
pub fn rules(traffic: &Traffic, upstream: SocketAddr) -> Vec<Rule> {
    let Traffic {
        family, protocol, ..
    } = *traffic;
    let elsewhere = Rule::any(family, &[context::upstream(upstream, 0)]).over(protocol);
    let (net, prefix) = lan(family);
    let mut rules: Vec<Rule> = others(family)
        .map(|(net, prefix)| elsewhere.clone().towards(net, prefix))
        .collect();
    rules.push(Rule::any(family, &[]).towards(net, prefix));
    rules.push(elsewhere);
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mutex_abi::proxy::{Action, MAX_RULES};

    use super::*;
    use mutexlab_model::traffic::Load;
    use mutexlab_protocol::addresses::{WIRE_CLIENT, WIRE_UPSTREAM};

    #[test]
    fn rules_fit_and_the_last_but_one_lets_the_packets_by() {
        let traffic = Traffic {
            load: Load::Bulk { bytes: 1 },
            ..Traffic::USUAL
        };
        for family in [Family::V4, Family::V6] {
            let upstream = WIRE_UPSTREAM.socket(family, 7);
            let rules = rules(&Traffic { family, ..traffic }, upstream);
            assert_eq!(rules.len(), usize::from(OTHERS) + 2);
            assert!(rules.len() <= MAX_RULES);
            let bypasses = |rule: &Rule| rule.record.action == Action::Direct;
            assert_eq!(rules.iter().position(bypasses), Some(rules.len() - 2));
            assert_eq!(rules.iter().filter(|rule| bypasses(rule)).count(), 1);
            let nets: BTreeSet<_> = others(family).collect();
            assert_eq!(nets.len(), usize::from(OTHERS));
            // Neither end is in one of them, and only the server is in the LAN.
            let (net, prefix) = lan(family);
            assert_eq!(
                prefix_of(WIRE_ORIGINAL.address(family), prefix),
                prefix_of(net, prefix)
            );
            assert_ne!(
                prefix_of(WIRE_CLIENT.address(family), prefix),
                prefix_of(net, prefix)
            );
            for (net, prefix) in nets {
                for host in [WIRE_ORIGINAL, WIRE_CLIENT] {
                    assert_ne!(
                        prefix_of(host.address(family), prefix),
                        prefix_of(net, prefix)
                    );
                }
            }
        }
    }

    fn prefix_of(address: IpAddr, prefix: u8) -> u128 {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        bits >> (128 - u32::from(prefix))
    }
}
