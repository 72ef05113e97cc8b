// SPDX-License-Identifier: GPL-2.0

use super::super::abi::proxy::{
    Family, Group, Label, Selection, Upstream, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING,
};
use super::super::host::HostHeap;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4, V6};
use super::*;
use core::num::NonZeroU8;
use proptest::prelude::*;

mod conditions;

type TestRules<A> = Rules<A, HostHeap, Box<UpstreamPool<A, HostHeap>>>;

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
        protocol: Some(Protocol::Tcp),
        hooks: HOOK_PRE_ROUTING,
        action: Action::Redirect,
        ..Rule::any(Family::V4)
    }
}

fn bypass() -> Rule {
    Rule {
        action: Action::Direct,
        ..anything()
    }
}

fn upstream(last: u8, port: u16) -> Upstream {
    Upstream {
        weight: NonZeroU8::MIN,
        family: Family::V4,
        priority: 0,
        port,
        group: 0,
        address: wide([10, 0, 0, last]),
    }
}

// Contexts 1, 2, … with their upstreams and rules.
fn rules<A: Address>(contexts: &[(&[Upstream], &[Rule])]) -> TestRules<A> {
    let contexts = (1..).zip(contexts).map(|(owner, (upstreams, rules))| {
        // Each in a group of its own.
        let selection = Selection::RoundRobin;
        let groups = upstreams.iter().map(|one| {
            (
                Group {
                    label: Label::NONE,
                    selection,
                },
                core::slice::from_ref(one),
            )
        });
        let Ok(pool) = UpstreamPool::new(owner, groups);
        Context {
            pool: Box::new(pool),
            rules,
            sets: &[],
            matches: matches(rules.len()),
        }
    });
    let Ok(rules) = Rules::new(contexts);
    rules
}

fn matches(count: usize) -> std::sync::Arc<Matches<HostHeap>> {
    let counters = (0..count).map(|_| AtomicU64::new(0));
    std::sync::Arc::new(counters.collect())
}

fn packet(destination: [u8; 4], port: u16) -> Tuple<V4> {
    let ports = Ports::new(1, port.to_be());
    Tuple::new(Protocol::Tcp, ip([172, 16, 0, 7]), ip(destination), ports)
}

fn moment(_: bool) -> Moment {
    Moment {
        now: 0,
        second: 1,
        retry: 1,
        random: 0,
        client: 0,
    }
}

fn choose(rules: &TestRules<V4>, tuple: &Tuple<V4>) -> Option<Choice<V4>> {
    let by = |search| {
        rules
            .choose(
                search,
                HOOK_PRE_ROUTING,
                Scope::All,
                tuple,
                &|| name("eth0"),
                moment,
            )
            .redirected()
    };
    let choice = by(Search::Indexed);
    assert_eq!(by(Search::Linear), choice);
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
        group: 1,
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
        let chosen = rules
            .choose(
                Search::Indexed,
                HOOK_PRE_ROUTING,
                Scope::All,
                &tuple,
                &Name::default,
                moment,
            )
            .redirected();
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
    assert!(Compiled::<V6>::new(&anything(), 0, 0, [0; 2]).is_none());
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
                protocol,
                hooks,
                action: if bypass {
                    Action::Direct
                } else {
                    Action::Redirect
                },
                destination_prefix: prefixes[0],
                source_prefix: prefixes[1],
                port_first: ports[0].min(ports[1]),
                port_last: ports[0].max(ports[1]),
                destination: cut(addresses[0]),
                source: cut(addresses[1]),
                interface: name(interface),
                ..Rule::any(family)
            },
        )
}

// Few, or more than a word of a bit vector has bits.
fn any_rules(family: Family) -> impl Strategy<Value = Vec<Rule>> {
    let many = if cfg!(miri) { 3 } else { 200 };
    prop_oneof![
        3 => prop::collection::vec(any_rule(family), 1..6),
        1 => prop::collection::vec(any_rule(family), many..many + 10),
    ]
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
        weight: NonZeroU8::MIN,
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
    let [chosen, linear] = [Search::Indexed, Search::Linear].map(|search| {
        let decision = rules.choose(
            search,
            hook,
            Scope::All,
            &tuple,
            &|| name(interface),
            moment,
        );
        decision.redirected().map(|choice| choice.owner.context)
    });
    let expected = (1..)
        .zip(list)
        .find(|(_, rule)| is_for(rule, hook, &to, &from, (protocol, port, interface)))
        .filter(|(_, rule)| rule.action == Action::Redirect)
        .map(|(owner, _)| owner);
    prop_assert_eq!([chosen, linear], [expected; 2]);
    // Of however few rules: which of them match, in their order.
    let Ok(index) = Index::<A, HostHeap>::new(&rules.rules);
    let mut found = Vec::new();
    let _ = index.find(
        hook,
        &tuple,
        || name(interface),
        |number| {
            found.push(number);
            None::<()>
        },
    );
    let matching = rules.rules.iter().enumerate();
    let matching = matching.filter(|(_, rule)| rule.matches(hook, &tuple, || name(interface)));
    prop_assert_eq!(
        found,
        matching.map(|(number, _)| number).collect::<Vec<_>>()
    );
    Ok(())
}

proptest! {
    #[test]
    fn kept_ports_are_those_of_the_rules_that_may_select_the_upstream(
        list in prop::collection::vec(
            (prop::option::of(any_protocol()), 0_u8..3, [0_u16..30, 0..30]), 0..8,
        ),
        protocol in any_protocol(),
    ) {
        // Two that keep ports, and one that does not.
        let upstreams = [upstream(0, 0), upstream(1, 0), upstream(2, 99)];
        let of = |&(protocol, group, ports): &(_, _, [u16; 2])| Rule {
            protocol,
            group,
            port_first: ports[0].min(ports[1]),
            port_last: ports[0].max(ports[1]),
            ..anything()
        };
        let mut list: Vec<_> = list.iter().map(of).collect();
        // In two contexts, so that one has to be told from the other.
        let second = list.split_off(list.len() / 2);
        let rules = rules::<V4>(&[(&upstreams, &list), (&upstreams, &second)]);
        for (last, port) in (0..3).flat_map(|last| (1..32).map(move |port| (last, port))) {
            let tuple = Tuple {
                protocol,
                ..packet([10, 0, 0, last], port)
            };
            let serves = |rule: &Rule| {
                rule.group == last
                    && rule.protocol.is_none_or(|one| one == protocol)
                    && (rule.port_first..=rule.port_last).contains(&port)
            };
            let kept = last < 2 && list.iter().chain(&second).any(serves);
            prop_assert_eq!(rules.is_upstream(&tuple), kept, "10.0.0.{}:{}", last, port);
        }
    }

    #[test]
    fn does_what_the_rules_mean(
        four in any_rules(Family::V4),
        six in any_rules(Family::V6),
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
