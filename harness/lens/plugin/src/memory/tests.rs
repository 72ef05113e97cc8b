// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caches beside a plain model of them, and where arithmetic tells what comes out.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use mutexlab_lens_recording::settings::Cache as Shape;

const WORD: u64 = 0xff;
const NEXT_WORD: u64 = 0xff << 8;

/// Small caches, in which lines make room for each other soon.
const SMALL: Caches = Caches {
    l1i: Shape { size: 256, ways: 2 },
    l1d: Shape { size: 256, ways: 2 },
    l2: Shape { size: 512, ways: 4 },
    last: Shape {
        size: 1024,
        ways: 4,
    },
};

fn memory(cpus: usize) -> Memory {
    Memory::new(&SMALL, cpus).unwrap()
}

impl Memory {
    fn do_access(&mut self, cpu: usize, number: u64, access: Access) -> Outcome {
        let line = self.line(number);
        self.access(cpu, line, access)
    }
}

/// What a CPU may do with a line that is in its caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Modified,
    Exclusive,
    Shared,
}

/// The model: lists of lines, most recently used first, a state for each CPU and line, and all accesses
/// that there ever were.
struct Plain {
    shapes: Caches,
    /// For each CPU L1I, L1D and L2, and behind them the last level; each a list for each set.
    lists: HashMap<(usize, &'static str, u64), Vec<u64>>,
    states: HashMap<(usize, u64), State>,
    log: Vec<(usize, u64, Access)>,
    cpus: usize,
}

impl Plain {
    const LAST: usize = usize::MAX;

    fn new(cpus: usize) -> Self {
        Self {
            shapes: SMALL,
            lists: HashMap::new(),
            states: HashMap::new(),
            log: Vec::new(),
            cpus,
        }
    }

    fn list(&mut self, cpu: usize, level: &'static str, number: u64) -> (&mut Vec<u64>, usize) {
        let shape = match level {
            "l1i" => self.shapes.l1i,
            "l1d" => self.shapes.l1d,
            "l2" => self.shapes.l2,
            _ => self.shapes.last,
        };
        let sets = shape.size / u64::from(shape.ways) / Caches::LINE;
        let set = number % sets;
        (
            self.lists.entry((cpu, level, set)).or_default(),
            shape.ways as usize,
        )
    }

    fn has(&mut self, cpu: usize, level: &'static str, number: u64) -> bool {
        self.list(cpu, level, number).0.contains(&number)
    }

    fn has_anywhere(&mut self, cpu: usize, number: u64) -> bool {
        ["l1i", "l1d", "l2"]
            .into_iter()
            .any(|level| self.has(cpu, level, number))
    }

    /// Makes a line the first of its list; the one that fell off its end.
    fn put(&mut self, cpu: usize, level: &'static str, number: u64) -> Option<u64> {
        let (list, ways) = self.list(cpu, level, number);
        list.retain(|&other| other != number);
        list.insert(0, number);
        (list.len() > ways).then(|| list.pop().unwrap())
    }

    fn drop_everywhere(&mut self, cpu: usize, number: u64) {
        for level in ["l1i", "l1d", "l2"] {
            self.list(cpu, level, number)
                .0
                .retain(|&other| other != number);
        }
        self.states.remove(&(cpu, number));
    }

    fn left(&mut self, cpu: usize, number: Option<u64>) {
        let Some(number) = number else { return };
        if !self.has_anywhere(cpu, number)
            && self.states.remove(&(cpu, number)) == Some(State::Modified)
        {
            self.put(Self::LAST, "last", number);
        }
    }

    /// Looks through everything that ever happened to the bytes, one by one.
    fn is_true_sharing(&self, cpu: usize, number: u64, access: Access) -> bool {
        let bytes = match access {
            Access::Fetch => return false,
            Access::Read(bytes) | Access::ReadToWrite(bytes) | Access::Write(bytes) => bytes,
        };
        (0..64).filter(|byte| bytes >> byte & 1 != 0).any(|byte| {
            let history: Vec<(usize, bool)> = self
                .log
                .iter()
                .filter(|(_, line, _)| *line == number)
                .filter_map(|&(who, _, access)| match access {
                    Access::Read(bytes) if bytes >> byte & 1 != 0 => Some((who, false)),
                    Access::Write(bytes) if bytes >> byte & 1 != 0 => Some((who, true)),
                    _ => None,
                })
                .collect();
            let written = history.iter().rposition(|&(_, writes)| writes);
            let since = &history[written.map_or(0, |place| place + 1)..];
            let writer = written.map(|place| history[place].0);
            let is_elsewhere = writer.is_some_and(|writer| writer != cpu);
            if matches!(access, Access::Read(_)) {
                is_elsewhere && since.iter().all(|&(who, _)| who != cpu)
            } else {
                is_elsewhere || since.iter().any(|&(who, _)| who != cpu)
            }
        })
    }

    fn access(&mut self, cpu: usize, number: u64, access: Access) -> Outcome {
        let l1 = if access == Access::Fetch {
            "l1i"
        } else {
            "l1d"
        };
        let state = self.states.get(&(cpu, number)).copied();
        let may = match access {
            Access::Fetch | Access::Read(_) => true,
            _ => matches!(state, Some(State::Modified | State::Exclusive)),
        };
        let others: Vec<usize> = (0..self.cpus)
            .filter(|other| *other != cpu && self.states.contains_key(&(*other, number)))
            .collect();
        let modified = others
            .iter()
            .any(|other| self.states[&(*other, number)] == State::Modified);
        let in_last = self.has(Self::LAST, "last", number);
        let l1_hit = self.has(cpu, l1, number) && may;
        let l2_hit = self.has(cpu, "l2", number) && may;
        let mut outcome = Outcome {
            l1_miss: !l1_hit,
            l2_miss: !l1_hit && !l2_hit,
            ..Outcome::default()
        };
        if outcome.l2_miss {
            outcome.last_miss = !in_last && others.is_empty() && state.is_none();
            let mut to_last = outcome.last_miss || in_last;
            if access == Access::Fetch || matches!(access, Access::Read(_)) {
                outcome.transfer = modified;
                to_last |= modified;
                for &other in &others {
                    self.states.insert((other, number), State::Shared);
                }
            } else {
                outcome.transfer = !others.is_empty();
                outcome.invalidations = others.len() as u32;
                for &other in &others {
                    self.drop_everywhere(other, number);
                }
            }
            outcome.true_sharing = outcome.transfer && self.is_true_sharing(cpu, number, access);
            if to_last {
                self.put(Self::LAST, "last", number);
            }
        }
        let new = match access {
            Access::ReadToWrite(_) | Access::Write(_) => State::Modified,
            _ if state == Some(State::Modified) => State::Modified,
            _ if outcome.l2_miss && others.is_empty() => State::Exclusive,
            _ => state.unwrap_or(State::Shared),
        };
        self.states.insert((cpu, number), new);
        if !l1_hit {
            let left = self.put(cpu, "l2", number);
            self.left(cpu, left);
        }
        let left = self.put(cpu, l1, number);
        self.left(cpu, left);
        self.log.push((cpu, number, access));
        outcome
    }
}

fn accesses() -> impl Strategy<Value = Vec<(usize, u64, Access)>> {
    // Bytes of three words, one of which overlaps the others.
    let bytes = prop_oneof![Just(WORD), Just(NEXT_WORD), Just(0xff0)];
    let access = (0..6_u8, bytes).prop_map(|(kind, bytes)| match kind {
        0 => Access::Fetch,
        1 | 2 => Access::Read(bytes),
        3 => Access::ReadToWrite(bytes),
        _ => Access::Write(bytes),
    });
    prop::collection::vec((0..3_usize, 0..24_u64, access), 0..400)
}

proptest! {
    #[test]
    fn it_is_as_the_plain_model_says(accesses in accesses()) {
        let (mut memory, mut plain) = (memory(3), Plain::new(3));
        for (place, (cpu, number, access)) in accesses.into_iter().enumerate() {
            let expected = plain.access(cpu, number, access);
            let found = memory.do_access(cpu, number, access);
            prop_assert_eq!(found, expected, "access {}: {:?} of line {} by {}", place, access, number, cpu);
        }
    }

    #[test]
    fn who_owns_a_line_is_its_only_holder(accesses in accesses()) {
        let mut memory = memory(3);
        for (cpu, number, access) in accesses {
            memory.do_access(cpu, number, access);
            for (id, line) in memory.lines.iter().enumerate() {
                if let Some(owner) = line.owner {
                    prop_assert_eq!(line.holders, 1 << owner);
                }
                prop_assert!(line.owner.is_some() || !line.is_dirty);
                for cpu in 0..3 {
                    let holds = memory.cpus[cpu].holds(line.number, id as LineId);
                    prop_assert_eq!(holds, line.holders >> cpu & 1 != 0);
                }
            }
        }
    }
}

#[test]
fn a_stride_over_more_than_a_cache_misses_each_time() {
    let mut memory = memory(1);
    // L1D has 4 lines, L2 8, the last level 16.
    for (lines, l1, l2, last) in [
        (4, 0, 0, 0),
        (8, 8, 0, 0),
        (16, 16, 16, 0),
        (32, 32, 32, 32),
    ] {
        let mut sweep = || {
            let outcomes: Vec<Outcome> = (0..lines)
                .map(|number| memory.do_access(0, number, Access::Read(WORD)))
                .collect();
            let count = |miss: fn(&Outcome) -> bool| outcomes.iter().filter(|o| miss(o)).count();
            [
                count(|o| o.l1_miss),
                count(|o| o.l2_miss),
                count(|o| o.last_miss),
            ]
        };
        sweep();
        assert_eq!(sweep(), [l1, l2, last], "{lines} lines");
    }
}

#[test]
fn a_counter_shared_by_atomic_additions_moves_at_each_turn() {
    let mut memory = memory(2);
    for turn in 0..10_usize {
        let cpu = turn % 2;
        let read = memory.do_access(cpu, 5, Access::ReadToWrite(WORD));
        let write = memory.do_access(cpu, 5, Access::Write(WORD));
        assert_eq!(write, Outcome::default());
        assert_eq!(read.transfer, turn != 0);
        assert_eq!(read.true_sharing, turn != 0);
        assert_eq!(read.invalidations, u32::from(turn != 0));
    }
}

#[test]
fn counters_beside_each_other_are_shared_falsely() {
    let mut memory = memory(2);
    for turn in 0..10_usize {
        let bytes = [WORD, NEXT_WORD][turn % 2];
        let outcome = memory.do_access(turn % 2, 5, Access::Write(bytes));
        assert_eq!((outcome.transfer, outcome.true_sharing), (turn != 0, false));
    }
}

#[test]
fn a_reader_that_knows_the_value_shares_falsely() {
    let mut memory = memory(2);
    memory.do_access(0, 5, Access::Write(WORD | NEXT_WORD));
    let first = memory.do_access(1, 5, Access::Read(WORD));
    assert!(first.transfer && first.true_sharing);
    memory.do_access(0, 5, Access::Write(NEXT_WORD));
    let again = memory.do_access(1, 5, Access::Read(WORD));
    assert!(again.transfer && !again.true_sharing);
    memory.do_access(0, 5, Access::Write(WORD));
    let news = memory.do_access(1, 5, Access::Read(WORD));
    assert!(news.transfer && news.true_sharing);
}

#[test]
fn lines_that_are_only_read_stay_where_they_are() {
    let mut memory = memory(2);
    let outcomes = [0, 1, 0, 1].map(|cpu| memory.do_access(cpu, 5, Access::Read(WORD)));
    assert_eq!(outcomes.map(|outcome| outcome.transfer), [false; 4]);
    assert_eq!(
        outcomes.map(|outcome| outcome.last_miss),
        [true, false, false, false]
    );
    assert_eq!(
        outcomes.map(|outcome| outcome.l1_miss),
        [true, true, false, false]
    );
}

#[test]
fn more_cpus_than_bits_are_refused() {
    assert!(Memory::new(&SMALL, MAX_CPUS).is_some());
    assert!(Memory::new(&SMALL, MAX_CPUS + 1).is_none());
}
