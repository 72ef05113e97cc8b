// SPDX-License-Identifier: GPL-2.0

//! Which new connections are redirected, and where to.

use core::ops::Deref;
use core::sync::atomic::{AtomicU8, Ordering};

use super::abi::proxy::{Protocol, Rule};
use super::tuple::{Address, Tuple};

/// A rule, prepared for comparing with packets of its IP version.
#[derive(Debug)]
pub struct Compiled<A> {
    protocol: Protocol,
    // Zero when the rule is disabled.
    hooks: AtomicU8,
    first_port: u16,
    last_port: u16,
    network: A,
    mask: A,
    upstream: A,
    // Network byte order; zero keeps the port.
    upstream_port: u16,
    /// The context that set the rule.
    pub owner: u32,
}

impl<A: Address> Compiled<A> {
    /// Prepares `rule` of the context `owner`; `None` if it is of the other IP version.
    pub fn new(rule: &Rule, owner: u32) -> Option<Self> {
        if rule.family != A::FAMILY {
            return None;
        }
        let mask = A::mask(rule.prefix);
        Some(Self {
            protocol: rule.protocol,
            hooks: AtomicU8::new(rule.hooks),
            first_port: rule.port_first,
            last_port: rule.port_last,
            network: A::from_bytes(rule.destination).and(mask),
            mask,
            upstream: A::from_bytes(rule.upstream),
            upstream_port: rule.upstream_port.to_be(),
            owner,
        })
    }

    fn matches(&self, hook: u8, tuple: &Tuple<A>) -> bool {
        let port = u16::from_be(tuple.ports.destination());
        self.hooks.load(Ordering::Relaxed) & hook != 0
            && self.protocol == tuple.protocol
            && self.first_port <= port
            && port <= self.last_port
            && tuple.destination().and(self.mask) == self.network
    }

    /// What packets of `tuple` look like when they leave for the upstream.
    pub fn redirect(&self, tuple: &Tuple<A>) -> Tuple<A> {
        let port = match self.upstream_port {
            0 => tuple.ports.destination(),
            port => port,
        };
        tuple.to(self.upstream, port)
    }
}

/// Rules of one IP version in the order in which they are asked.
pub struct Rules<S>(pub S);

impl<A: Address, S: Deref<Target = [Compiled<A>]>> Rules<S> {
    /// The rule for a new connection of `tuple` seen at `hook`, and what its packets look like
    /// when they leave. The first rule that matches decides; a packet that already goes where it
    /// would send it, the proxy's own way to its upstream, is left alone.
    pub fn find(&self, hook: u8, tuple: &Tuple<A>) -> Option<(&Compiled<A>, Tuple<A>)> {
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
    use super::super::abi::proxy::{Family, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
    use super::super::tuple::tests::ip;
    use super::super::tuple::{Ports, V4, V6};
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

    fn packet(destination: [u8; 4], port: u16) -> Tuple<V4> {
        let ports = Ports::new(1, port.to_be());
        Tuple::new(Protocol::Tcp, V4(7), ip(destination), ports)
    }

    fn rules(rules: &[Rule]) -> Rules<Vec<Compiled<V4>>> {
        let compiled = (1..).zip(rules);
        Rules(
            compiled
                .filter_map(|(n, rule)| Compiled::new(rule, n))
                .collect(),
        )
    }

    fn port_at_upstream(list: &[Rule], hook: u8, tuple: &Tuple<V4>) -> Option<u16> {
        let rules = rules(list);
        let (_, redirected) = rules.find(hook, tuple)?;
        assert_eq!(redirected.destination(), ip([10, 0, 0, 1]));
        assert_eq!(redirected.source(), tuple.source());
        Some(u16::from_be(redirected.ports.destination()))
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
        let rules = rules(&[any, any]);
        let owner = || {
            rules
                .find(HOOK_PRE_ROUTING, &packet([8; 4], 1))
                .map(|(rule, _)| rule.owner)
        };
        assert_eq!(owner(), Some(1));
        rules.disable(1);
        assert_eq!(owner(), Some(2));
        rules.disable(2);
        assert_eq!(owner(), None);
    }

    #[test]
    fn a_rule_is_of_one_version() {
        assert!(Compiled::<V6>::new(&rule([1; 4], 32, (1, 1), 0), 1).is_none());
    }
}
