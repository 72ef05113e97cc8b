// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a test runs.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// Keeps this thread on one CPU, and so what it sends over links that are virtual: what is received
/// by two CPUs has no order, and takes memory from two stores.
pub struct Pinned(CpuSet);

impl Pinned {
    /// From now on, and until it is dropped.
    pub fn to(cpu: usize) -> Result<Self> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this)?;
        let mut one = CpuSet::new();
        one.set(cpu)?;
        sched_setaffinity(this, &one).with_context(|| format!("cannot stay on CPU {cpu}"))?;
        Ok(Self(all))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where a thread runs is no matter of the tests that come after.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// By how much one CPU is later than the other: in every second turn CPU 0, in the others CPU 1, a little more from
/// turn to turn, and then from the beginning again.
const LATER: Duration = Duration::from_nanos(200);
const STEPS: usize = 100;

/// Has two threads do `work` at the same time, one on CPU 0 and one on CPU 1, `turns` times; it is told the CPU and
/// the turn. A barrier that has threads sleep would not do: who comes last would go on at once, and the other one
/// later by as long as it takes to wake it, so that the same CPU might be the first in nearly every turn.
pub fn at_once(turns: usize, work: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<()> {
    let arrived = AtomicUsize::new(0);
    let on = |cpu: usize| -> Result<()> {
        let pinned = Pinned::to(cpu);
        let mut result = Ok(());
        for turn in 0..turns {
            // Also after a failure, or else the other one waits for ever.
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (turn + 1) {
                hint::spin_loop();
            }
            if turn % 2 == cpu {
                wait(LATER * (turn / 2 % STEPS) as u32);
            }
            result = result.and(work(cpu, turn));
        }
        pinned?;
        result
    };
    thread::scope(|scope| {
        let on = &on;
        let threads = [0, 1].map(|cpu| scope.spawn(move || on(cpu)));
        threads
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .into_iter()
            .collect()
    })
}

/// Waits without giving the CPU away.
fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// Whether this machine lets the test have the two CPUs.
    fn has_both() -> bool {
        [0, 1].into_iter().all(|cpu| Pinned::to(cpu).is_ok())
    }

    #[test]
    fn both_do_each_turn_together_and_each_is_first_at_times() {
        const TURNS: usize = 400;
        // Who has begun each turn, and how many turns each was the first in.
        let begun: Vec<AtomicUsize> = (0..TURNS).map(|_| AtomicUsize::new(0)).collect();
        let first = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let work = |cpu: usize, turn: usize| {
            if begun[turn].fetch_add(1, Ordering::AcqRel) == 0 {
                first[cpu].fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        if !has_both() {
            return;
        }
        at_once(TURNS, work).unwrap();
        let each = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        assert!(begun.iter().all(|count| each(count) == 2));
        let first = [&first[0], &first[1]].map(each);
        assert_eq!(first[0] + first[1], TURNS);
        assert!(first.iter().all(|&count| count > TURNS / 20), "{first:?}");
    }

    #[test]
    fn a_failure_ends_nothing_and_is_told() {
        let calls = AtomicUsize::new(0);
        let work = |cpu: usize, turn: usize| {
            calls.fetch_add(1, Ordering::Relaxed);
            if (cpu, turn) == (1, 3) {
                return Err(anyhow!("bad"));
            }
            Ok(())
        };
        if !has_both() {
            return;
        }
        assert_eq!(at_once(10, work).unwrap_err().to_string(), "bad");
        assert_eq!(calls.into_inner(), 20);
    }
}
