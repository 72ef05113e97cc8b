// SPDX-License-Identifier: GPL-2.0

use super::super::abi::netlink::attribute::{NoRoom, Writer};
use super::super::abi::netlink::configuration::{write_group, write_rule};
use super::super::abi::netlink::set::write_part;
use super::super::abi::proxy::set::Element;
use super::super::abi::proxy::{Condition, Field, Label, Selection, Set, ValueKind};
use super::super::host::HostHeap;
use super::*;
use core::num::NonZeroU8;
use proptest::prelude::*;

type Staged = Configuration<HostHeap>;

fn upstream(family: Family, last: u8) -> Upstream {
    let mut address = [0; 16];
    address[0] = 10;
    address[3] = last;
    Upstream {
        weight: NonZeroU8::MIN,
        family,
        priority: 0,
        port: 80,
        group: 0,
        address,
    }
}

fn rule(group: Option<u8>) -> Rule {
    Rule {
        action: match group {
            Some(_) => Action::Redirect,
            None => Action::Direct,
        },
        group: group.unwrap_or_default(),
        ..Rule::any(Family::V4)
    }
}

/// What a message says, one after the other.
#[derive(Clone, Debug)]
enum Said {
    Group(Vec<Upstream>),
    Rule(Box<Rule>),
    // With its number and, where it begins, its kind.
    Set(u32, Option<ValueKind>, Vec<Element>),
}

fn of_rule(rule: Rule) -> Said {
    Said::Rule(Box::new(rule))
}

impl Said {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let group = Group {
            label: Label::NONE,
            selection: Selection::Random,
        };
        match self {
            Self::Group(upstreams) => {
                write_group(writer, kind::GROUP, &group, upstreams.iter().copied())
            }
            Self::Rule(rule) => write_rule(writer, kind::RULE, rule),
            Self::Set(number, of, elements) => {
                let label = Label::NONE;
                let part = SetPart {
                    number: *number,
                    set: of.map(|kind| Set { label, kind }),
                    elements: None,
                };
                let mut elements = elements.iter().copied().peekable();
                write_part(writer, kind::SET, &part, &mut elements, 1 << 15)
            }
        }
    }
}

fn message(said: &[Said]) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut writer = Writer::new(&mut bytes);
    said.iter()
        .try_for_each(|one| one.write(&mut writer))
        .unwrap();
    let length = writer.written();
    bytes.truncate(length);
    bytes
}

fn staged(messages: &[Vec<u8>]) -> Result<Staged, Refusal> {
    let Ok(mut staged) = Staged::new();
    for bytes in messages {
        match staged.stage(Attributes::new(bytes)) {
            Ok(()) => {}
            Err(StageError::Refused(refusal)) => return Err(refusal),
        }
    }
    Ok(staged)
}

fn refused(said: &[Said]) -> Option<&'static core::ffi::CStr> {
    staged(&[message(said)])
        .err()
        .map(|refusal| refusal.message)
}

#[test]
fn what_is_staged_in_parts_is_there_as_a_whole() {
    let four = upstream(Family::V4, 1);
    let six = upstream(Family::V6, 2);
    let parts = [
        vec![Said::Group(vec![four, six]), of_rule(rule(Some(0)))],
        vec![Said::Group(vec![])],
        vec![of_rule(rule(None)), Said::Group(vec![four])],
    ];
    let staged = staged(&parts.map(|part| message(&part))).unwrap();
    assert_eq!(staged.rules(), [rule(Some(0)), rule(None)]);
    let numbers: Vec<_> = staged
        .members()
        .map(|(_, upstreams)| upstreams.iter().map(|one| one.group).collect::<Vec<_>>())
        .collect();
    assert_eq!(numbers, [vec![0, 0], vec![], vec![2]]);
    assert_eq!(staged.groups().len(), 3);
    assert_eq!(staged.upstreams().len(), 3);
}

#[test]
fn upstreams_are_the_same_group_by_group() {
    let [one, two] = [1, 2].map(|last| upstream(Family::V4, last));
    let of = |said: &[Said]| staged(&[message(said)]).unwrap();
    let both = of(&[Said::Group(vec![one]), Said::Group(vec![two])]);
    let with_rule = [
        Said::Group(vec![one]),
        Said::Group(vec![two]),
        of_rule(rule(Some(1))),
    ];
    assert!(both.has_upstreams_of(&of(&with_rule)));
    for other in [
        &[Said::Group(vec![one, two])][..],
        &[Said::Group(vec![two]), Said::Group(vec![one])],
        &[Said::Group(vec![one])],
        &[
            Said::Group(vec![one]),
            Said::Group(vec![two]),
            Said::Group(vec![]),
        ],
    ] {
        assert!(!both.has_upstreams_of(&of(other)), "{other:?}");
    }
}

#[test]
fn a_rule_names_a_group_with_an_upstream_of_its_version() {
    let group = |family| Said::Group(vec![upstream(family, 1)]);
    let redirects = of_rule(rule(Some(0)));
    assert_eq!(refused(&[group(Family::V4), redirects.clone()]), None);
    assert_eq!(
        refused(&[group(Family::V6), redirects.clone()]),
        Some(c"the rule's group has no upstream of its IP version")
    );
    assert_eq!(
        refused(&[redirects, group(Family::V4)]),
        Some(c"the rule's group is not staged, at least not yet")
    );
    assert_eq!(refused(&[of_rule(rule(None))]), None);
}

#[test]
fn there_are_no_more_of_anything_than_a_namespace_may_have() {
    let crowd = |count: usize| Said::Group(vec![upstream(Family::V4, 1); count]);
    assert_eq!(refused(&[crowd(MAX_MEMBERS)]), None);
    assert_eq!(
        refused(&[crowd(MAX_MEMBERS + 1)]),
        Some(c"a group has 256 upstreams at most")
    );
    let full = vec![crowd(MAX_MEMBERS); MAX_UPSTREAMS / MAX_MEMBERS];
    assert_eq!(refused(&full), None);
    assert_eq!(
        refused(&[full, vec![crowd(1)]].concat()),
        Some(c"there are 4096 upstreams already")
    );
    assert_eq!(refused(&vec![crowd(0); MAX_GROUPS]), None);
    assert_eq!(
        refused(&vec![crowd(0); MAX_GROUPS + 1]),
        Some(c"there are 256 groups already")
    );
    let rules = vec![of_rule(rule(None)); MAX_RULES];
    assert_eq!(refused(&rules), None);
    assert_eq!(
        refused(&[rules, vec![of_rule(rule(None))]].concat()),
        Some(c"there are 4096 rules already")
    );
}

fn of_set(field: Field, number: u16) -> Said {
    let mut rule = rule(None);
    assert!(rule.conditions.push(Condition {
        field,
        not: false,
        mask: u32::MAX,
        values: Values::Set(number),
    }));
    of_rule(rule)
}

#[test]
fn a_set_comes_in_parts_before_the_rules_that_name_it() {
    let first = Said::Set(0, Some(ValueKind::Numbers), vec![Element::Number([80, 80])]);
    let more = Said::Set(0, None, vec![Element::Number([443, 443])]);
    let second = Said::Set(1, Some(ValueKind::Addresses), vec![]);
    let parts = [
        vec![first.clone()],
        vec![
            more.clone(),
            second.clone(),
            of_set(Field::DestinationPort, 0),
        ],
        vec![of_set(Field::Source, 1)],
    ];
    let mut staged = staged(&parts.map(|part| message(&part))).unwrap();
    assert_eq!(staged.whole_sets().count(), 0);
    let Ok(()) = staged.finish();
    let lengths: Vec<_> = staged.whole_sets().map(|set| set.len()).collect();
    assert_eq!(lengths, [2, 0]);
    let size = Size {
        rules: 2,
        upstreams: 0,
        sets: 2,
        elements: 2,
    };
    assert_eq!((staged.size(), size.plus(size).elements), (size, 4));
    let missing = Some(c"the condition's set is not staged, at least not yet");
    let other = Some(c"the condition's set is not of what its field has");
    let begins = Some(c"a set begins with the number of sets before it");
    let last = Some(c"only the last set is added to; another one needs its kind");
    for (said, why) in [
        (vec![of_set(Field::User, 0)], missing),
        (vec![first.clone(), of_set(Field::User, 1)], missing),
        (vec![first.clone(), of_set(Field::Source, 0)], other),
        (vec![first.clone(), of_set(Field::Program, 0)], other),
        (vec![second.clone()], begins),
        (vec![first.clone(), first.clone()], begins),
        (vec![more.clone()], last),
        (vec![first.clone(), second, more.clone()], last),
        (
            vec![first.clone(), more.clone(), more],
            Some(c"elements are in order, and there is some value between one and the next"),
        ),
        (
            vec![first, Said::Set(0, None, vec![Element::V4([1, 1])])],
            Some(c"the set is not of such elements"),
        ),
    ] {
        assert_eq!(refused(&said), why, "{said:?}");
    }
}

#[test]
fn there_are_no_more_sets_and_elements_than_a_namespace_may_have() {
    let set = |number: usize| Said::Set(number as u32, Some(ValueKind::Numbers), vec![]);
    let mut sets: Vec<_> = (0..MAX_SETS).map(set).collect();
    assert_eq!(refused(&sets), None);
    sets.push(set(MAX_SETS));
    assert_eq!(refused(&sets), Some(c"there are 4096 sets already"));
    if cfg!(miri) {
        return;
    }
    let part = |number: u64| {
        let elements =
            (number * 1024..(number + 1) * 1024).map(|one| Element::Number([2 * one; 2]));
        Said::Set(
            0,
            (number == 0).then_some(ValueKind::Numbers),
            elements.collect(),
        )
    };
    let mut messages: Vec<_> = (0..1024).map(|number| message(&[part(number)])).collect();
    assert_eq!(staged(&messages).unwrap().size().elements, MAX_ELEMENTS);
    let one_more = Said::Set(0, None, vec![Element::Number([u64::MAX; 2])]);
    messages.push(message(&[one_more]));
    assert_eq!(
        staged(&messages).err().map(|refusal| refusal.message),
        Some(c"all sets together have 1048576 elements already")
    );
}

#[test]
fn what_is_no_group_and_no_rule_is_refused() {
    let mut bytes = [0; 16];
    let mut writer = Writer::new(&mut bytes);
    writer.flag(kind::BEGIN).unwrap();
    writer.u32(kind::GENERATION, 1).unwrap();
    let length = writer.written();
    let expected = Refusal {
        offset: 4,
        message: UNKNOWN,
    };
    assert_eq!(staged(&[bytes[..length].to_vec()]).err(), Some(expected));
}

proptest! {
    // Each rule that was taken leads somewhere, whatever else was said.
    #[test]
    fn it_is_sound_whatever_comes(
        said in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<(bool, u8)>(), 0..3).prop_map(|all| {
                    let one = |(six, last): (bool, u8)| {
                        upstream(if six { Family::V6 } else { Family::V4 }, last)
                    };
                    Said::Group(all.into_iter().map(one).collect())
                }),
                prop::option::of(0_u8..4).prop_map(|group| of_rule(rule(group))),
            ],
            0..12,
        ),
        at: prop::sample::Index, change: u8,
    ) {
        let mut bytes = message(&said);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        let Ok(mut staged) = Staged::new();
        let refused = staged.stage(Attributes::new(&bytes)).err();
        if let Some(StageError::Refused(refusal)) = refused {
            prop_assert!(refusal.offset < bytes.len());
        }
        let members: Vec<_> = staged.members().collect();
        for rule in staged.rules().iter().filter(|rule| rule.action == Action::Redirect) {
            let (_, upstreams) = members[usize::from(rule.group)];
            prop_assert!(upstreams.iter().any(|one| one.family == rule.family));
        }
    }
}
