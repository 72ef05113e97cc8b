// SPDX-License-Identifier: MIT OR Apache-2.0

//! How fast the time-stamp counter of this machine runs, which is that of an emulated guest in real time (`cpu_get_ticks()` of QEMU's
//! softmmu/cpu-timers.c).
//!
//! The kernel of such a guest finds out in vain: by the PIT, which is emulated too late too often, and there is no other clock. It takes the counter for
//! unstable then, and its clock goes on with the ticks alone: nothing is shorter than 10 ms.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long it is watched. To a thread that is woken late it makes no difference.
const WATCHED: Duration = Duration::from_millis(20);

/// Thousands of cycles a second, measured once; `None` where there is no such counter.
pub fn khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> Option<u64> {
    let (start, from) = (Instant::now(), now()?);
    thread::sleep(WATCHED);
    let (ticks, time) = (now()?.checked_sub(from)?, start.elapsed());
    let khz = u128::from(ticks) * 1_000_000 / time.as_nanos();
    u64::try_from(khz).ok().filter(|&khz| khz > 0)
}

#[cfg(target_arch = "x86_64")]
fn now() -> Option<u64> {
    // SAFETY: all processors of the architecture have the instruction, and Linux lets user space execute it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn now() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        if let (Some(one), Some(other)) = (measure(), measure()) {
            assert!(one.abs_diff(other) < one / 100, "{one} kHz, {other} kHz");
        }
    }
}
