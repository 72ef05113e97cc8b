// SPDX-License-Identifier: MIT OR Apache-2.0

//! The CPU's time-stamp counter.

use std::sync::OnceLock;
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
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    *FREQUENCY.get_or_init(measure)
}

/// `ticks` as nanoseconds of the guest's clock.
pub fn nanoseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(frequency())) as u64
}

/// So many nanoseconds of the guest's clock as ticks.
pub fn ticks(nanoseconds: u64) -> u64 {
    (u128::from(nanoseconds) * u128::from(frequency()) / 1_000_000) as u64
}

/// Does nothing until the counter is at `time`. Where a tick is an instruction, the caller goes on
/// always the same number of ticks later.
pub fn spin_until(time: u64) {
    // On no CPU a turn takes more ticks than it has instructions, two for the loop included.
    const TURN: u64 = NOPS + 2;
    loop {
        let left = time.saturating_sub(now());
        // An emulated CPU takes long to read the counter, and hardly any time to do nothing.
        for _ in 0..left.saturating_sub(TURN) / (2 * TURN) {
            do_nothing(NOPS);
        }
        // The last step is exact, the others go half of the way.
        let last = left <= NOPS;
        do_nothing(if last { left } else { NOPS / 2 });
        if last && now() >= time {
            return;
        }
    }
}

/// How often [`do_nothing`] can.
const NOPS: u64 = 256;

/// Executes so many instructions that do nothing, at most [`NOPS`].
#[inline(always)]
fn do_nothing(times: u64) {
    // SAFETY: It jumps as many bytes before the last of so many instructions of one byte each, and
    // nothing is read or written.
    unsafe {
        core::arch::asm!(
            "lea {start}, [rip + 2f]",
            "sub {start}, {times}",
            "jmp {start}",
            ".rept {nops}",
            "nop",
            ".endr",
            "2:",
            start = out(reg) _,
            times = in(reg) times.min(NOPS),
            nops = const NOPS,
            options(nomem, nostack)
        );
    }
}

fn measure() -> u64 {
    const PRECISION: u128 = 100;
    let (clock, ticks) = (Instant::now(), now());
    thread::sleep(Duration::from_millis(100));
    let (time, ticks) = (clock.elapsed(), now() - ticks);
    let khz = u128::from(ticks) * 1_000_000 / time.as_nanos().max(1);
    ((khz + PRECISION / 2) / PRECISION * PRECISION) as u64
}
