// SPDX-License-Identifier: MIT OR Apache-2.0

//! The CPU's time-stamp counter.

use std::thread;
use std::time::{Duration, Instant};

/// Ticks since the CPU's reset. With `-icount shift=0` a tick is an instruction.
#[inline]
pub fn now() -> u64 {
    // SAFETY: Every x86-64 CPU has the instruction, and Linux lets programs use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Frequency in kHz against the monotonic clock, to the nearest 0.1 MHz.
pub fn frequency() -> u64 {
    const PRECISION: u128 = 100;
    let (clock, ticks) = (Instant::now(), now());
    thread::sleep(Duration::from_millis(100));
    let (time, ticks) = (clock.elapsed(), now() - ticks);
    let khz = u128::from(ticks) * 1_000_000 / time.as_nanos().max(1);
    ((khz + PRECISION / 2) / PRECISION * PRECISION) as u64
}
