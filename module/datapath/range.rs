// SPDX-License-Identifier: GPL-2.0

//! Ranges of numbers.

use core::fmt::Debug;

use super::sort::sort_by_key;

/// A number of a fixed size.
pub trait Number: Copy + Ord + Debug + Send + Sync + 'static {
    /// The least.
    const MIN: Self;
    /// The greatest.
    const MAX: Self;

    /// The one after it.
    fn next(self) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Number for $number {
            const MIN: Self = 0;
            const MAX: Self = <$number>::MAX;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
        })*
    };
}

numbers!(u16, u32, u64, u128);

/// Numbers one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<K> {
    /// The first one.
    pub first: K,
    /// The last one, which is not before the first.
    pub last: K,
}

impl<K: Number> Range<K> {
    /// All numbers.
    pub const ALL: Self = Self {
        first: K::MIN,
        last: K::MAX,
    };

    /// One number.
    pub const fn one(number: K) -> Self {
        Self {
            first: number,
            last: number,
        }
    }

    /// Whether a number is in it.
    pub fn has(&self, number: K) -> bool {
        self.first <= number && number <= self.last
    }

    // Whether `next`, which does not begin before this one, begins in it or right behind it.
    fn reaches(&self, next: &Self) -> bool {
        self.last.next().is_none_or(|behind| next.first <= behind)
    }
}

/// What is in any of `ranges`, which it sorts: in order, with some number between one and the next.
pub fn union<K: Number>(ranges: &mut [Range<K>]) -> impl Iterator<Item = Range<K>> + '_ {
    sort_by_key(ranges, |range| range.first);
    let mut rest = ranges.iter().copied().peekable();
    core::iter::from_fn(move || {
        let mut whole = rest.next()?;
        while let Some(next) = rest.next_if(|next| whole.reaches(next)) {
            whole.last = whole.last.max(next.last);
        }
        Some(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_union_has_what_any_has_and_is_as_short_as_can_be(
            ranges in prop::collection::vec(any::<[u8; 2]>(), 0..12), high: bool,
        ) {
            // At either end of all numbers.
            let at = |number: u8| if high { u16::MAX - 255 + u16::from(number) } else { number.into() };
            let mut ranges: Vec<_> = ranges
                .into_iter()
                .map(|[a, b]| Range { first: at(a.min(b)), last: at(a.max(b)) })
                .collect();
            let has = |ranges: &[Range<u16>], number| {
                ranges.iter().any(|range| (range.first..=range.last).contains(&number))
            };
            let before = ranges.clone();
            let union: Vec<_> = union(&mut ranges).collect();
            for number in (0..=300).chain(u16::MAX - 300..=u16::MAX) {
                prop_assert_eq!(has(&union, number), has(&before, number), "{}", number);
            }
            for pair in union.windows(2) {
                prop_assert!(pair[0].last + 1 < pair[1].first);
            }
        }
    }
}
