// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cache: sets of lines, of which the least recently used makes room.

use std::ops::Range;

use super::line::LineId;
use super::recency::Recency;
use mutexlab_lens_recording::settings::{Cache as Shape, Caches};

/// No line. Ids are given one by one, so that memory ends before they get here.
const NONE: LineId = LineId::MAX;

/// Which lines a cache holds; not what is in them.
#[derive(Clone, Debug)]
pub enum Cache {
    /// Of several sets.
    Sets(Sets),
    /// Fully associative.
    Full(Recency),
}

/// Sets of a few ways each.
#[derive(Clone, Debug)]
pub struct Sets {
    ways: usize,
    mask: u64,
    /// Set by set, the most recently used line first.
    lines: Vec<LineId>,
}

impl Cache {
    /// An empty cache. `None` if its sets are no power of two, or it has none.
    pub fn new(shape: Shape) -> Option<Self> {
        let ways = u64::from(shape.ways);
        let sets = shape.size.checked_div(Caches::LINE * ways)?;
        if !sets.is_power_of_two() || sets * Caches::LINE * ways != shape.size {
            return None;
        }
        if sets == 1 {
            return Some(Self::Full(Recency::new(shape.ways as usize)));
        }
        Some(Self::Sets(Sets {
            ways: shape.ways as usize,
            mask: sets - 1,
            lines: vec![NONE; usize::try_from(sets * ways).ok()?],
        }))
    }

    /// Empties it.
    pub fn clear(&mut self) {
        match self {
            Self::Sets(sets) => sets.lines.fill(NONE),
            Self::Full(set) => set.clear(),
        }
    }

    /// Whether it holds the line whose address is `number` times the size of a line. If so, the line
    /// is the most recently used of its set from now on.
    pub fn touch(&mut self, number: u64, line: LineId) -> bool {
        match self {
            Self::Sets(sets) => sets.touch(number, line),
            Self::Full(set) => set.touch(line),
        }
    }

    /// Whether it holds the line; changes nothing.
    pub fn holds(&self, number: u64, line: LineId) -> bool {
        match self {
            Self::Sets(sets) => sets.lines[sets.range(number)].contains(&line),
            Self::Full(set) => set.holds(line),
        }
    }

    /// Takes in a line that it does not hold; which one had to go for that, if its set was full.
    pub fn insert(&mut self, number: u64, line: LineId) -> Option<LineId> {
        match self {
            Self::Sets(sets) => sets.insert(number, line),
            Self::Full(set) => set.insert(line),
        }
    }

    /// Gives up a line, if it holds it.
    pub fn remove(&mut self, number: u64, line: LineId) {
        match self {
            Self::Sets(sets) => sets.remove(number, line),
            Self::Full(set) => set.remove(line),
        }
    }
}

impl Sets {
    fn range(&self, number: u64) -> Range<usize> {
        let start = (number & self.mask) as usize * self.ways;
        start..start + self.ways
    }

    fn set(&mut self, number: u64) -> &mut [LineId] {
        let range = self.range(number);
        &mut self.lines[range]
    }

    fn touch(&mut self, number: u64, line: LineId) -> bool {
        let set = self.set(number);
        let place = set.iter().position(|&held| held == line);
        if let Some(place) = place {
            set[..=place].rotate_right(1);
        }
        place.is_some()
    }

    fn insert(&mut self, number: u64, line: LineId) -> Option<LineId> {
        let set = self.set(number);
        set.rotate_right(1);
        let evicted = std::mem::replace(&mut set[0], line);
        (evicted != NONE).then_some(evicted)
    }

    fn remove(&mut self, number: u64, line: LineId) {
        let set = self.set(number);
        if let Some(place) = set.iter().position(|&held| held == line) {
            set[place] = NONE;
            // The empty place is the first to be taken.
            set[place..].rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two_sets_of_two() -> Cache {
        Cache::new(Shape { size: 256, ways: 2 }).unwrap()
    }

    #[test]
    fn the_least_recently_used_line_of_a_set_goes() {
        let mut cache = two_sets_of_two();
        assert_eq!(cache.insert(0, 10), None);
        assert_eq!(cache.insert(2, 12), None);
        assert!(cache.touch(0, 10));
        assert_eq!(cache.insert(4, 14), Some(12));
        // The other set has nothing to do with it.
        assert_eq!(cache.insert(1, 11), None);
        assert!(cache.holds(0, 10) && cache.holds(4, 14) && cache.holds(1, 11));
        assert!(!cache.touch(2, 12));
    }

    #[test]
    fn a_line_that_was_given_up_leaves_its_place() {
        let mut cache = two_sets_of_two();
        cache.insert(0, 10);
        cache.insert(2, 12);
        cache.remove(2, 12);
        cache.remove(2, 12);
        assert!(!cache.holds(2, 12));
        assert_eq!(cache.insert(4, 14), None);
        assert!(cache.holds(0, 10));
        assert_eq!(cache.insert(6, 16), Some(10));
    }

    proptest! {
        #[test]
        fn one_set_is_the_same_in_either_way(
            ways in 1_u32..9,
            accesses in prop::collection::vec((0_u32..12, 0_u8..8), 0..200),
        ) {
            let mut full = Cache::new(Shape { size: u64::from(ways) * 64, ways }).unwrap();
            let mut sets = Cache::Sets(Sets {
                ways: ways as usize,
                mask: 0,
                lines: vec![NONE; ways as usize],
            });
            prop_assert!(matches!(full, Cache::Full(_)));
            for (line, deed) in accesses {
                match deed {
                    0 => {
                        full.remove(0, line);
                        sets.remove(0, line);
                    }
                    _ => {
                        let held = full.touch(0, line);
                        prop_assert_eq!(held, sets.touch(0, line));
                        if !held {
                            prop_assert_eq!(full.insert(0, line), sets.insert(0, line));
                        }
                    }
                }
                for line in 0..12 {
                    prop_assert_eq!(full.holds(0, line), sets.holds(0, line));
                }
            }
        }
    }

    #[test]
    fn only_powers_of_two_are_numbers_of_sets() {
        for (size, ways) in [(0, 8), (64, 0), (192, 1), (100, 1), (64 * 8 + 1, 8)] {
            assert!(Cache::new(Shape { size, ways }).is_none(), "{size} {ways}");
        }
        assert!(Cache::new(Shape { size: 64, ways: 1 }).is_some());
    }
}
