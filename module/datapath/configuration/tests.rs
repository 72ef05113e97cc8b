// SPDX-License-Identifier: GPL-2.0

use super::super::abi::netlink::attribute::{NoRoom, Writer};
use super::super::abi::netlink::configuration::{write_group, write_rule};
use super::super::abi::proxy::{Label, Selection};
use super::super::host::HostHeap;
use super::*;
use proptest::prelude::*;

type Staged = Configuration<HostHeap>;

fn upstream(family: Family, last: u8) -> Upstream {
    let mut address = [0; 16];
    address[0] = 10;
    address[3] = last;
    Upstream {
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
    Rule(Rule),
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
        vec![Said::Group(vec![four, six]), Said::Rule(rule(Some(0)))],
        vec![Said::Group(vec![])],
        vec![Said::Rule(rule(None)), Said::Group(vec![four])],
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
        Said::Rule(rule(Some(1))),
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
    let redirects = Said::Rule(rule(Some(0)));
    assert_eq!(refused(&[group(Family::V4), redirects.clone()]), None);
    assert_eq!(
        refused(&[group(Family::V6), redirects.clone()]),
        Some(c"the rule's group has no upstream of its IP version")
    );
    assert_eq!(
        refused(&[redirects, group(Family::V4)]),
        Some(c"the rule's group is not staged, at least not yet")
    );
    assert_eq!(refused(&[Said::Rule(rule(None))]), None);
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
    let rules = vec![Said::Rule(rule(None)); MAX_RULES];
    assert_eq!(refused(&rules), None);
    assert_eq!(
        refused(&[rules, vec![Said::Rule(rule(None))]].concat()),
        Some(c"there are 4096 rules already")
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
                prop::option::of(0_u8..4).prop_map(|group| Said::Rule(rule(group))),
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
