// SPDX-License-Identifier: GPL-2.0

//! Which new connections are redirected.

use core::ops::Deref;

use super::abi::proxy::{Action, Protocol, Rule, NAME_SIZE};
use super::flow::Owner;
use super::tuple::{Address, Tuple};
use super::upstream::{Moment, Pool};

/// The name of an interface, filled up with zeros.
pub type Name = [u8; NAME_SIZE];

/// Addresses with the same first bits.
#[derive(Debug)]
struct Network<A> {
    bits: A,
    mask: A,
}

impl<A: Address> Network<A> {
    fn new(address: [u8; 16], prefix: u8) -> Self {
        let mask = A::mask(prefix);
        Self {
            bits: A::from_bytes(address).and(mask),
            mask,
        }
    }

    fn has(&self, address: A) -> bool {
        address.and(self.mask) == self.bits
    }
}

/// A rule, prepared for comparing with packets of its IP version.
#[derive(Debug)]
pub struct Compiled<A> {
    protocol: Option<Protocol>,
    hooks: u8,
    action: Action,
    upstreams: u8,
    first_port: u16,
    last_port: u16,
    destination: Network<A>,
    source: Network<A>,
    interface: Name,
    // Where the pool of its context is.
    pool: usize,
}

impl<A: Address> Compiled<A> {
    /// Prepares `rule` of the context whose upstreams are the pool at `pool`; `None` if it is of
    /// the other IP version.
    pub fn new(rule: &Rule, pool: usize) -> Option<Self> {
        (rule.family == A::FAMILY).then(|| Self {
            protocol: rule.protocol,
            hooks: rule.hooks,
            action: rule.action,
            upstreams: rule.upstreams,
            first_port: rule.port_first,
            last_port: rule.port_last,
            destination: Network::new(rule.destination, rule.destination_prefix),
            source: Network::new(rule.source, rule.source_prefix),
            interface: rule.interface,
            pool,
        })
    }

    // Whether protocol and destination port are the rule's.
    fn serves(&self, tuple: &Tuple<A>) -> bool {
        let port = u16::from_be(tuple.ports.destination());
        self.protocol
            .is_none_or(|protocol| protocol == tuple.protocol)
            && self.first_port <= port
            && port <= self.last_port
    }

    fn matches(&self, hook: u8, tuple: &Tuple<A>, interface: impl Fn() -> Name) -> bool {
        self.hooks & hook != 0
            && self.serves(tuple)
            && self.destination.has(tuple.destination())
            && self.source.has(tuple.source())
            && (self.interface == Name::default() || self.interface == interface())
    }
}

/// Where a new connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<A: Address> {
    /// The context, and which of its upstreams.
    pub owner: Owner,
    /// What the connection's packets look like when they leave.
    pub upstream: Tuple<A>,
}

/// Rules of one IP version in the order in which they are asked, and the pools of upstreams to
/// which they lead.
pub struct Rules<S, T> {
    /// The rules.
    pub rules: S,
    /// A pool for each context.
    pub pools: T,
    /// Where addresses of upstreams may be: [`Pool::spots`] of all pools.
    pub spots: u64,
}

impl<A, S, T, P> Rules<S, T>
where
    A: Address,
    S: Deref<Target = [Compiled<A>]>,
    T: Deref<Target = [P]>,
    P: Deref<Target = Pool<A>> + 'static,
{
    /// Where a new connection of `tuple`, seen at `hook`, goes; `interface` is asked at most once
    /// for each rule that names one, and `moment` is told whether its random number is used.
    ///
    /// The first rule that matches decides. A packet on its way to an upstream, of whatever
    /// context, is left alone: a proxy's own connections do not come back to a proxy. So is a
    /// datagram on its way back, which does not tell that it is an answer.
    pub fn choose(
        &self,
        hook: u8,
        tuple: &Tuple<A>,
        interface: impl Fn() -> Name,
        moment: impl FnOnce(bool) -> Moment,
    ) -> Option<Choice<A>> {
        let (rule, pool) = self
            .open()
            .find(|(rule, _)| rule.matches(hook, tuple, &interface))?;
        if rule.action == Action::Bypass
            || self.leads_to_upstream(tuple)
            || tuple.protocol == Protocol::Udp && self.comes_from_upstream(tuple)
        {
            return None;
        }
        let (number, upstream) = pool.select(rule.upstreams, tuple, || moment(pool.is_random()))?;
        let owner = Owner {
            context: pool.owner,
            upstream: number,
        };
        Some(Choice { owner, upstream })
    }

    // The rules of contexts that have not closed.
    fn open(&self) -> impl Iterator<Item = (&Compiled<A>, &Pool<A>)> {
        self.rules.iter().filter_map(|rule| {
            let pool: &Pool<A> = self.pools.get(rule.pool)?;
            (!pool.is_closed()).then_some((rule, pool))
        })
    }

    // Whether the packet goes to an upstream.
    #[inline(always)]
    fn leads_to_upstream(&self, tuple: &Tuple<A>) -> bool {
        // Nearly always the end of it.
        self.spots & tuple.destination().spot() != 0 && self.is_upstream(tuple)
    }

    // Whether one the other way would.
    #[inline(always)]
    fn comes_from_upstream(&self, tuple: &Tuple<A>) -> bool {
        self.spots & tuple.source().spot() != 0 && self.is_upstream(&tuple.reverse())
    }

    // Whether it goes to an upstream: to its very port or, if that keeps ports, to one that a rule leaves it.
    #[cold]
    #[inline(never)]
    fn is_upstream(&self, tuple: &Tuple<A>) -> bool {
        let (address, port) = (tuple.destination(), tuple.ports.destination());
        let mut pools = self.pools.iter().filter(|pool| !pool.is_closed());
        pools.any(|pool| pool.is_at(address, port))
            || self.open().any(|(rule, pool)| {
                pool.keeps_ports(rule.upstreams)
                    && rule.serves(tuple)
                    && pool.keeps_ports_at(rule.upstreams, address)
            })
    }

    /// The upstreams of the context `owner`.
    pub fn pool(&self, owner: u32) -> Option<&Pool<A>> {
        let mut pools = self.pools.iter();
        pools.find(|pool| pool.owner == owner).map(|pool| &**pool)
    }

    /// Makes the rules of `owner` match nothing any more, from now on and without any memory.
    pub fn disable(&self, owner: u32) {
        if let Some(pool) = self.pool(owner) {
            pool.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::proxy::{Family, Selection, Upstream, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
    use super::super::tuple::tests::ip;
    use super::super::tuple::{Ports, V4, V6};
    use super::*;
    use proptest::prelude::*;

    type TestRules<A> = Rules<Vec<Compiled<A>>, Vec<Box<Pool<A>>>>;

    fn wide([a, b, c, d]: [u8; 4]) -> [u8; 16] {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    fn name(text: &str) -> Name {
        let mut bytes = Name::default();
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    // Anything over TCP, to the first upstream.
    fn anything() -> Rule {
        Rule {
            family: Family::V4,
            protocol: Some(Protocol::Tcp),
            hooks: HOOK_PRE_ROUTING,
            action: Action::Redirect,
            destination_prefix: 0,
            source_prefix: 0,
            upstreams: 1,
            port_first: 0,
            port_last: u16::MAX,
            destination: [0; 16],
            source: [0; 16],
            interface: Name::default(),
        }
    }

    fn bypass() -> Rule {
        Rule {
            action: Action::Bypass,
            upstreams: 0,
            ..anything()
        }
    }

    fn upstream(last: u8, port: u16) -> Upstream {
        Upstream {
            family: Family::V4,
            priority: 0,
            port,
            address: wide([10, 0, 0, last]),
        }
    }

    // Contexts 1, 2, … with their upstreams and rules.
    fn rules<A: Address>(contexts: &[(&[Upstream], &[Rule])]) -> TestRules<A> {
        let mut all = Rules {
            rules: Vec::new(),
            pools: Vec::new(),
            spots: 0,
        };
        for (owner, (upstreams, rules)) in (1..).zip(contexts) {
            let place = all.pools.len();
            all.rules
                .extend(rules.iter().filter_map(|rule| Compiled::new(rule, place)));
            let pool = Pool::new(owner, Selection::RoundRobin, upstreams.iter().copied());
            all.spots |= pool.spots();
            all.pools.push(Box::new(pool));
        }
        all
    }

    fn packet(destination: [u8; 4], port: u16) -> Tuple<V4> {
        let ports = Ports::new(1, port.to_be());
        Tuple::new(Protocol::Tcp, ip([172, 16, 0, 7]), ip(destination), ports)
    }

    fn moment(_: bool) -> Moment {
        Moment {
            now: 0,
            retry: 1,
            random: 0,
        }
    }

    fn choose(rules: &TestRules<V4>, tuple: &Tuple<V4>) -> Option<Choice<V4>> {
        let choice = rules.choose(HOOK_PRE_ROUTING, tuple, || name("eth0"), moment);
        if let Some(choice) = choice {
            assert_eq!(choice.upstream.source(), tuple.source());
            assert_eq!(choice.upstream.ports.source(), tuple.ports.source());
        }
        choice
    }

    fn context(choice: Option<Choice<V4>>) -> Option<u32> {
        choice.map(|choice| choice.owner.context)
    }

    fn port(choice: Option<Choice<V4>>) -> Option<u16> {
        choice.map(|choice| u16::from_be(choice.upstream.ports.destination()))
    }

    #[test]
    fn the_first_match_decides_and_a_port_can_be_kept() {
        let one = Rule {
            destination: wide([192, 0, 2, 9]),
            destination_prefix: 32,
            upstreams: 0b10,
            ..anything()
        };
        let rules = rules(&[(&[upstream(1, 1), upstream(2, 0)], &[one, anything()])]);
        assert_eq!(
            port(choose(&rules, &packet([192, 0, 2, 9], 443))),
            Some(443)
        );
        assert_eq!(port(choose(&rules, &packet([8, 8, 8, 8], 443))), Some(1));
    }

    #[test]
    fn a_bypass_ends_the_search_for_all_contexts() {
        let some = Rule {
            port_first: 80,
            port_last: 90,
            ..bypass()
        };
        let to: &[Upstream] = &[upstream(1, 1)];
        let rules = rules(&[(&[], &[some]), (to, &[anything()])]);
        assert_eq!(context(choose(&rules, &packet([8; 4], 79))), Some(2));
        assert_eq!(context(choose(&rules, &packet([8; 4], 80))), None);
        rules.disable(1);
        assert_eq!(context(choose(&rules, &packet([8; 4], 80))), Some(2));
        rules.disable(2);
        assert_eq!(context(choose(&rules, &packet([8; 4], 80))), None);
    }

    #[test]
    fn the_way_to_any_upstream_is_left_alone() {
        let web = Rule {
            port_first: 80,
            port_last: 80,
            ..anything()
        };
        let over_any = Rule {
            protocol: None,
            ..anything()
        };
        let rules = rules(&[
            (&[upstream(1, 8080)], &[over_any]),
            (&[upstream(2, 0)], &[web]),
            (&[upstream(3, 53)], &[]),
        ]);
        for (last, to, expected) in [
            (1, 8080, None),
            (1, 8081, Some(8080)),
            (2, 80, None),
            (2, 81, Some(8080)),
            (3, 53, None),
            (3, 0, Some(8080)),
        ] {
            let chosen = choose(&rules, &packet([10, 0, 0, last], to));
            assert_eq!(port(chosen), expected, "10.0.0.{last}:{to}");
        }
        // Answers of an upstream, and what others have at the same port.
        for (last, protocol, expected) in [
            (1, Protocol::Udp, None),
            (1, Protocol::Tcp, Some(8080)),
            (4, Protocol::Udp, Some(8080)),
        ] {
            let ports = Ports::new(8080_u16.to_be(), 9);
            let tuple = Tuple::new(protocol, ip([10, 0, 0, last]), ip([8; 4]), ports);
            let chosen = rules.choose(HOOK_PRE_ROUTING, &tuple, Name::default, moment);
            assert_eq!(port(chosen), expected, "from 10.0.0.{last}");
        }
        // What nobody sends there any more can go elsewhere.
        rules.disable(2);
        rules.disable(3);
        assert_eq!(port(choose(&rules, &packet([10, 0, 0, 2], 80))), Some(8080));
        assert_eq!(port(choose(&rules, &packet([10, 0, 0, 3], 53))), Some(8080));
    }

    #[test]
    fn a_rule_is_of_one_version() {
        assert!(Compiled::<V6>::new(&anything(), 0).is_none());
    }

    // What a rule means, bit by bit.
    fn is_for(
        rule: &Rule,
        hook: u8,
        to: &[u8; 16],
        from: &[u8; 16],
        packet: (Protocol, u16, &str),
    ) -> bool {
        let (protocol, port, interface) = packet;
        let bit = |bytes: &[u8; 16], at: u8| bytes[usize::from(at / 8)] >> (7 - at % 8) & 1;
        let same = |one: &[u8; 16], other: &[u8; 16], prefix: u8| {
            (0..prefix).all(|at| bit(one, at) == bit(other, at))
        };
        rule.hooks & hook == hook
            && (rule.protocol.is_none() || rule.protocol == Some(protocol))
            && (rule.port_first..=rule.port_last).contains(&port)
            && same(&rule.destination, to, rule.destination_prefix)
            && same(&rule.source, from, rule.source_prefix)
            && (rule.interface[0] == 0 || rule.interface == name(interface))
    }

    const INTERFACES: [&str; 3] = ["", "eth0", "eth01"];

    // Few different values, so that rules and packets meet.
    fn any_address() -> impl Strategy<Value = [u8; 16]> {
        prop_oneof![Just(0_u8), Just(0x80), Just(0x81), Just(1)].prop_map(|byte| [byte; 16])
    }

    fn any_protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
    }

    fn any_rule(family: Family) -> impl Strategy<Value = Rule> {
        let cut = move |bytes: [u8; 16]| {
            if family == Family::V4 {
                wide([bytes[0]; 4])
            } else {
                bytes
            }
        };
        let prefix = || prop_oneof![2 => Just(0), 3 => 0..=family.bits()];
        let numbers = (
            1_u8..4,
            any::<bool>(),
            [prefix(), prefix()],
            [0_u16..4, 0..4],
        );
        let names = (0..INTERFACES.len()).prop_map(|at| INTERFACES[at]);
        (
            prop::option::of(any_protocol()),
            numbers,
            [any_address(), any_address()],
            names,
        )
            .prop_map(
                move |(protocol, (hooks, bypass, prefixes, ports), addresses, interface)| Rule {
                    family,
                    protocol,
                    hooks,
                    action: if bypass {
                        Action::Bypass
                    } else {
                        Action::Redirect
                    },
                    destination_prefix: prefixes[0],
                    source_prefix: prefixes[1],
                    upstreams: u8::from(!bypass),
                    port_first: ports[0].min(ports[1]),
                    port_last: ports[0].max(ports[1]),
                    destination: cut(addresses[0]),
                    source: cut(addresses[1]),
                    interface: name(interface),
                },
            )
    }

    // Of several contexts with a rule each, the one that the model says.
    fn agrees<A: Address>(
        list: &[Rule],
        hook: u8,
        to: [u8; 16],
        from: [u8; 16],
        packet: (Protocol, u16, usize),
    ) -> Result<(), TestCaseError> {
        let (protocol, port, interface) = packet;
        let upstreams = [Upstream {
            family: A::FAMILY,
            ..upstream(9, 9)
        }];
        let each: Vec<_> = list
            .iter()
            .map(|rule| (&upstreams[..], core::slice::from_ref(rule)))
            .collect();
        let rules = rules::<A>(&each);
        let ports = Ports::new(7, port.to_be());
        let tuple = Tuple::new(protocol, A::from_bytes(from), A::from_bytes(to), ports);
        let interface = INTERFACES[interface];
        let chosen = rules.choose(hook, &tuple, || name(interface), moment);
        let expected = (1..)
            .zip(list)
            .find(|(_, rule)| is_for(rule, hook, &to, &from, (protocol, port, interface)))
            .filter(|(_, rule)| rule.action == Action::Redirect)
            .map(|(owner, _)| owner);
        prop_assert_eq!(chosen.map(|choice| choice.owner.context), expected);
        Ok(())
    }

    proptest! {
        #[test]
        fn does_what_the_rules_mean(
            four in prop::collection::vec(any_rule(Family::V4), 1..6),
            six in prop::collection::vec(any_rule(Family::V6), 1..6),
            hook in prop_oneof![Just(HOOK_PRE_ROUTING), Just(HOOK_LOCAL_OUT)],
            to in any_address(), from in any_address(),
            protocol in any_protocol(), port in 0_u16..5, interface in 1..INTERFACES.len(),
        ) {
            let packet = (protocol, port, interface);
            let ([a, ..], [b, ..]) = (to, from);
            agrees::<V4>(&four, hook, wide([a; 4]), wide([b; 4]), packet)?;
            agrees::<V6>(&six, hook, to, from, packet)?;
        }
    }
}
