// SPDX-License-Identifier: GPL-2.0

//! What rules ask of a connection beyond the fields that are indexed: asked only of rules that match by those.

use core::ops::Deref;

use super::super::abi::proxy::{self, Field, Values};
use super::super::allocate::Allocate;
use super::super::range::Range;
use super::super::set::Set;
use super::super::tuple::{Address, Tuple};
use super::Name;

/// What is known of a connection's first packet beside its tuple; asked only if a rule wants to know.
pub trait Facts {
    /// Name of the interface through which it comes in or, of the machine's own, would go out.
    fn interface(&self) -> Name;

    /// Whether `is` holds for the field's number or, if it has several, for any of them; `None` if it is not known. Fields
    /// that the tuple or [`Self::interface`] tell are not asked.
    fn any(&self, field: Field, is: impl FnMut(u128) -> bool) -> Option<bool>;
}

/// Only the interface is known.
impl<F: Fn() -> Name> Facts for F {
    fn interface(&self) -> Name {
        self()
    }

    fn any(&self, _: Field, _: impl FnMut(u128) -> bool) -> Option<bool> {
        None
    }
}

/// Values of a field.
#[derive(Debug)]
enum Matched {
    Range(Range<u128>),
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
                Values::Range { first, last } => Matched::Range(Range {
                    first: first.into(),
                    last: last.into(),
                }),
                Values::Name(name) => Matched::Range(Range::one(u128::from_be_bytes(name))),
                Values::Set(number) => Matched::Set(sets.wrapping_add(number.into())),
            },
        }
    }

    /// Whether it holds.
    pub(super) fn holds<A, M, S>(&self, tuple: &Tuple<A>, facts: &impl Facts, sets: &[S]) -> bool
    where
        A: Address,
        M: Allocate,
        S: Deref<Target = Set<M>>,
    {
        let set = |place: usize| sets.get(place);
        let has = |number: u128| match &self.values {
            Matched::Range(range) => range.has(number),
            Matched::Set(place) => set(*place).is_some_and(|set| set.has(number)),
        };
        // Only sets have addresses.
        let has_address = |address: A| match self.values {
            Matched::Range(_) => false,
            Matched::Set(place) => set(place).is_some_and(|set| set.has(address.number())),
        };
        let mask = u128::from(self.mask);
        let found = match self.field {
            Field::Source => Some(has_address(tuple.source())),
            Field::Destination => Some(has_address(tuple.destination())),
            Field::SourcePort => Some(has(u16::from_be(tuple.ports.source()).into())),
            Field::DestinationPort => Some(has(u16::from_be(tuple.ports.destination()).into())),
            Field::Interface => Some(has(u128::from_be_bytes(facts.interface()))),
            Field::Mark => facts.any(self.field, |mark| has(mark & mask)),
            _ => facts.any(self.field, has),
        };
        found == Some(!self.not)
    }
}
