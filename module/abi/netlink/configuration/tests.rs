// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::super::super::proxy::MAX_CONDITIONS;
use super::super::condition::tests::any_condition;
use super::super::message::tests::{specified, written};
use super::*;
use core::num::NonZeroU8;
use proptest::prelude::*;

/// The type of the attribute that all of it is in.
const OUTER: u16 = 7;

fn outer(bytes: &[u8]) -> Attribute<'_> {
    Attributes::new(bytes).next().unwrap().unwrap()
}

fn rule_of(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Result<Rule, Refusal> {
    read_rule(&outer(&written(|writer| writer.nest(OUTER, write))))
}

fn group_of(
    write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
) -> Result<(Group, Vec<Upstream>), Refusal> {
    let bytes = written(|writer| writer.nest(OUTER, write));
    let mut upstreams = Vec::new();
    let group = read_group(&outer(&bytes), 3, |one| {
        upstreams.push(one);
        Ok::<(), Refusal>(())
    })?;
    Ok((group, upstreams))
}

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn address(family: Family, bytes: [u8; 16]) -> [u8; 16] {
    let length = usize::from(family.bits() / 8);
    core::array::from_fn(|at| if at < length { bytes[at] } else { 0 })
}

fn any_upstream() -> impl Strategy<Value = Upstream> {
    let numbers = (any::<u8>(), any::<u16>(), 0_u8..5, 1_u8..=255);
    (any_family(), numbers, any::<[u8; 16]>()).prop_map(
        |(family, (priority, port, group, weight), [first, rest @ ..])| {
            let mut bytes = [first | 1; 16];
            bytes[1..].copy_from_slice(&rest);
            Upstream {
                family,
                priority,
                weight: NonZeroU8::new(weight).unwrap_or(NonZeroU8::MIN),
                port,
                group,
                address: address(family, bytes),
            }
        },
    )
}

fn any_selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        Just(Selection::RoundRobin),
        Just(Selection::Failover),
        Just(Selection::Random),
        Just(Selection::SourceHash)
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![
        Just(None),
        Just(Some(Protocol::Tcp)),
        Just(Some(Protocol::Udp))
    ];
    let numbers = (
        1_u8..4,
        any::<[u8; 2]>(),
        prop::option::of(0_u8..5),
        any::<[u16; 2]>(),
    );
    let bytes = (any::<[[u8; 16]; 2]>(), "[a-z0-9.-]{3,15}|");
    let conditions = prop::collection::vec(any_condition(), 0..=MAX_CONDITIONS);
    (any_family(), protocol, numbers, bytes, conditions).prop_map(
        |(family, protocol, (hooks, prefixes, group, ports), (addresses, name), conditions)| {
            let mut interface = [0; NAME_SIZE];
            interface[..name.len()].copy_from_slice(name.as_bytes());
            Rule {
                label: Label::new(name.as_bytes()).unwrap(),
                family,
                protocol,
                hooks,
                action: match group {
                    None => Action::Direct,
                    Some(_) => Action::Redirect,
                },
                destination_prefix: prefixes[0] % (family.bits() + 1),
                source_prefix: prefixes[1] % (family.bits() + 1),
                group: group.unwrap_or_default(),
                port_first: ports[0].min(ports[1]),
                port_last: ports[0].max(ports[1]),
                destination: address(family, addresses[0]),
                source: address(family, addresses[1]),
                interface,
                conditions: conditions
                    .into_iter()
                    .fold(Conditions::NONE, |mut all, one| {
                        assert!(all.push(one));
                        all
                    }),
            }
        },
    )
}

proptest! {
    #[test]
    fn rules_and_groups_survive(
        rule in any_rule(),
        selection in any_selection(),
        upstreams in prop::collection::vec(any_upstream(), 0..20),
    ) {
        let bytes = written(|writer| write_rule(writer, OUTER, &rule));
        prop_assert_eq!(read_rule(&outer(&bytes)), Ok(rule));
        let label = Label::new(b"web").unwrap();
        let group = Group { label, selection };
        let upstreams: Vec<_> = upstreams
            .into_iter()
            .map(|one| Upstream { group: 3, ..one })
            .collect();
        let bytes = written(|writer| {
            write_group(writer, OUTER, &group, upstreams.iter().copied())
        });
        let mut read = Vec::new();
        let again = read_group(&outer(&bytes), 3, |one| {
            read.push(one);
            Ok::<(), Refusal>(())
        });
        prop_assert_eq!((again, read), (Ok(group), upstreams));
    }

    // Whatever is said, it is taken for a rule that can be said again, or refused at a place that is there.
    #[test]
    fn any_byte_may_be_another(rule in any_rule(), at: prop::sample::Index, change in 1_u8..) {
        let mut bytes = written(|writer| write_rule(writer, OUTER, &rule));
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let read = Attributes::new(&bytes).next().unwrap();
        match read.map_err(Refusal::from).and_then(|attribute| read_rule(&attribute)) {
            Err(refusal) => prop_assert!(refusal.offset < bytes.len()),
            Ok(read) => {
                let bytes = written(|writer| write_rule(writer, OUTER, &read));
                prop_assert_eq!(read_rule(&outer(&bytes)), Ok(read));
            }
        }
    }
}

#[test]
fn types_are_those_of_the_specification() {
    for (set, types) in [
        (
            "GROUP",
            &[
                ("SELECTION", group::SELECTION),
                ("UPSTREAM", group::UPSTREAM),
                ("LABEL", group::LABEL),
            ][..],
        ),
        (
            "UPSTREAM",
            &[
                ("ADDRESS", upstream::ADDRESS),
                ("PORT", upstream::PORT),
                ("PRIORITY", upstream::PRIORITY),
                ("WEIGHT", upstream::WEIGHT),
            ],
        ),
        (
            "RULE",
            &[
                ("IP_VERSION", rule::IP_VERSION),
                ("PROTOCOL", rule::PROTOCOL),
                ("DIRECTIONS", rule::DIRECTIONS),
                ("SOURCE", rule::SOURCE),
                ("DESTINATION", rule::DESTINATION),
                ("DESTINATION_PORTS", rule::DESTINATION_PORTS),
                ("INTERFACE", rule::INTERFACE),
                ("ACTION", rule::ACTION),
                ("GROUP", rule::GROUP),
                ("LABEL", rule::LABEL),
                ("CONDITION", rule::CONDITION),
            ],
        ),
        (
            "NETWORK",
            &[
                ("ADDRESS", network::ADDRESS),
                ("PREFIX_LENGTH", network::PREFIX_LENGTH),
            ],
        ),
        ("PORTS", &[("FIRST", ports::FIRST), ("LAST", ports::LAST)]),
    ] {
        let names = specified(&format!("MUTEX_PROXY_A_{set}_"));
        let expected: Vec<_> = names.iter().map(String::as_str).zip(1..).collect();
        assert_eq!(types, expected, "{set}");
    }
}

#[test]
fn what_is_left_out_is_any() {
    let rule = rule_of(|writer| {
        writer.u32(rule::IP_VERSION, 6)?;
        writer.u32(rule::ACTION, 1)
    });
    assert_eq!(rule, Ok(Rule::any(Family::V6)));
    // An address says the version, and is a network of its own; a port is a range of its own.
    let rule = rule_of(|writer| {
        writer.nest(rule::SOURCE, |writer| {
            writer.bytes(network::ADDRESS, &[192, 0, 2, 1])
        })?;
        writer.nest(rule::DESTINATION_PORTS, |writer| {
            writer.u32(ports::FIRST, 53)
        })?;
        writer.u32(rule::ACTION, 1)
    })
    .unwrap();
    assert_eq!((rule.family, rule.source_prefix), (Family::V4, 32));
    assert_eq!((rule.port_first, rule.port_last), (53, 53));
    let (group, upstreams) = group_of(|writer| {
        writer.nest(group::UPSTREAM, |writer| {
            writer.bytes(upstream::ADDRESS, &[192, 0, 2, 1])
        })
    })
    .unwrap();
    assert_eq!(group.selection, Selection::RoundRobin);
    assert_eq!((upstreams[0].port, upstreams[0].priority), (0, 0));
}

/// Writes the attributes of a bad rule or group.
type Write = fn(&mut Writer<'_>) -> Result<(), NoRoom>;

#[test]
fn rules_without_meaning_are_refused_where_they_have_none() {
    // Behind what makes it a rule: 8 bytes of a version and 8 of an action, and the header of all.
    const BEHIND: usize = 20;
    let cases: [(Write, usize, &CStr); 13] = [
        (
            |to| to.u32(rule::PROTOCOL, 1),
            BEHIND,
            c"a protocol is 6 (TCP) or 17 (UDP)",
        ),
        (
            |to| to.u32(rule::PROTOCOL, 6 + 256),
            BEHIND,
            c"a protocol is 6 (TCP) or 17 (UDP)",
        ),
        (
            |to| to.u32(rule::DIRECTIONS, 4),
            BEHIND,
            c"directions are a sum of forwarded (1) and local (2)",
        ),
        (
            |to| to.nest(rule::SOURCE, |to| to.bytes(network::ADDRESS, &[0; 16])),
            BEHIND + 4,
            c"an attribute before says another IP version",
        ),
        (
            |to| to.nest(rule::SOURCE, |to| to.bytes(network::ADDRESS, &[0; 5])),
            BEHIND + 4,
            c"an address has 4 bytes, or 16",
        ),
        (
            |to| {
                to.nest(rule::DESTINATION, |to| {
                    to.u32(network::PREFIX_LENGTH, 33)?;
                    to.bytes(network::ADDRESS, &[0; 4])
                })
            },
            BEHIND + 4,
            TOO_LONG,
        ),
        (
            |to| to.nest(rule::DESTINATION, |to| to.u32(network::PREFIX_LENGTH, 3)),
            BEHIND,
            c"a network needs an address",
        ),
        (
            |to| {
                to.nest(rule::DESTINATION_PORTS, |to| {
                    to.u32(ports::FIRST, 2)?;
                    to.u32(ports::LAST, 1)
                })
            },
            BEHIND,
            c"the last port is less than the first",
        ),
        (
            |to| to.nest(rule::DESTINATION_PORTS, |to| to.u32(ports::LAST, 1)),
            BEHIND,
            c"a range needs its first port",
        ),
        (
            |to| to.string(rule::INTERFACE, b"a b"),
            BEHIND,
            c"no interface can have this name",
        ),
        (
            |to| to.string(rule::INTERFACE, b"sixteen-letters!"),
            BEHIND,
            c"no interface can have this name",
        ),
        (
            |to| to.u32(rule::GROUP, 1),
            0,
            c"only a rule that redirects has a group",
        ),
        (|to| to.flag(99), BEHIND, UNKNOWN),
    ];
    for (write, offset, message) in cases {
        let read = rule_of(|writer| {
            writer.u32(rule::IP_VERSION, 4)?;
            writer.u32(rule::ACTION, 1)?;
            write(writer)
        });
        assert_eq!(read, Err(Refusal { offset, message }), "{message:?}");
    }
    let missing: [(Write, &CStr); 3] = [
        (|to| to.u32(rule::IP_VERSION, 4), c"a rule needs an action"),
        (
            |to| to.u32(rule::ACTION, 1),
            c"a rule needs an IP version, or an address",
        ),
        (
            |to| {
                to.u32(rule::IP_VERSION, 4)?;
                to.u32(rule::ACTION, 0)
            },
            c"a rule that redirects needs a group",
        ),
    ];
    for (write, message) in missing {
        assert_eq!(rule_of(write), Err(Refusal { offset: 0, message }));
    }
}

#[test]
fn groups_without_meaning_are_refused_where_they_have_none() {
    const BAD_WEIGHT: &CStr = c"a weight is from 1 to 255";
    let cases: [(Write, usize, &CStr); 8] = [
        (|to| to.u32(group::SELECTION, 4), 4, UNKNOWN_SELECTION),
        (|to| to.u32(group::SELECTION, 256), 4, UNKNOWN_SELECTION),
        (
            |to| to.nest(group::UPSTREAM, |_| Ok(())),
            4,
            c"an upstream needs an address",
        ),
        (
            |to| to.nest(group::UPSTREAM, |to| to.bytes(upstream::ADDRESS, &[0; 4])),
            8,
            c"an upstream cannot be at the unspecified address",
        ),
        (
            |to| to.nest(group::UPSTREAM, |to| to.u32(upstream::PORT, 1 << 16)),
            8,
            c"a port is at most 65535",
        ),
        (
            |to| to.nest(group::UPSTREAM, |to| to.u32(upstream::PRIORITY, 256)),
            8,
            c"a priority is at most 255",
        ),
        (
            |to| to.nest(group::UPSTREAM, |to| to.u32(upstream::WEIGHT, 0)),
            8,
            BAD_WEIGHT,
        ),
        (
            |to| to.nest(group::UPSTREAM, |to| to.u32(upstream::WEIGHT, 256)),
            8,
            BAD_WEIGHT,
        ),
    ];
    for (write, offset, message) in cases {
        assert_eq!(group_of(write).err(), Some(Refusal { offset, message }));
    }
}
