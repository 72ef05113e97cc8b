// SPDX-License-Identifier: MIT OR Apache-2.0

//! When packets are to be sent, and when flows are to be replaced.

use crate::kernel::tsc;

const SECOND: u64 = 1_000_000_000;

/// Times on the time-stamp counter, fixed before anything is sent.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: u64,
    frequency: u64,
    rate: u32,
    churn: u32,
}

impl Schedule {
    /// From `start` on `rate` packets and `churn` flows a second.
    pub fn new(start: u64, rate: u32, churn: u32) -> Self {
        Self {
            start,
            frequency: tsc::ticks(SECOND),
            rate: rate.max(1),
            churn,
        }
    }

    /// When the packet of this number is to be sent.
    pub fn packet(&self, number: u32) -> u64 {
        self.start + self.period(self.rate, number.into())
    }

    /// When the new flow of this number, from 0, is to be made: the first one a whole period after
    /// the first packet. `None` if there is none.
    pub fn flow(&self, number: u32) -> Option<u64> {
        (self.churn != 0).then(|| self.start + self.period(self.churn, u64::from(number) + 1))
    }

    fn period(&self, rate: u32, times: u64) -> u64 {
        // To the tick for each packet, so that no error adds up.
        (u128::from(times) * u128::from(self.frequency) / u128::from(rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_rate_to_the_end() {
        let schedule = Schedule {
            start: 1_000,
            frequency: SECOND,
            rate: 30_000,
            churn: 10,
        };
        assert_eq!(schedule.packet(0), 1_000);
        assert_eq!(schedule.packet(1), 1_000 + 33_333);
        assert_eq!(schedule.packet(3_000_000), 1_000 + 100 * SECOND);
        assert_eq!(schedule.flow(0), Some(1_000 + SECOND / 10));
        let churn = 0;
        assert_eq!(Schedule { churn, ..schedule }.flow(0), None);
    }
}
