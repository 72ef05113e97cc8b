// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sending at a fixed place between two ticks of the kernel's clock.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_gettime, ClockId};

/// A whole number of the kernel's ticks at 100, 200, 300 and 1000 Hz.
const PERIOD: Duration = Duration::from_millis(10);

/// Sleeps until the middle of the next period of the monotonic clock, to whose multiples the
/// kernel's ticks are aligned. In virtual mode an idle guest's clock jumps: that takes no time.
///
/// # Errors
/// If the clock cannot be read.
pub fn until_between_ticks() -> Result<()> {
    thread::sleep(until_middle(now()?));
    Ok(())
}

/// How long it is to the middle of the period after this one.
///
/// # Errors
/// If the clock cannot be read.
pub fn to_between_ticks() -> Result<Duration> {
    now().map(until_middle)
}

fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    Ok(now.context("cannot read the monotonic clock")?.into())
}

/// From `now` to the middle of the period after the one that it is in.
fn until_middle(now: Duration) -> Duration {
    let into = Duration::from_nanos((now.as_nanos() % PERIOD.as_nanos()) as u64);
    PERIOD - into + PERIOD / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_period_has_one_middle() {
        let at =
            |micros| Duration::from_micros(micros) + until_middle(Duration::from_micros(micros));
        for micros in [0, 1, 4_999, 5_000, 5_001, 9_999] {
            assert_eq!(at(micros), Duration::from_millis(15), "{micros}");
        }
        assert_eq!(at(10_000), Duration::from_millis(25));
    }
}
