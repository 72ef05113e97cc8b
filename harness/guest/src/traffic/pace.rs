// SPDX-License-Identifier: MIT OR Apache-2.0

//! When the packets that are measured are sent.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_gettime, ClockId};

use mutexlab_model::mode::Mode;

/// A whole number of the kernel's ticks at 100, 200, 300 and 1000 Hz.
const PERIOD: Duration = Duration::from_millis(10);

/// When the next round trip of a closed loop is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// In the middle between two ticks of the kernel's clock.
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

    /// Sleeps until it is time.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn wait(self) -> Result<()> {
        match self {
            Self::BetweenTicks => {
                thread::sleep(self.ahead()?);
                Ok(())
            }
            Self::AtOnce => Ok(()),
        }
    }

    /// How long it is until then.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn ahead(self) -> Result<Duration> {
        match self {
            Self::BetweenTicks => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
                let now = now.context("cannot read the monotonic clock")?;
                Ok(until_middle(now.into()))
            }
            Self::AtOnce => Ok(Duration::ZERO),
        }
    }
}

/// From `now` to the middle of the period after the one that it is in. The monotonic clock's multiples
/// of the period are where the kernel's ticks are.
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
