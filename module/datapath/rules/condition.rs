// SPDX-License-Identifier: GPL-2.0

//! What rules ask of a connection beyond the fields that are indexed: asked only of rules that match by those.

use core::ops::Deref;

use super::super::abi::proxy::{self, Field, Values};
use super::super::allocate::Allocate;
use super::super::range::Range;
use super::super::set::{Key, Set};
use super::super::tuple::{Address, Tuple};
use super::Name;

/// What is known of a connection's first packet beside its tuple; asked only if a rule wants to know.
pub trait Facts {
    /// Name of the interface through which it comes in or, of the machine's own, would go out.
    fn interface(&self) -> Name;

    /// Name of the process that sends it, if it is known.
    fn program(&self) -> Option<Name>;

    /// Whether `is` holds for the field's number or, if it has several, for any of them; `None` if it is not known. Only asked of
    /// fields that neither the tuple nor the other functions tell.
    fn any(&self, field: Field, is: impl FnMut(u64) -> bool) -> Option<bool>;
}

/// Only the interface is known.
impl<F: Fn() -> Name> Facts for F {
    fn interface(&self) -> Name {
        self()
    }

    fn program(&self) -> Option<Name> {
        None
    }

    fn any(&self, _: Field, _: impl FnMut(u64) -> bool) -> Option<bool> {
        None
    }
}

/// Values of a field.
#[derive(Debug)]
enum Matched {
    Range(Range<u64>),
    Name(Name),
    // By its place among the sets of all contexts.
    Set(usize),
}

/// A rule's condition.
#[derive(Debug)]
pub(super) struct Condition {
    field: Field,
    not: bool,
    mask: u32,
    values: Matched,
}

impl Condition {
    /// Of a context whose sets begin at the place `sets`.
    pub(super) fn new(condition: &proxy::Condition, sets: usize) -> Self {
        Self {
            field: condition.field,
            not: condition.not,
            mask: condition.mask,
            values: match condition.values {
                Values::Range { first, last } => Matched::Range(Range { first, last }),
                Values::Name(name) => Matched::Name(name),
                Values::Set(number) => Matched::Set(sets.wrapping_add(number.into())),
            },
        }
    }

    /// Whether it holds.
    #[inline(always)]
    pub(super) fn holds<A, M, S>(&self, tuple: &Tuple<A>, facts: &impl Facts, sets: &[S]) -> bool
    where
        A: Address,
        M: Allocate,
        S: Deref<Target = Set<M>>,
    {
        let found = match (self.field, &self.values) {
            (Field::User | Field::ControlGroup, Matched::Range(range)) => {
                facts.any(self.field, |number| range.has(number))
            }
            _ => self.found(tuple, facts, sets),
        };
        found == Some(!self.not)
    }

    // Whether the field is of the values, if that is known. On its own, so that what is asked of users and control groups need not
    // get the rest ready.
    #[cold]
    #[inline(never)]
    fn found<A, M, S>(&self, tuple: &Tuple<A>, facts: &impl Facts, sets: &[S]) -> Option<bool>
    where
        A: Address,
        M: Allocate,
        S: Deref<Target = Set<M>>,
    {
        let has = |number: u64| match self.values {
            Matched::Range(range) => range.has(number),
            Matched::Set(place) => Self::in_set(sets, place, u128::from(number)),
            Matched::Name(_) => false,
        };
        let has_name = |name: Name| match self.values {
            Matched::Name(one) => one == name,
            Matched::Set(place) => Self::in_set(sets, place, u128::from_be_bytes(name)),
            Matched::Range(_) => false,
        };
        // Only sets have addresses.
        let has_address = |address: A| match self.values {
            Matched::Set(place) => Self::in_set(sets, place, address.number()),
            Matched::Range(_) | Matched::Name(_) => false,
        };
        match self.field {
            Field::Source => Some(has_address(tuple.source())),
            Field::Destination => Some(has_address(tuple.destination())),
            Field::SourcePort => Some(has(u16::from_be(tuple.ports.source()).into())),
            Field::DestinationPort => Some(has(u16::from_be(tuple.ports.destination()).into())),
            Field::Interface => Some(has_name(facts.interface())),
            Field::Program => facts.program().map(has_name),
            Field::Mark => facts.any(Field::Mark, |mark| has(mark & u64::from(self.mask))),
            field => facts.any(field, has),
        }
    }

    #[inline(always)]
    fn in_set<K: Key, M: Allocate, S: Deref<Target = Set<M>>>(
        sets: &[S],
        place: usize,
        number: K,
    ) -> bool {
        sets.get(place).is_some_and(|set| set.has(number))
    }
}
