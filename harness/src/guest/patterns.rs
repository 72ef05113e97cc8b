// SPDX-License-Identifier: MIT OR Apache-2.0

//! Patterns of access whose costs arithmetic tells, for the lens to look at.

use core::arch::asm;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
use nix::unistd::{getppid, Pid};
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::{marks, tsc};

/// Where the lines lie that are accessed: a place that programs do not use.
pub const BUFFER: u64 = 0x6000_0000_0000;
/// Bytes of a line.
pub const LINE: u64 = 64;
/// How many of them there are.
pub const LINES: u64 = 4096;
/// How many turns each of two CPUs takes while the lens looks on.
pub const TURNS: u64 = 50;
/// How many before, after which lines are where they are after each turn, and both threads run.
const FIRST_TURNS: u64 = 4;

/// What is done while the lens looks on, on CPU 0 and perhaps CPU 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// So many instructions and a constant.
    Instructions(u64),
    /// So many system calls.
    SystemCalls(u64),
    /// The first word of each of so many lines is read, one after the other, again and again.
    Sweep {
        /// How many lines.
        lines: u64,
        /// How often.
        times: u64,
    },
    /// Two CPUs take turns to do something with a line of memory.
    Turns(Turn),
}

/// What two CPUs do in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// Add to the same word, atomically.
    AddToOne,
    /// Write to two words of the same line, one each.
    WriteBeside,
    /// Write to two lines, one each.
    WriteApart,
    /// CPU 0 writes a word, CPU 1 reads it.
    Tell,
    /// Read the same word.
    ReadOne,
}

impl Pattern {
    /// What the lens is tested with.
    pub const ALL: [Self; 11] = [
        Self::Instructions(0),
        Self::Instructions(12_345),
        Self::SystemCalls(37),
        Self::Sweep {
            lines: 256,
            times: 5,
        },
        Self::Sweep {
            lines: 1024,
            times: 5,
        },
        Self::Sweep {
            lines: 4096,
            times: 5,
        },
        Self::Turns(Turn::AddToOne),
        Self::Turns(Turn::WriteBeside),
        Self::Turns(Turn::WriteApart),
        Self::Turns(Turn::Tell),
        Self::Turns(Turn::ReadOne),
    ];

    /// Does it in a window; how many ticks of the time-stamp counter the window took, and a constant.
    ///
    /// # Errors
    /// If memory or a CPU is not to be had.
    pub fn run(self) -> Result<u64> {
        stay_on(0)?;
        let words = buffer()?;
        marks::prepare();
        // The lens is ready when its guest has done something else for a while.
        Pace::BetweenTicks.wait()?;
        match self {
            Self::Instructions(count) => Ok(watch(|| execute(count))),
            Self::SystemCalls(count) => Ok(watch(|| {
                for _ in 0..count {
                    getppid();
                }
            })),
            Self::Sweep { lines, times } => {
                // The first sweep fills the caches.
                sweep(words, lines);
                Ok(watch(|| (0..times).for_each(|_| sweep(words, lines))))
            }
            Self::Turns(turn) => turn.run(words),
        }
    }
}

/// What `work` takes, in ticks of the time-stamp counter and a constant more.
#[inline(never)]
fn watch(work: impl FnOnce()) -> u64 {
    let start = tsc::now();
    marks::window(work);
    tsc::now() - start
}

/// Executes `count` instructions and a constant more.
fn execute(count: u64) {
    // SAFETY: Ends, since the register is not zero at first; touches nothing but that.
    unsafe {
        asm!(
            "2: loop 2b",
            inout("rcx") count + 1 => _,
            options(nomem, nostack, preserves_flags)
        );
    }
}

fn sweep(words: &[AtomicU64], lines: u64) {
    let step = (LINE / 8) as usize;
    for word in words.iter().step_by(step).take(lines as usize) {
        word.load(Ordering::Relaxed);
    }
}

impl Turn {
    fn run(self, words: &[AtomicU64]) -> Result<u64> {
        // Far from the lines that count.
        let [.., whose] = words else {
            return Ok(0);
        };
        whose.store(0, Ordering::Relaxed);
        let other = || -> Result<()> {
            stay_on(1)?;
            self.take_turns(1, whose, words, 0..FIRST_TURNS + TURNS);
            Ok(())
        };
        thread::scope(|scope| {
            let other = scope.spawn(other);
            self.take_turns(0, whose, words, 0..FIRST_TURNS);
            wait_for(whose, 2 * FIRST_TURNS);
            let ticks = watch(|| {
                self.take_turns(0, whose, words, FIRST_TURNS..FIRST_TURNS + TURNS);
                wait_for(whose, 2 * (FIRST_TURNS + TURNS));
            });
            let ended = other.join();
            ended
                .ok()
                .context("the other CPU's thread has panicked")??;
            Ok(ticks)
        })
    }

    fn take_turns(
        self,
        cpu: u64,
        whose: &AtomicU64,
        words: &[AtomicU64],
        turns: std::ops::Range<u64>,
    ) {
        let own = &words[match self {
            Self::WriteBeside => cpu as usize,
            Self::WriteApart => (cpu * LINE / 8) as usize,
            Self::AddToOne | Self::Tell | Self::ReadOne => 0,
        }];
        for turn in turns {
            wait_for(whose, 2 * turn + cpu);
            match self {
                Self::AddToOne => {
                    own.fetch_add(1, Ordering::Relaxed);
                }
                Self::Tell if cpu == 1 => {
                    own.load(Ordering::Relaxed);
                }
                Self::ReadOne => {
                    own.load(Ordering::Relaxed);
                }
                Self::WriteBeside | Self::WriteApart | Self::Tell => {
                    own.store(turn, Ordering::Relaxed);
                }
            }
            whose.fetch_add(1, Ordering::Release);
        }
    }
}

fn wait_for(whose: &AtomicU64, turn: u64) {
    while whose.load(Ordering::Acquire) < turn {
        // An emulated CPU lets the others go on.
        std::hint::spin_loop();
    }
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// All lines, each there and zero. They stay, and a later call gets the same.
fn buffer() -> Result<&'static [AtomicU64]> {
    let length = (LINES + 1) * LINE;
    let size = NonZeroUsize::new(length as usize).context("no lines")?;
    // SAFETY: Programs have nothing there, and it replaces no more than an earlier buffer, whose words
    // are atomic and stay.
    let start = unsafe {
        mmap_anonymous(
            NonZeroUsize::new(BUFFER as usize),
            size,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_POPULATE,
        )
    }
    .context("cannot get memory for patterns")?;
    // SAFETY: So many bytes were mapped, aligned to a page, zero, never unmapped, and nobody accesses
    // them but as atomic words.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), (length / 8) as usize) })
}
