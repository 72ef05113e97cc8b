// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caches of all CPUs and what keeps them coherent.
//!
//! A line is in one of MESI's states: `Line::owner` has it for itself (exclusive, or modified if
//! `Line::is_dirty`), or `Line::holders` share it, or it is in no CPU's caches. The caches of one
//! level know nothing of those of another: a line that had to leave L2 may still be in L1. Lines enter
//! the last level when they are read from memory and when a CPU's modified line leaves its caches or is
//! read by another.

use rustc_hash::FxHashMap;

use crate::cache::Cache;
use crate::line::LineId;
use crate::sharing::Sharing;
use mutexlab_lens_recording::settings::Caches;

/// Most CPUs that can be modelled: sets of CPUs are words.
pub const MAX_CPUS: usize = 64;

/// How a line is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As code.
    Fetch,
    /// These bytes are read; bit 0 is the first.
    Read(u64),
    /// They are read by an instruction that is about to write them atomically: no other CPU may have
    /// the line.
    ReadToWrite(u64),
    /// They are written.
    Write(u64),
}

impl Access {
    const fn is_exclusive(self) -> bool {
        matches!(self, Self::ReadToWrite(_) | Self::Write(_))
    }
}

/// What an access to a line took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The line was not in the first level, or not as needed.
    pub l1_miss: bool,
    /// Nor in the second.
    pub l2_miss: bool,
    /// Nor in the last, nor in any CPU's caches.
    pub last_miss: bool,
    /// It came modified from another CPU, or another CPU had to give it up.
    pub transfer: bool,
    /// That was for the sake of the accessed bytes themselves.
    pub true_sharing: bool,
    /// How many CPUs had to give it up.
    pub invalidations: u32,
}

/// The caches that a CPU has for itself.
#[derive(Clone, Debug)]
struct Private {
    l1i: Cache,
    l1d: Cache,
    l2: Cache,
}

impl Private {
    fn holds(&self, number: u64, line: LineId) -> bool {
        [&self.l1i, &self.l1d, &self.l2]
            .iter()
            .any(|cache| cache.holds(number, line))
    }

    fn remove(&mut self, number: u64, line: LineId) {
        for cache in [&mut self.l1i, &mut self.l1d, &mut self.l2] {
            cache.remove(number, line);
        }
    }
}

/// A line of memory.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Its physical address divided by its size.
    number: u64,
    /// The CPUs in whose caches it is.
    holders: u64,
    /// The CPU that may write to it without asking; then it is the only holder.
    owner: Option<u8>,
    /// Whether the owner has written to it.
    is_dirty: bool,
    /// Who knows and wrote which bytes.
    sharing: Sharing,
}

/// All caches.
#[derive(Clone, Debug)]
pub struct Memory {
    cpus: Vec<Private>,
    last: Cache,
    lines: Vec<Line>,
    ids: FxHashMap<u64, LineId>,
}

impl Memory {
    /// Empty caches of `cpus` CPUs. `None` if they are more than [`MAX_CPUS`], or if a cache cannot have
    /// such a shape.
    pub fn new(caches: &Caches, cpus: usize) -> Option<Self> {
        if cpus > MAX_CPUS {
            return None;
        }
        let private = Private {
            l1i: Cache::new(caches.l1i)?,
            l1d: Cache::new(caches.l1d)?,
            l2: Cache::new(caches.l2)?,
        };
        Some(Self {
            cpus: vec![private; cpus],
            last: Cache::new(caches.last)?,
            lines: Vec::new(),
            ids: FxHashMap::default(),
        })
    }

    /// Empties all caches. Lines keep their ids.
    pub fn clear(&mut self) {
        for private in &mut self.cpus {
            private.l1i.clear();
            private.l1d.clear();
            private.l2.clear();
        }
        self.last.clear();
        for line in &mut self.lines {
            *line = Line {
                number: line.number,
                ..Line::default()
            };
        }
    }

    /// The id of the line that is `number` times the size of a line away from physical address 0.
    pub fn line(&mut self, number: u64) -> LineId {
        *self.ids.entry(number).or_insert_with(|| {
            self.lines.push(Line {
                number,
                ..Line::default()
            });
            (self.lines.len() - 1) as LineId
        })
    }

    /// Where a line is, as [`Self::line`] took it.
    pub fn number(&self, line: LineId) -> u64 {
        self.lines[line as usize].number
    }

    /// `cpu` accesses a line.
    pub fn access(&mut self, cpu: usize, id: LineId, access: Access) -> Outcome {
        let mut outcome = Outcome::default();
        let line = &mut self.lines[id as usize];
        let number = line.number;
        let is_own = line.owner == Some(cpu as u8);
        let is_allowed = is_own || !access.is_exclusive();
        let private = &mut self.cpus[cpu];
        let l1 = match access {
            Access::Fetch => &mut private.l1i,
            _ => &mut private.l1d,
        };
        let is_in_l1 = l1.touch(number, id);
        outcome.l1_miss = !(is_in_l1 && is_allowed);
        if outcome.l1_miss {
            let is_in_l2 = private.l2.touch(number, id);
            outcome.l2_miss = !(is_in_l2 && is_allowed);
            if outcome.l2_miss {
                self.ask_others(cpu, id, access, &mut outcome);
            }
            if !is_in_l2 {
                let evicted = self.cpus[cpu].l2.insert(number, id);
                self.evicted(cpu, evicted);
            }
            if !is_in_l1 {
                let private = &mut self.cpus[cpu];
                let evicted = match access {
                    Access::Fetch => private.l1i.insert(number, id),
                    _ => private.l1d.insert(number, id),
                };
                self.evicted(cpu, evicted);
            }
        }
        let line = &mut self.lines[id as usize];
        line.is_dirty |= access.is_exclusive();
        match access {
            Access::Fetch => {}
            Access::Read(bytes) => line.sharing.read(cpu as u8, bytes),
            // What it is about to write is known then.
            Access::ReadToWrite(_) => {}
            Access::Write(bytes) => line.sharing.write(cpu as u8, bytes),
        }
        outcome
    }

    /// Has other CPUs give up what they have to, and brings the line from there, from the last level
    /// or from memory.
    fn ask_others(&mut self, cpu: usize, id: LineId, access: Access, outcome: &mut Outcome) {
        let line = &mut self.lines[id as usize];
        let number = line.number;
        let others = line.holders & !(1 << cpu);
        let is_nowhere = line.holders == 0;
        let mut is_written_back = false;
        if access.is_exclusive() {
            outcome.transfer = others != 0;
            outcome.invalidations = others.count_ones();
            for other in set_bits(others) {
                self.cpus[other].remove(number, id);
            }
            line.holders &= !others;
            line.owner = Some(cpu as u8);
        } else if others != 0 {
            outcome.transfer = line.is_dirty;
            is_written_back = line.is_dirty;
            line.owner = None;
            line.is_dirty = false;
        } else if line.owner.is_none() {
            line.owner = Some(cpu as u8);
        }
        line.holders |= 1 << cpu;
        if outcome.transfer {
            outcome.true_sharing = match access {
                Access::Fetch => false,
                Access::Read(bytes) => line.sharing.is_news(cpu as u8, bytes),
                Access::ReadToWrite(bytes) | Access::Write(bytes) => {
                    line.sharing.is_known_elsewhere(cpu as u8, bytes)
                }
            };
        }
        let is_in_last = self.last.touch(number, id);
        outcome.last_miss = !is_in_last && is_nowhere;
        if !is_in_last && (is_nowhere || is_written_back) {
            self.last.insert(number, id);
        }
    }

    /// A line had to leave one of `cpu`'s caches.
    fn evicted(&mut self, cpu: usize, evicted: Option<LineId>) {
        let Some(id) = evicted else {
            return;
        };
        let line = &mut self.lines[id as usize];
        if self.cpus[cpu].holds(line.number, id) {
            return;
        }
        line.holders &= !(1 << cpu);
        if line.owner == Some(cpu as u8) {
            line.owner = None;
            if std::mem::take(&mut line.is_dirty) && !self.last.touch(line.number, id) {
                self.last.insert(line.number, id);
            }
        }
    }
}

/// The places of the bits that are set.
fn set_bits(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        place
    })
}

#[cfg(test)]
mod tests;
