// SPDX-License-Identifier: GPL-2.0

//! Sets of addresses, numbers or names: as they are staged, part by part, and as packets' fields are looked up in them.

use super::abi::proxy::set::Element;
use super::abi::proxy::{self, ValueKind};
use super::allocate::Allocate;
use super::range::{Number, Range};
use super::ranges::Ranges;

/// What numbers of addresses, and other numbers and names as numbers, are in a set by.
pub trait Key: Number {
    /// Those of a set.
    fn of<M: Allocate>(set: &Set<M>) -> &Ranges<Self, M>;
}

impl Key for u32 {
    fn of<M: Allocate>(set: &Set<M>) -> &Ranges<Self, M> {
        &set.narrow
    }
}

impl Key for u128 {
    fn of<M: Allocate>(set: &Set<M>) -> &Ranges<Self, M> {
        &set.wide
    }
}

/// A set that is whole.
pub struct Set<M: Allocate> {
    // Addresses of IPv4.
    narrow: Ranges<u32, M>,
    // Addresses of IPv6, or numbers, or names as numbers whose first byte is the name's first letter.
    wide: Ranges<u128, M>,
}

impl<M: Allocate> Set<M> {
    /// Whether a number is in it: of an address, by its version; else a number of the set's kind.
    #[inline(always)]
    pub fn has<K: Key>(&self, number: K) -> bool {
        K::of(self).has(number)
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.narrow.len().wrapping_add(self.wide.len())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at a place, of a set of this kind.
    pub fn element(&self, kind: ValueKind, place: usize) -> Option<Element> {
        if let Some(range) = self.narrow.get(place) {
            return Some(Element::V4([range.first, range.last]));
        }
        let place = place.wrapping_sub(self.narrow.len());
        let range = self.wide.get(place)?;
        Some(match kind {
            ValueKind::Addresses => Element::V6([range.first, range.last]),
            ValueKind::Numbers => Element::Number([range.first as u64, range.last as u64]),
            ValueKind::Names => Element::Name(range.first.to_be_bytes()),
        })
    }
}

/// Why an element was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded<E> {
    /// It is of another kind than the set.
    Kind,
    /// The set is whole, and takes none any more.
    Whole,
    /// It is not behind the one before, or touches it, or ends before it begins.
    Order,
    /// There is no memory.
    Memory(E),
}

/// A set that is staged.
pub struct Staged<M: Allocate> {
    /// Its label and kind.
    pub set: proxy::Set,
    elements: Elements<M>,
}

enum Elements<M: Allocate> {
    Growing {
        narrow: M::Vec<Range<u32>>,
        wide: M::Vec<Range<u128>>,
    },
    Whole(M::Shared<Set<M>>),
}

// Adds a range behind the others.
fn add<K: Number, M: Allocate>(
    ranges: &mut M::Vec<Range<K>>,
    [first, last]: [K; 2],
) -> Result<(), NotAdded<M::Error>> {
    let before = ranges.last().map(|range| range.last);
    let is_behind = before.is_none_or(|last| last.next().is_some_and(|next| next < first));
    if !is_behind || last < first {
        return Err(NotAdded::Order);
    }
    M::push(ranges, Range { first, last }).map_err(NotAdded::Memory)
}

impl<M: Allocate> Staged<M> {
    /// Without anything in it.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(set: proxy::Set) -> Result<Self, M::Error> {
        Ok(Self {
            set,
            elements: Elements::Growing {
                narrow: M::collect(core::iter::empty())?,
                wide: M::collect(core::iter::empty())?,
            },
        })
    }

    /// Adds an element.
    ///
    /// # Errors
    /// See [`NotAdded`].
    pub fn add(&mut self, element: Element) -> Result<(), NotAdded<M::Error>> {
        let Elements::Growing { narrow, wide } = &mut self.elements else {
            return Err(NotAdded::Whole);
        };
        match (self.set.kind, element) {
            (ValueKind::Addresses, Element::V4(range)) => add::<_, M>(narrow, range),
            (ValueKind::Addresses, Element::V6(range)) => add::<_, M>(wide, range),
            (ValueKind::Numbers, Element::Number(range)) => {
                add::<_, M>(wide, range.map(u128::from))
            }
            (ValueKind::Names, Element::Name(name)) => {
                // Names one after the other, such as `a` and `a` with a byte of one behind it, are never neighbours as numbers, but
                // for those of 16 bytes, which there are not.
                add::<_, M>(wide, [u128::from_be_bytes(name); 2])
            }
            _ => Err(NotAdded::Kind),
        }
    }

    /// Makes it whole, so that it can be shared; if it is, that is all.
    ///
    /// # Errors
    /// If there is no memory. It is as it was then.
    pub fn finish(&mut self) -> Result<(), M::Error> {
        let Elements::Growing { narrow, wide } = &mut self.elements else {
            return Ok(());
        };
        // They are in order, by `add`.
        if let (Some(narrow), Some(wide)) = (Ranges::new(narrow)?, Ranges::new(wide)?) {
            self.elements = Elements::Whole(M::share(Set { narrow, wide })?);
        }
        Ok(())
    }

    /// The set, if it is whole.
    pub fn whole(&self) -> Option<&M::Shared<Set<M>>> {
        match &self.elements {
            Elements::Whole(set) => Some(set),
            Elements::Growing { .. } => None,
        }
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Whole(set) => set.len(),
            Elements::Growing { narrow, wide } => narrow.len().wrapping_add(wide.len()),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::proxy::Label;
    use super::super::host::HostHeap;
    use super::*;

    fn staged(kind: ValueKind) -> Staged<HostHeap> {
        let label = Label::NONE;
        let Ok(staged) = Staged::new(proxy::Set { label, kind });
        staged
    }

    fn name(text: &str) -> Element {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Element::Name(bytes)
    }

    #[test]
    fn elements_come_in_order_and_of_the_kind() {
        let mut set = staged(ValueKind::Addresses);
        let elements = [
            Element::V4([1, 2]),
            Element::V6([5, 5]),
            Element::V4([4, u32::MAX]),
            Element::V6([7, 1 << 100]),
        ];
        for element in elements {
            assert_eq!(set.add(element), Ok(()));
        }
        for (element, why) in [
            (Element::V4([u32::MAX, u32::MAX]), NotAdded::Order),
            (Element::V6([(1 << 100) + 1, 1 << 101]), NotAdded::Order),
            (Element::V6([1 << 102, 1 << 101]), NotAdded::Order),
            (Element::Number([1, 1]), NotAdded::Kind),
            (name("a"), NotAdded::Kind),
        ] {
            assert_eq!(set.add(element), Err(why), "{element:?}");
        }
        assert!(set.whole().is_none());
        let Ok(()) = set.finish();
        assert_eq!(set.add(Element::V4([3, 3])), Err(NotAdded::Whole));
        let whole = set.whole().unwrap();
        assert!(whole.has(1_u32) && !whole.has(3_u32) && whole.has(u32::MAX));
        assert!(whole.has(5_u128) && !whole.has(6_u128) && !whole.has(1_u128));
        let told: Vec<_> = (0..5)
            .map_while(|place| whole.element(ValueKind::Addresses, place))
            .collect();
        assert_eq!(told, [elements[0], elements[2], elements[1], elements[3]]);
        assert_eq!((set.len(), whole.len()), (4, 4));
    }

    #[test]
    fn numbers_and_names_are_found() {
        let mut set = staged(ValueKind::Numbers);
        assert_eq!(set.add(Element::Number([1000, 1009])), Ok(()));
        assert_eq!(set.add(Element::Number([u64::MAX, u64::MAX])), Ok(()));
        let Ok(()) = set.finish();
        let whole = set.whole().unwrap();
        assert!(whole.has(1009_u128) && !whole.has(1010_u128));
        assert!(whole.has(u128::from(u64::MAX)));
        assert_eq!(
            whole.element(ValueKind::Numbers, 0),
            Some(Element::Number([1000, 1009]))
        );
        let mut set = staged(ValueKind::Names);
        for text in ["", "a", "a\u{1}", "ab", "b"] {
            assert_eq!(set.add(name(text)), Ok(()), "{text:?}");
        }
        assert_eq!(set.add(name("ab")), Err(NotAdded::Order));
        let Ok(()) = set.finish();
        assert_eq!(
            set.whole().unwrap().element(ValueKind::Names, 3),
            Some(name("ab"))
        );
    }
}
