// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules that can never match, since those before them match all that they are for.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use mprox_client::Set;
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{
    Condition, Field, Protocol, Rule, Values, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING, NAME_SIZE,
};

use crate::networks::Network;
use crate::values;

/// What a rule says of a field, from the first value to the last.
type Span = (u128, u128);

/// Source, destination, destination's port, protocol, hook.
const SPANS: usize = 5;

fn source(rule: &Rule) -> Network {
    Network {
        family: rule.family,
        address: rule.source,
        prefix: rule.source_prefix,
    }
}

fn destination(rule: &Rule) -> Network {
    Network {
        family: rule.family,
        address: rule.destination,
        prefix: rule.destination_prefix,
    }
}

fn spans(rule: &Rule) -> [Span; SPANS] {
    let of = |network: Network| {
        let first = u128::from_be_bytes(network.address);
        let behind = u128::MAX.checked_shr(network.prefix.into());
        (first, first | behind.unwrap_or(0))
    };
    let protocol = match rule.protocol {
        None => (0, 1),
        Some(Protocol::Tcp) => (0, 0),
        Some(Protocol::Udp) => (1, 1),
    };
    let has = |hook| rule.hooks & hook != 0;
    let hooks = (
        u128::from(!has(HOOK_PRE_ROUTING)),
        u128::from(has(HOOK_LOCAL_OUT)),
    );
    [
        of(source(rule)),
        of(destination(rule)),
        (rule.port_first.into(), rule.port_last.into()),
        protocol,
        hooks,
    ]
}

/// An element as numbers, in the order that sets have: its sort, and what is in it.
fn key(element: &Element) -> (u8, Span) {
    match *element {
        Element::V4([first, last]) => (4, (first.into(), last.into())),
        Element::V6([first, last]) => (6, (first, last)),
        Element::Number([first, last]) => (7, (first.into(), last.into())),
        Element::Name(name) => {
            let number = u128::from_be_bytes(name);
            (8, (number, number))
        }
    }
}

/// Whether all of `one` is in a set of these.
fn has(elements: &[Element], one: &Element) -> bool {
    let (sort, (first, last)) = key(one);
    let behind = elements.partition_point(|other| {
        let (of, (begin, _)) = key(other);
        (of, begin) <= (sort, first)
    });
    let before = behind.checked_sub(1).and_then(|place| elements.get(place));
    before.is_some_and(|other| {
        let (of, (_, end)) = key(other);
        of == sort && last <= end
    })
}

/// For each set, the number of one that has the same in it: the same for all of these.
fn alike(sets: &[Set]) -> Vec<usize> {
    let compare = |one: usize, other: usize| match (sets.get(one), sets.get(other)) {
        (Some(one), Some(other)) => {
            let keys = one.elements.iter().map(key);
            keys.cmp(other.elements.iter().map(key))
        }
        _ => Ordering::Equal,
    };
    let mut order: Vec<_> = (0..sets.len()).collect();
    order.sort_by(|&one, &other| compare(one, other));
    let mut alike: Vec<_> = (0..sets.len()).collect();
    for same in order.chunk_by(|&one, &other| compare(one, other) == Ordering::Equal) {
        for &set in same {
            alike[set] = same[0];
        }
    }
    alike
}

/// All rules, as they are looked through.
struct Rules<'a> {
    all: Vec<(&'a Rule, [Span; SPANS], usize)>,
    sets: &'a [Set],
    alike: Vec<usize>,
}

impl Rules<'_> {
    fn elements(&self, set: u16) -> &[Element] {
        let set = self.sets.get(usize::from(set));
        set.map_or(&[], |set| &set.elements)
    }

    // Whether all of `few` are among `many`.
    fn within(&self, few: Values, many: Values) -> bool {
        let number = |first, last| Element::Number([first, last]);
        match (few, many) {
            (Values::Set(few), Values::Set(many)) => {
                let same = |set: u16| self.alike.get(usize::from(set));
                same(few) == same(many)
            }
            (Values::Range { first, last }, Values::Set(many)) => {
                has(self.elements(many), &number(first, last))
            }
            (Values::Name(name), Values::Set(many)) => {
                has(self.elements(many), &Element::Name(name))
            }
            (
                Values::Range { first, last },
                Values::Range {
                    first: begin,
                    last: end,
                },
            ) => begin <= first && last <= end,
            (Values::Set(few), Values::Range { first, last }) => {
                // They are in order.
                let elements = self.elements(few);
                let mut ends = elements.first().into_iter().chain(elements.last());
                ends.all(|one| has(&[number(first, last)], one))
            }
            (Values::Name(few), Values::Name(many)) => few == many,
            _ => false,
        }
    }

    // Whether every connection that `rule` matches meets a condition.
    fn meets(&self, rule: &Rule, asked: Condition) -> bool {
        let by_condition = rule.conditions.iter().any(|other| {
            (other.field, other.not, other.mask) == (asked.field, asked.not, asked.mask)
                && match asked.not {
                    false => self.within(other.values, asked.values),
                    true => self.within(asked.values, other.values),
                }
        });
        // Or by what it says without one.
        let by_itself = || {
            let of = |network| values::elements(&[network]).first().copied();
            match asked.field {
                Field::Source => of(source(rule)),
                Field::Destination => of(destination(rule)),
                Field::DestinationPort => Some(Element::Number([
                    rule.port_first.into(),
                    rule.port_last.into(),
                ])),
                Field::Interface if rule.interface != [0; NAME_SIZE] => {
                    Some(Element::Name(rule.interface))
                }
                _ => None,
            }
        };
        let is_among = |one: Element| match asked.values {
            Values::Set(set) => has(self.elements(set), &one),
            Values::Range { first, last } => has(&[Element::Number([first, last])], &one),
            Values::Name(name) => has(&[Element::Name(name)], &one),
        };
        by_condition || !asked.not && by_itself().is_some_and(is_among)
    }

    // Whether `first` asks for nothing, beside the spans, that `second` does not ask for.
    fn asks_no_more(&self, first: &Rule, second: &Rule) -> bool {
        (first.interface == [0; NAME_SIZE] || first.interface == second.interface)
            && first.conditions.iter().all(|one| self.meets(second, one))
    }

    // Of which rules of the file's those are that together match all that one of the kernel's does: a single one, or some that differ
    // from it in one field alone. Those that only cover it in several fields at once, as tiles do, are not found.
    fn covers(&self, place: usize) -> Option<Vec<usize>> {
        let (rule, wanted, number) = self.all.get(place)?;
        let mut partly: [Vec<(Span, usize)>; SPANS] = Default::default();
        let before = self.all.iter().take_while(|(_, _, of)| of < number);
        for (other, said, of) in before.filter(|(other, ..)| other.family == rule.family) {
            let mut missed = None;
            let mut is_candidate = true;
            for (field, (said, wanted)) in said.iter().zip(wanted).enumerate() {
                if said.0 > wanted.0 || said.1 < wanted.1 {
                    let overlaps = said.0 <= wanted.1 && wanted.0 <= said.1;
                    if missed.is_some() || !overlaps {
                        is_candidate = false;
                        break;
                    }
                    missed = Some((field, *said));
                }
            }
            if !is_candidate || !self.asks_no_more(other, rule) {
                continue;
            }
            match missed {
                None => return Some(vec![*of]),
                Some((field, said)) => partly[field].push((said, *of)),
            }
        }
        let mut fields = partly.into_iter().zip(wanted);
        fields.find_map(|(partly, wanted)| together(partly, *wanted))
    }
}

/// Whose spans, one after the other, leave nothing of `wanted`.
fn together(mut spans: Vec<(Span, usize)>, wanted: Span) -> Option<Vec<usize>> {
    spans.sort_unstable();
    let mut whose = Vec::new();
    let mut next = wanted.0;
    let mut rest = spans.into_iter().peekable();
    loop {
        // Of those that begin in time, the one that reaches farthest.
        let mut best: Option<(u128, usize)> = None;
        while let Some(((_, end), of)) = rest.next_if(|((begin, _), _)| *begin <= next) {
            if best.is_none_or(|(farthest, _)| farthest < end) {
                best = Some((end, of));
            }
        }
        let (end, of) = best.filter(|(end, _)| *end >= next)?;
        whose.push(of);
        if end >= wanted.1 {
            return Some(whose);
        }
        next = end.checked_add(1)?;
    }
}

/// The first rule of the file's that can never match, and those before it that match all that it is for. `of` says for each rule of
/// which of the file's it is.
pub(crate) fn shadowed(
    rules: &[Rule],
    sets: &[Set],
    of: &[usize],
) -> Option<(usize, BTreeSet<usize>)> {
    let all = rules.iter().zip(of);
    let rules = Rules {
        all: all.map(|(rule, of)| (rule, spans(rule), *of)).collect(),
        sets,
        alike: alike(sets),
    };
    let mut places = 0..rules.all.len();
    for parts in of.chunk_by(|one, next| one == next) {
        let mut by = BTreeSet::new();
        // Each of its parts is taken from the places, also behind one that is not covered.
        let mut is_covered = true;
        for place in places.by_ref().take(parts.len()) {
            match is_covered.then(|| rules.covers(place)).flatten() {
                Some(whose) => by.extend(whose),
                None => is_covered = false,
            }
        }
        if is_covered {
            return Some((*parts.first()?, by));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use mutex_abi::proxy::Family;
    use proptest::prelude::*;

    use super::*;

    /// Rules over few values, so that they meet: the destination's first two bits, ports to 3, both protocols and hooks.
    fn rule() -> impl Strategy<Value = Rule> {
        let protocol = prop::option::of(prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]);
        (0_u8..4, 0_u8..=2, 0_u16..4, 0_u16..4, protocol, 1_u8..4).prop_map(
            |(address, prefix, port_first, length, protocol, hooks)| {
                let mut destination = [0; 16];
                destination[0] = ((u16::from(address) << 6) & (0xff00 >> prefix)) as u8;
                Rule {
                    destination,
                    destination_prefix: prefix,
                    port_first,
                    port_last: (port_first + length).min(3),
                    protocol,
                    hooks,
                    ..Rule::any(Family::V4)
                }
            },
        )
    }

    fn matches(rule: &Rule, (address, port, udp, hook): (u8, u16, bool, u8)) -> bool {
        let mut host = [0; 16];
        host[0] = address << 6;
        let host = Network {
            family: Family::V4,
            address: host,
            prefix: 32,
        };
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        destination(rule).has(&host)
            && (rule.port_first..=rule.port_last).contains(&port)
            && rule.protocol.is_none_or(|only| only == protocol)
            && rule.hooks & hook != 0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_told_never_matches(rules in prop::collection::vec(rule(), 1..12)) {
            let of: Vec<_> = (0..rules.len()).collect();
            if let Some((number, by)) = shadowed(&rules, &[], &of) {
                let all = (0..4_u8).flat_map(|address| (0..4_u16).flat_map(move |port| {
                    [false, true].into_iter().flat_map(move |udp| [1, 2].map(|hook| (address, port, udp, hook)))
                }));
                for connection in all.filter(|one| matches(&rules[number], *one)) {
                    prop_assert!(by.iter().any(|other| matches(&rules[*other], connection)), "{connection:?}");
                }
                prop_assert!(by.iter().all(|other| *other < number));
            }
        }

        #[test]
        fn spans_leave_nothing_just_if_each_value_is_in_one(
            spans in prop::collection::vec((0_u128..8, 0_u128..4), 0..6), first in 0_u128..8, length in 0_u128..8,
        ) {
            let wanted = (first, first + length);
            let spans: Vec<_> = spans.into_iter().map(|(first, length)| (first, first + length)).collect();
            let expected = (wanted.0..=wanted.1).all(|value| spans.iter().any(|span| (span.0..=span.1).contains(&value)));
            let found = together(spans.iter().copied().zip(0..).collect(), wanted);
            prop_assert_eq!(found.is_some(), expected);
            if let Some(found) = found {
                let is_in = |value| found.iter().any(|place| (spans[*place].0..=spans[*place].1).contains(&value));
                prop_assert!((wanted.0..=wanted.1).all(is_in));
            }
        }
    }
}
