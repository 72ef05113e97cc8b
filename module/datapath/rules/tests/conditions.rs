// SPDX-License-Identifier: GPL-2.0

//! Conditions, sets, and what rules that block mean.

use super::super::super::abi::proxy::set::Element;
use super::super::super::abi::proxy::{self, Conditions, Field, ValueKind, Values};
use super::super::super::set::Staged;
use super::*;

/// What is known of a packet: numbers of fields.
#[derive(Clone, Debug, Default)]
struct Known {
    interface: Name,
    numbers: Vec<(Field, Vec<u64>)>,
    program: Option<Name>,
}

impl Facts for Known {
    fn interface(&self) -> Name {
        self.interface
    }

    fn program(&self) -> Option<Name> {
        self.program
    }

    fn any(&self, field: Field, is: impl FnMut(u64) -> bool) -> Option<bool> {
        let (_, numbers) = self.numbers.iter().find(|(of, _)| *of == field)?;
        Some(numbers.iter().copied().any(is))
    }
}

fn condition(field: Field, values: Values) -> proxy::Condition {
    proxy::Condition {
        field,
        not: false,
        mask: u32::MAX,
        values,
    }
}

fn with(conditions: &[proxy::Condition], rule: Rule) -> Rule {
    let mut all = Conditions::NONE;
    assert!(conditions.iter().all(|one| all.push(*one)));
    Rule {
        conditions: all,
        ..rule
    }
}

/// A set of what these elements are.
fn set(kind: ValueKind, elements: &[Element]) -> std::sync::Arc<Set<HostHeap>> {
    let label = Label::NONE;
    let Ok(mut staged) = Staged::<HostHeap>::new(proxy::Set { label, kind });
    for element in elements {
        assert_eq!(staged.add(*element), Ok(()));
    }
    let Ok(()) = staged.finish();
    staged.whole().unwrap().clone()
}

/// Rules that let connections go where they go if a condition holds, and one behind them that drops all others.
fn passes(
    sets: &[std::sync::Arc<Set<HostHeap>>],
    conditions: &[proxy::Condition],
    facts: &Known,
    tuple: &Tuple<V4>,
) -> bool {
    let last = Rule {
        action: Action::Drop,
        ..anything()
    };
    let rule = with(conditions, bypass());
    // Few rules, and so many that they are indexed.
    let [few, many] = [1, 20].map(|times| {
        let rules = [vec![rule; times], vec![last; times]].concat();
        let Ok(pool) = UpstreamPool::new(1, core::iter::empty());
        let context = Context {
            pool: Box::new(pool),
            rules: &rules,
            sets,
            matches: matches(rules.len()),
        };
        let Ok(rules) = Rules::<V4, HostHeap, Box<_>>::new([context].into_iter());
        let [one, other] = [Search::Indexed, Search::Linear]
            .map(|search| rules.choose(search, HOOK_PRE_ROUTING, Scope::All, tuple, facts, moment));
        assert_eq!(one, other);
        assert_eq!(
            one == Decision::Direct,
            one != Decision::Block { tells: false }
        );
        let counts = rules.matches[0].iter().map(|count| count.load(Relaxed));
        assert_eq!(counts.sum::<u64>(), 2, "each search is a connection");
        one == Decision::Direct
    });
    assert_eq!(few, many);
    few
}

#[test]
fn a_condition_holds_for_any_number_of_its_field() {
    let tuple = packet([192, 0, 2, 1], 80);
    let users = condition(
        Field::User,
        Values::Range {
            first: 1000,
            last: 1009,
        },
    );
    let groups = condition(Field::ControlGroup, Values::Range { first: 7, last: 7 });
    let not = |condition| proxy::Condition {
        not: true,
        ..condition
    };
    let facts = Known {
        numbers: vec![
            (Field::User, vec![1009]),
            (Field::ControlGroup, vec![1, 7, 9]),
        ],
        ..Known::default()
    };
    let holds = |conditions: &[proxy::Condition]| passes(&[], conditions, &facts, &tuple);
    assert!(holds(&[users]) && holds(&[groups]) && holds(&[users, groups]));
    assert!(!holds(&[not(users)]) && !holds(&[users, not(groups)]));
    let others = condition(
        Field::User,
        Values::Range {
            first: 0,
            last: 1008,
        },
    );
    assert!(!holds(&[others]) && holds(&[not(others)]) && !holds(&[groups, others]));
    // What is not known is neither.
    let unknown = condition(
        Field::Process,
        Values::Range {
            first: 0,
            last: u64::MAX,
        },
    );
    assert!(!holds(&[unknown]) && !holds(&[not(unknown)]));
}

#[test]
fn fields_of_the_packet_are_asked() {
    let tuple = packet([192, 0, 2, 1], 80);
    let facts = Known {
        interface: name("eth0"),
        numbers: vec![(Field::Mark, vec![0xa5f0]), (Field::Dscp, vec![46])],
        program: Some(name("curl")),
    };
    let range = |first, last| Values::Range { first, last };
    let masked = proxy::Condition {
        mask: 0xff00,
        ..condition(Field::Mark, range(0xa500, 0xa500))
    };
    for (condition, expected) in [
        (condition(Field::DestinationPort, range(79, 80)), true),
        (condition(Field::DestinationPort, range(81, 90)), false),
        (condition(Field::SourcePort, range(0x100, 0x100)), true),
        (condition(Field::SourcePort, range(1, 1)), false),
        (
            condition(Field::Interface, Values::Name(name("eth0"))),
            true,
        ),
        (
            condition(Field::Interface, Values::Name(name("eth00"))),
            false,
        ),
        (condition(Field::Program, Values::Name(name("curl"))), true),
        (condition(Field::Program, Values::Name(name("cur"))), false),
        (condition(Field::Mark, range(0xa5f0, 0xa5f0)), true),
        (condition(Field::Mark, range(0xa500, 0xa500)), false),
        (masked, true),
        (condition(Field::Dscp, range(46, 46)), true),
        (condition(Field::Dscp, range(0, 45)), false),
    ] {
        let found = passes(&[], &[condition], &facts, &tuple);
        assert_eq!(found, expected, "{condition:?}");
    }
}

#[test]
fn sets_are_a_contexts_own() {
    let from = |a: [u8; 4], b: [u8; 4]| Element::V4([u32::from_be_bytes(a), u32::from_be_bytes(b)]);
    let sets = [
        set(ValueKind::Addresses, &[Element::V6([0, 1])]),
        set(
            ValueKind::Addresses,
            &[
                from([10, 0, 0, 0], [10, 255, 255, 255]),
                from([172, 16, 0, 7], [172, 16, 0, 7]),
            ],
        ),
        set(
            ValueKind::Numbers,
            &[Element::Number([80, 80]), Element::Number([443, 443])],
        ),
    ];
    let of = |field, number| condition(field, Values::Set(number));
    let known = Known::default();
    let holds =
        |conditions: &[proxy::Condition], to| passes(&sets, conditions, &known, &packet(to, 80));
    assert!(holds(&[of(Field::Destination, 1)], [10, 9, 8, 7]));
    assert!(!holds(&[of(Field::Destination, 1)], [11, 9, 8, 7]));
    assert!(
        !holds(&[of(Field::Destination, 0)], [10, 9, 8, 7]),
        "of the other version"
    );
    assert!(holds(
        &[of(Field::Source, 1), of(Field::DestinationPort, 2)],
        [9; 4]
    ));
    // Of the second of two contexts.
    let Ok(pools) = [1, 2]
        .map(|owner| UpstreamPool::<V4, HostHeap>::new(owner, core::iter::empty()))
        .into_iter()
        .collect::<Result<Vec<_>, _>>();
    let rule = with(
        &[of(Field::Destination, 1)],
        Rule {
            action: Action::Reject,
            ..anything()
        },
    );
    let rules = [[rule], [rule]];
    let other = [sets[0].clone(), sets[0].clone()];
    let contexts = pools
        .into_iter()
        .zip([&other[..], &sets[..]])
        .zip(&rules)
        .map(|((pool, sets), rules)| Context {
            pool: Box::new(pool),
            rules,
            sets,
            matches: matches(1),
        });
    let Ok(rules) = Rules::new(contexts);
    let blocked = rules.choose(
        Search::Linear,
        HOOK_PRE_ROUTING,
        Scope::All,
        &packet([10, 0, 0, 1], 1),
        &known,
        moment,
    );
    assert_eq!(blocked, Decision::Block { tells: true });
    let counts: Vec<_> = rules.matches.iter().map(|of| of[0].load(Relaxed)).collect();
    assert_eq!(counts, [0, 1]);
}

#[test]
fn rules_do_no_more_than_they_may() {
    let of = |action| {
        let action = [Rule {
            action,
            ..anything()
        }];
        let rules = rules::<V4>(&[(&[upstream(9, 9)], &action)]);
        let blocks = matches!(action[0].action, Action::Drop | Action::Reject);
        assert_eq!(rules.block(), blocks);
        [Scope::All, Scope::Block, Scope::Redirect].map(|scope| {
            let tuple = packet([192, 0, 2, 1], 80);
            let known = Known::default();
            let decision = rules.choose(
                Search::Indexed,
                HOOK_PRE_ROUTING,
                scope,
                &tuple,
                &known,
                moment,
            );
            let count = rules.matches[0][0].swap(0, Relaxed);
            match decision {
                Decision::Redirect(_) => ("redirect", count),
                Decision::Direct => ("direct", count),
                Decision::Block { tells: true } => ("reject", count),
                Decision::Block { tells: false } => ("drop", count),
            }
        })
    };
    let direct = ("direct", 0);
    assert_eq!(
        of(Action::Redirect),
        [("redirect", 1), direct, ("redirect", 1)]
    );
    assert_eq!(of(Action::Direct), [("direct", 1), direct, direct]);
    assert_eq!(of(Action::Drop), [("drop", 1), ("drop", 1), direct]);
    assert_eq!(of(Action::Reject), [("reject", 1), ("reject", 1), direct]);
}
