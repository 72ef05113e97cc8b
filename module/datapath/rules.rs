// SPDX-License-Identifier: GPL-2.0

//! Which new connections are redirected, and where to.

use core::ops::Deref;
use core::sync::atomic::{AtomicU8, Ordering};

use super::abi::proxy::{Family, Protocol, Rule};
use super::tuple::{address_from_bytes, Address, Tuple};

/// A rule, prepared for comparing with packets.
#[derive(Debug)]
pub struct Compiled {
    family: Family,
    protocol: Protocol,
    // Zero when the rule is disabled.
    hooks: AtomicU8,
    first_port: u16,
    last_port: u16,
    network: Address,
    mask: Address,
    upstream: Address,
    // Network byte order; zero keeps the port.
    upstream_port: u16,
    /// The context that set the rule.
    pub owner: u32,
}

impl Compiled {
    /// Prepares `rule` of the context `owner`.
    pub fn new(rule: &Rule, owner: u32) -> Self {
        let mask = mask(rule.prefix);
        let network = address_from_bytes(rule.destination);
        Self {
            family: rule.family,
            protocol: rule.protocol,
            hooks: AtomicU8::new(rule.hooks),
            first_port: rule.port_first,
            last_port: rule.port_last,
            network: and(network, mask),
            mask,
            upstream: address_from_bytes(rule.upstream),
            upstream_port: rule.upstream_port.to_be(),
            owner,
        }
    }

    fn matches(&self, hook: u8, tuple: &Tuple) -> bool {
        let port = u16::from_be(tuple.ports().destination);
        self.hooks.load(Ordering::Relaxed) & hook != 0
            && self.protocol == tuple.protocol()
            && self.family == tuple.family()
            && self.first_port <= port
            && port <= self.last_port
            && and(tuple.destination(), self.mask) == self.network
    }

    /// What packets of `tuple` look like when they leave for the upstream.
    pub fn redirect(&self, tuple: &Tuple) -> Tuple {
        let port = match self.upstream_port {
            0 => tuple.ports().destination,
            port => port,
        };
        tuple.to(self.upstream, port)
    }
}

fn and(left: Address, right: Address) -> Address {
    let [a, b, c, d] = left;
    let [e, f, g, h] = right;
    [a & e, b & f, c & g, d & h]
}

fn mask(prefix: u8) -> Address {
    let ones = match prefix {
        0 => 0,
        128.. => u128::MAX,
        prefix => u128::MAX << (128 - prefix),
    };
    address_from_bytes(ones.to_be_bytes())
}

/// Rules in the order in which they are asked.
pub struct Rules<S>(pub S);

impl<S: Deref<Target = [Compiled]>> Rules<S> {
    /// The rule for a new connection of `tuple` seen at `hook`, and what its packets look like
    /// when they leave. The first rule that matches decides; a packet that already goes where it
    /// would send it, the proxy's own way to its upstream, is left alone.
    pub fn find(&self, hook: u8, tuple: &Tuple) -> Option<(&Compiled, Tuple)> {
        let rule = self.0.iter().find(|rule| rule.matches(hook, tuple))?;
        let redirected = rule.redirect(tuple);
        (redirected != *tuple).then_some((rule, redirected))
    }

    /// Makes the rules of `owner` match nothing any more, from now on and without any memory.
    pub fn disable(&self, owner: u32) {
        for rule in self.0.iter().filter(|rule| rule.owner == owner) {
            rule.hooks.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::proxy::{HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
    use super::super::tuple::{v4, Ports};
    use super::*;

    fn rule(destination: [u8; 4], prefix: u8, ports: (u16, u16), upstream_port: u16) -> Rule {
        let wide = |[a, b, c, d]: [u8; 4]| [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Rule {
            family: Family::V4,
            protocol: Protocol::Tcp,
            hooks: HOOK_PRE_ROUTING,
            prefix,
            port_first: ports.0,
            port_last: ports.1,
            upstream_port,
            destination: wide(destination),
            upstream: wide([10, 0, 0, 1]),
        }
    }

    fn packet(destination: [u8; 4], port: u16) -> Tuple {
        let ports = Ports {
            source: 1,
            destination: port.to_be(),
        };
        let to = v4(u32::from_ne_bytes(destination));
        Tuple::new(Family::V4, Protocol::Tcp, v4(7), to, ports)
    }

    fn port_at_upstream(rules: &[Rule], hook: u8, tuple: &Tuple) -> Option<u16> {
        let compiled: Vec<Compiled> = rules.iter().map(|rule| Compiled::new(rule, 0)).collect();
        let rules = Rules(compiled);
        let (_, redirected) = rules.find(hook, tuple)?;
        assert_eq!(redirected.destination()[0].to_ne_bytes(), [10, 0, 0, 1]);
        assert_eq!(redirected.source(), tuple.source());
        Some(u16::from_be(redirected.ports().destination))
    }

    #[test]
    fn prefix_ports_and_hook_decide() {
        let rules = [rule([192, 0, 2, 0], 25, (80, 90), 8080)];
        let at = |to, port| port_at_upstream(&rules, HOOK_PRE_ROUTING, &packet(to, port));
        assert_eq!(at([192, 0, 2, 1], 80), Some(8080));
        assert_eq!(at([192, 0, 2, 127], 90), Some(8080));
        assert_eq!(at([192, 0, 2, 128], 80), None);
        assert_eq!(at([192, 0, 2, 1], 79), None);
        assert_eq!(at([192, 0, 2, 1], 91), None);
        let tuple = packet([192, 0, 2, 1], 80);
        assert_eq!(port_at_upstream(&rules, HOOK_LOCAL_OUT, &tuple), None);
    }

    #[test]
    fn the_first_match_decides_and_a_port_can_be_kept() {
        let rules = [
            rule([192, 0, 2, 9], 32, (0, 65535), 0),
            rule([0; 4], 0, (0, 65535), 1),
        ];
        let at = |to, port| port_at_upstream(&rules, HOOK_PRE_ROUTING, &packet(to, port));
        assert_eq!(at([192, 0, 2, 9], 443), Some(443));
        assert_eq!(at([8, 8, 8, 8], 443), Some(1));
    }

    #[test]
    fn the_way_to_the_upstream_is_left_alone() {
        let rules = [rule([0; 4], 0, (0, 65535), 8080)];
        let at = |to, port| port_at_upstream(&rules, HOOK_PRE_ROUTING, &packet(to, port));
        assert_eq!(at([10, 0, 0, 1], 8080), None);
        assert_eq!(at([10, 0, 0, 1], 8081), Some(8080));
    }

    #[test]
    fn disabled_rules_match_nothing() {
        let any = rule([0; 4], 0, (0, 65535), 1);
        let rules = Rules(vec![Compiled::new(&any, 1), Compiled::new(&any, 2)]);
        let owner = |rules: &Rules<Vec<Compiled>>| {
            rules
                .find(HOOK_PRE_ROUTING, &packet([8; 4], 1))
                .map(|(rule, _)| rule.owner)
        };
        assert_eq!(owner(&rules), Some(1));
        rules.disable(1);
        assert_eq!(owner(&rules), Some(2));
        rules.disable(2);
        assert_eq!(owner(&rules), None);
    }

    #[test]
    fn masks_of_every_length() {
        assert_eq!(mask(0), [0; 4]);
        assert_eq!(mask(128), [u32::MAX; 4]);
        assert_eq!(mask(33).map(u32::from_be), [u32::MAX, 0x8000_0000, 0, 0]);
    }
}
