// SPDX-License-Identifier: GPL-2.0

//! Many ranges of numbers, and whether a number is in any of them: by a B+ tree without pointers, of which each node is a line of memory.
//!
//! Sets of networks are searched so: a set says only whether an address is in one of its networks, and for that the longest prefix
//! does not matter. 100,000 networks of IPv4 take 0.9 MB and the search six lines.

use super::allocate::Allocate;
use super::range::{Number, Range};

/// Bytes of a line of memory.
const LINE: usize = 64;

/// The most levels: of nodes of four keys, a million ranges have ten.
const LEVELS: usize = 12;

/// Ranges in order, with some number between one and the next.
pub struct Ranges<K: Number, M: Allocate> {
    ranges: M::Vec<Range<K>>,
    // The first numbers of the nodes of each level, the root's level last. Of the lowest level these are the first numbers of runs
    // of ranges.
    keys: M::Vec<K>,
    // Where in `keys` each level begins, and behind the last.
    levels: [u32; LEVELS],
    count: usize,
}

impl<K: Number, M: Allocate> Ranges<K, M> {
    // Keys of a node, and ranges of a run.
    const WIDTH: usize = LINE / size_of::<K>();

    /// `None` if they are not in order, touch or overlap, or are more than 2^20.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(ranges: M::Vec<Range<K>>) -> Result<Option<Self>, M::Error> {
        let are_apart = ranges
            .iter()
            .zip(ranges.iter().skip(1))
            .all(|(one, next)| one.last.next().is_some_and(|behind| behind < next.first));
        let are_ranges = ranges.iter().all(|range| range.first <= range.last);
        if !are_apart || !are_ranges || ranges.len() > 1 << 20 {
            return Ok(None);
        }
        let mut keys = M::collect(core::iter::empty())?;
        let mut levels = [0; LEVELS];
        let mut count = 0_usize;
        // So many ranges are below a key.
        let mut step = Self::WIDTH;
        for end in levels.iter_mut().skip(1) {
            let firsts = ranges.iter().step_by(step).map(|range| range.first);
            for first in firsts {
                M::push(&mut keys, first)?;
            }
            count = count.wrapping_add(1);
            *end = keys.len() as u32;
            if step >= ranges.len() {
                break;
            }
            step = step.saturating_mul(Self::WIDTH);
        }
        Ok(Some(Self {
            ranges,
            keys,
            levels,
            count,
        }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All of them, in their order.
    pub fn as_slice(&self) -> &[Range<K>] {
        &self.ranges
    }

    /// Whether a number is in any of them.
    #[inline(never)]
    pub fn has(&self, number: K) -> bool {
        // The place of the last key of a level that is not greater. The highest level has one key.
        let mut place = 0_usize;
        for level in (0..self.count).rev() {
            let [Some(&begin), Some(&end)] =
                [level, level.wrapping_add(1)].map(|at| self.levels.get(at))
            else {
                return false;
            };
            let (begin, end) = (begin as usize, end as usize);
            let from = begin.wrapping_add(place.wrapping_mul(Self::WIDTH));
            let to = from.wrapping_add(Self::WIDTH).min(end);
            let node = self.keys.get(from..to).unwrap_or_default();
            let Some(within) = node.partition_point(|&key| key <= number).checked_sub(1) else {
                return false;
            };
            place = place.wrapping_mul(Self::WIDTH).wrapping_add(within);
        }
        let from = place.wrapping_mul(Self::WIDTH);
        let to = from.wrapping_add(Self::WIDTH).min(self.ranges.len());
        let run = self.ranges.get(from..to).unwrap_or_default();
        let behind = run.partition_point(|range| range.first <= number);
        let last = run.get(behind.wrapping_sub(1));
        last.is_some_and(|range| number <= range.last)
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::HostHeap;
    use super::*;
    use proptest::prelude::*;

    type Of<K> = Ranges<K, HostHeap>;

    fn new<K: Number>(ranges: Vec<Range<K>>) -> Option<Of<K>> {
        let Ok(made) = Of::new(ranges);
        made
    }

    #[test]
    fn what_is_out_of_order_or_touches_is_refused() {
        let range = |first, last| Range::<u16> { first, last };
        for bad in [
            vec![range(2, 1)],
            vec![range(1, 2), range(3, 4)],
            vec![range(1, 3), range(3, 4)],
            vec![range(5, 6), range(1, 2)],
            vec![range(0, u16::MAX), range(1, 2)],
        ] {
            assert!(new(bad.clone()).is_none(), "{bad:?}");
        }
        let all = new(vec![range(0, u16::MAX)]).unwrap();
        assert!(all.has(0) && all.has(7) && all.has(u16::MAX));
        let none = new::<u16>(vec![]).unwrap();
        assert!(!none.has(0) && !none.has(u16::MAX));
    }

    // Ranges with gaps, as they come from distances.
    fn ranges<K: Number>(
        distances: &[(u8, u8)],
        start: u32,
        to: impl Fn(u32) -> K,
    ) -> Vec<Range<K>> {
        let mut at = start;
        let mut all = Vec::new();
        for (gap, length) in distances {
            let first = at + u32::from(*gap) + 1;
            let last = first + u32::from(*length);
            all.push(Range {
                first: to(first),
                last: to(last),
            });
            at = last + 1;
        }
        all
    }

    fn agrees<K: Number>(ranges: Vec<Range<K>>, to: impl Fn(u32) -> K, until: u32) {
        let set = new(ranges.clone()).unwrap();
        assert_eq!(set.as_slice(), ranges);
        for number in 0..until {
            let number = to(number);
            let expected = ranges
                .iter()
                .any(|range| (range.first..=range.last).contains(&number));
            assert_eq!(set.has(number), expected, "{number:?}");
        }
        assert_eq!(
            set.has(K::MAX),
            ranges.last().is_some_and(|range| range.last == K::MAX)
        );
    }

    proptest! {
        #[test]
        fn a_number_is_in_them_if_it_is_in_one(
            distances in prop::collection::vec((0_u8..3, 0_u8..3), 0..if cfg!(miri) { 20 } else { 700 }),
            start in 0_u32..3,
        ) {
            let until = 6 * distances.len() as u32 + 9;
            agrees(ranges(&distances, start, |number| number), |number| number, until);
            // High bits differ, too.
            let wide = |number: u32| u128::from(number) << 100 | 7;
            let mut all = ranges(&distances, start, wide);
            all.dedup_by(|next, one| one.last.next() >= Some(next.first));
            agrees(all, wide, until);
            let ports = |number: u32| number as u16;
            agrees(ranges(&distances, start, ports), ports, until);
        }
    }

    #[test]
    fn a_million_fit() {
        let count = if cfg!(miri) { 1 << 8 } else { 1 << 20 };
        let all: Vec<_> = (0..count)
            .map(|number| Range::one(u128::from(number as u32) * 2))
            .collect();
        let set = new(all).unwrap();
        assert!(set.count < LEVELS);
        for number in [0, 1, 2, 77, 2 * count - 3, 2 * count - 2, 2 * count - 1] {
            assert_eq!(set.has(number as u128), number % 2 == 0, "{number}");
        }
        let keys = set.keys.len() * 16 + set.len() * 32;
        assert!(keys as i32 <= 38 * count, "{keys}");
        let mut more: Vec<_> = set.as_slice().to_vec();
        more.extend(
            (1..=(1 << 20))
                .map(|number| Range::one(u128::MAX - number * 2))
                .rev(),
        );
        assert!(new(more).is_none());
    }
}
