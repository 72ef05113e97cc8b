// SPDX-License-Identifier: MIT OR Apache-2.0

//! Carries out patterns of access for the lens to look at.

use core::arch::asm;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
use nix::unistd::{getppid, Pid};

use crate::kernel::{marks, tsc};
use crate::traffic::pace::Pace;
use mutexlab_protocol::pattern::{Pattern, Turn, BUFFER, LINE, LINES, TURNS};

/// How many before, after which lines are where they are after each turn, and both threads run.
const FIRST_TURNS: u64 = 4;

/// Does it in a window; how many ticks of the time-stamp counter the window took, and a constant.
///
/// # Errors
/// If memory or a CPU is not to be had.
pub fn run(pattern: Pattern) -> Result<u64> {
    stay_on(0)?;
    let words = buffer()?;
    marks::prepare();
    // The lens is ready when its guest has done something else for a while.
    Pace::BetweenTicks.wait()?;
    match pattern {
        Pattern::Instructions(count) => Ok(watch(|| execute(count))),
        Pattern::SystemCalls(count) => Ok(watch(|| {
            for _ in 0..count {
                getppid();
            }
        })),
        Pattern::Sweep { lines, times } => {
            // The first sweep fills the caches.
            sweep(words, lines);
            Ok(watch(|| (0..times).for_each(|_| sweep(words, lines))))
        }
        Pattern::Turns(turn) => take_all_turns(turn, words),
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

/// Has both CPUs take their turns, and gives the ticks of those in the window.
fn take_all_turns(turn: Turn, words: &[AtomicU64]) -> Result<u64> {
    // Far from the lines that count.
    let [.., whose] = words else {
        return Ok(0);
    };
    whose.store(0, Ordering::Relaxed);
    let other = || -> Result<()> {
        stay_on(1)?;
        take_turns(turn, 1, whose, words, 0..FIRST_TURNS + TURNS);
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(other);
        take_turns(turn, 0, whose, words, 0..FIRST_TURNS);
        wait_for(whose, 2 * FIRST_TURNS);
        let ticks = watch(|| {
            take_turns(turn, 0, whose, words, FIRST_TURNS..FIRST_TURNS + TURNS);
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
    what: Turn,
    cpu: u64,
    whose: &AtomicU64,
    words: &[AtomicU64],
    turns: std::ops::Range<u64>,
) {
    let own = &words[match what {
        Turn::WriteBeside => cpu as usize,
        Turn::WriteApart => (cpu * LINE / 8) as usize,
        Turn::AddToOne | Turn::Tell | Turn::ReadOne => 0,
    }];
    for turn in turns {
        wait_for(whose, 2 * turn + cpu);
        match what {
            Turn::AddToOne => {
                own.fetch_add(1, Ordering::Relaxed);
            }
            Turn::Tell if cpu == 1 => {
                own.load(Ordering::Relaxed);
            }
            Turn::ReadOne => {
                own.load(Ordering::Relaxed);
            }
            Turn::WriteBeside | Turn::WriteApart | Turn::Tell => {
                own.store(turn, Ordering::Relaxed);
            }
        }
        whose.fetch_add(1, Ordering::Release);
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
