// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is counted of the packets that get to one place.

use super::super::arrivals::{Arrival, Arrivals};
use crate::kernel::tsc;
use mutexlab_model::histogram::Recorder;
use mutexlab_model::measured::Transit;

/// Counts as packets come.
pub struct Tally {
    arrivals: Arrivals,
    latency: Recorder,
    // Of first copies.
    first: Option<u64>,
    last: u64,
}

impl Tally {
    /// Nothing of so many packets.
    pub fn new(packets: u32) -> Self {
        Self {
            arrivals: Arrivals::new(packets),
            latency: Recorder::with_capacity(packets as usize),
            first: None,
            last: 0,
        }
    }

    /// The packet `number` came at `time`; it was to be sent at the time `due`.
    pub fn take(&mut self, number: u32, due: u64, time: u64) -> Arrival {
        let arrival = self.arrivals.take(number);
        if arrival == Arrival::Again {
            return arrival;
        }
        let latency = time.saturating_sub(due);
        self.latency.record(tsc::nanoseconds(latency));
        self.first.get_or_insert(time);
        self.last = time;
        arrival
    }

    /// How many packets came, further copies not counted.
    pub fn distinct(&self) -> u32 {
        self.arrivals.distinct()
    }

    /// Nanoseconds from the first packet to the last one.
    pub fn span(&self) -> u64 {
        let span = self.first.map_or(0, |first| self.last - first);
        tsc::nanoseconds(span)
    }

    /// What came of `sent` packets.
    pub fn transit(&self, sent: u32) -> Transit {
        let distinct = self.arrivals.distinct();
        Transit {
            arrived: distinct.into(),
            lost: sent.saturating_sub(distinct).into(),
            reordered: self.arrivals.late().into(),
            duplicates: self.arrivals.again().into(),
            latency: self.latency.histogram(),
        }
    }
}
