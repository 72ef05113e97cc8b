// SPDX-License-Identifier: GPL-2.0

//! Many ranges of numbers, and whether a number is in any of them: by a B+ tree without pointers, whose nodes have 16 keys.
//!
//! Sets of networks are searched so: a set says only whether an address is in one of its networks, and for that the longest prefix
//! does not matter. 100,000 networks of IPv4 take 0.9 MB, and a search six lines of memory.

use super::allocate::Allocate;
use super::range::{Number, Range};

/// Keys of a node, and ranges of a run.
const WIDTH: usize = 16;
/// The steps of a search in one of these.
const STEPS: [usize; 4] = [8, 4, 2, 1];
/// The most ranges.
const MOST: usize = 1 << 20;
/// The most levels of nodes above the runs of so many ranges.
const LEVELS: usize = 5;

/// Ranges in order, with some number between one and the next.
pub struct Ranges<K: Number, M: Allocate> {
    // The last run is filled up with its last range.
    runs: M::Vec<[Range<K>; WIDTH]>,
    // The first numbers of the nodes, or of the runs, below; each level's last node is filled up with its last key. The level above the
    // runs is first, and the root last.
    nodes: M::Vec<[K; WIDTH]>,
    levels: [Level; LEVELS],
    height: usize,
    length: usize,
}

/// Where in the nodes a level begins, and how many nodes or runs are below it.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    begin: usize,
    below: usize,
}

// The last key that is not greater, if the first one is not.
#[inline(always)]
fn place<T, K: Number>(all: &[T; WIDTH], key: impl Fn(&T) -> K, number: K) -> usize {
    let mut at = 0;
    for step in STEPS {
        // Of an array of 16, whatever the steps have come to.
        let next = (at | step) % WIDTH;
        if all.get(next).is_some_and(|one| key(one) <= number) {
            at = next;
        }
    }
    at
}

// The first of so many, of which there is at least one, and behind them the last one again.
fn filled<K: Number>(few: &[Range<K>]) -> [Range<K>; WIDTH] {
    let last = few.last().copied().unwrap_or(Range::ALL);
    let mut all = [last; WIDTH];
    for (to, from) in all.iter_mut().zip(few) {
        *to = *from;
    }
    all
}

impl<K: Number, M: Allocate> Ranges<K, M> {
    /// `None` if they are not in order, touch or overlap, or are more than 2^20.
    ///
    /// # Errors
    /// If there is no memory.
    // Runs and nodes lie on its stack: not on its caller's, too.
    #[inline(never)]
    pub fn new(ranges: &[Range<K>]) -> Result<Option<Self>, M::Error> {
        let are_apart = ranges
            .iter()
            .zip(ranges.iter().skip(1))
            .all(|(one, next)| one.last.next().is_some_and(|behind| behind < next.first));
        let are_ranges = ranges.iter().all(|range| range.first <= range.last);
        if !are_apart || !are_ranges || ranges.len() > MOST {
            return Ok(None);
        }
        let runs = M::collect(ranges.chunks(WIDTH).map(filled))?;
        let mut nodes = M::collect(core::iter::empty())?;
        let mut levels = [Level::default(); LEVELS];
        let mut height = 0_usize;
        // So many ranges are below a key.
        let mut step = WIDTH;
        let mut below = runs.len();
        for level in &mut levels {
            if below <= 1 {
                break;
            }
            level.begin = nodes.len();
            level.below = below;
            let mut firsts = ranges.iter().step_by(step).map(|range| range.first);
            while let Some(first) = firsts.next() {
                let mut keys = [first; WIDTH];
                let mut last = first;
                for key in keys.iter_mut().skip(1) {
                    last = firsts.next().unwrap_or(last);
                    *key = last;
                }
                M::push(&mut nodes, keys)?;
            }
            height = height.wrapping_add(1);
            below = nodes.len().wrapping_sub(level.begin);
            step = step.saturating_mul(WIDTH);
        }
        Ok(Some(Self {
            runs,
            nodes,
            levels,
            height,
            length: ranges.len(),
        }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The one at a place.
    pub fn get(&self, place: usize) -> Option<Range<K>> {
        let run = self.runs.get(place / WIDTH)?;
        let range = run.get(place % WIDTH).copied();
        range.filter(|_| place < self.length)
    }

    /// Whether a number is in any of them.
    #[inline(never)]
    pub fn has(&self, number: K) -> bool {
        // A number before the first range is taken for one of that, and found not to be in it.
        let mut at = 0_usize;
        let levels = self.levels.get(..self.height).unwrap_or_default();
        for level in levels.iter().rev() {
            let Some(node) = self.nodes.get(level.begin.wrapping_add(at)) else {
                return false;
            };
            let within = place(node, |key| *key, number);
            // What fills a node up leads to its last.
            at = at
                .wrapping_mul(WIDTH)
                .wrapping_add(within)
                .min(level.below.wrapping_sub(1));
        }
        let Some(run) = self.runs.get(at) else {
            return false;
        };
        let last = run.get(place(run, |range| range.first, number));
        last.is_some_and(|range| range.has(number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::HostHeap;
    use super::*;
    use proptest::prelude::*;

    type Of<K> = Ranges<K, HostHeap>;

    fn new<K: Number>(ranges: Vec<Range<K>>) -> Option<Of<K>> {
        let Ok(made) = Of::new(&ranges);
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
        let told: Vec<_> = (0..=ranges.len())
            .map_while(|place| set.get(place))
            .collect();
        assert_eq!(told, ranges);
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
        assert!(set.height <= LEVELS);
        for number in [0, 1, 2, 77, 2 * count - 3, 2 * count - 2, 2 * count - 1] {
            assert_eq!(set.has(number as u128), number % 2 == 0, "{number}");
        }
        let bytes = set.nodes.len() * 16 * 16 + set.runs.len() * 16 * 32;
        assert!(bytes as i32 <= 35 * count, "{bytes}");
        let mut more: Vec<_> = (0..set.len()).filter_map(|place| set.get(place)).collect();
        more.extend(
            (1..=(1 << 20))
                .map(|number| Range::one(u128::MAX - number * 2))
                .rev(),
        );
        assert!(new(more).is_none());
    }
}
