// SPDX-License-Identifier: MIT OR Apache-2.0

//! When the packets that are measured are sent.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_gettime, ClockId};

use mutexlab_model::mode::Mode;

/// A whole number of the kernel's ticks at 100, 200, 300 and 1000 Hz.
const PERIOD: Duration = Duration::from_millis(10);

/// For how long after the middle of a period packets are sent: far enough from its end that the last of them is home before it.
const WINDOW: Duration = Duration::from_millis(4);

/// How many packets of a closed loop go there between two ticks, as far as [`WINDOW`] lets them, and so share what the kernel does once a
/// tick. A round trip of a forwarded datagram takes some 20 µs on a kernel without checkers: all are over long before the next one.
const PACKETS: u32 = 32;

/// When packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Around the middle between two ticks of the kernel's clock.
    BetweenTicks,
    /// As soon as the one before it has ended.
    AtOnce,
}

impl Pace {
    /// That of a mode. In virtual mode waiting costs no time, since an idle guest's clock jumps. In real
    /// time it would, and a CPU that was idle until then is another one than one that was at work: its
    /// caches, its frequency and its branch predictor have changed.
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Virtual => Self::BetweenTicks,
            Mode::Wall => Self::AtOnce,
        }
    }

    /// Sleeps until the next middle.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn wait(self) -> Result<()> {
        thread::sleep(self.ahead()?);
        Ok(())
    }

    /// How long it is until then.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn ahead(self) -> Result<Duration> {
        match self {
            Self::BetweenTicks => Ok(until_middle(now()?)),
            Self::AtOnce => Ok(Duration::ZERO),
        }
    }
}

/// Says of each round trip of a closed loop when it begins.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    /// How many begin in one period.
    each: u32,
    /// How many more may begin in this one.
    left: u32,
    /// When this period's middle was, by the monotonic clock.
    middle: Duration,
}

impl Pacer {
    /// For round trips of bursts of so many packets.
    pub fn of_bursts(pace: Pace, burst: u32) -> Self {
        Self::new(pace, (PACKETS / burst.max(1)).max(1))
    }

    /// For what has a period of its own each.
    pub fn one_a_period(pace: Pace) -> Self {
        Self::new(pace, 1)
    }

    fn new(pace: Pace, each: u32) -> Self {
        Self {
            pace,
            each,
            left: 0,
            middle: Duration::ZERO,
        }
    }

    /// Sleeps until the next middle, unless the next round trip may still begin in this period.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn wait(&mut self) -> Result<()> {
        if self.pace == Pace::AtOnce {
            return Ok(());
        }
        let now = now()?;
        if self.left == 0 || now >= self.middle + WINDOW {
            let ahead = until_middle(now);
            thread::sleep(ahead);
            self.middle = now + ahead;
            self.left = self.each;
        }
        self.left -= 1;
        Ok(())
    }
}

/// The monotonic clock, whose multiples of the period are where the kernel's ticks are.
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

    #[test]
    fn only_virtual_time_is_waited_for() {
        let virtual_time = Pace::of(Mode::Virtual).ahead().unwrap();
        assert!(virtual_time >= PERIOD / 2 && virtual_time <= PERIOD * 3 / 2);
        assert_eq!(Pace::of(Mode::Wall).ahead().unwrap(), Duration::ZERO);
    }
}
