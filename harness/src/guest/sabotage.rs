// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measuring wrong on purpose, to show that the self check notices.

use crate::histogram::Histogram;
use crate::measured::HookCost;
use crate::measurement::Measurement;
use crate::protocol::Sabotage;

impl Sabotage {
    /// What a bad instrument would have said.
    pub fn spoil(self, measurement: &mut Measurement) {
        for cost in [&mut measurement.original, &mut measurement.reply] {
            self.spoil_cost(cost);
        }
        if let (Self::Credulous, Some(open)) = (self, &mut measurement.open) {
            for transit in [&mut open.forward, &mut open.round_trip] {
                transit.arrived += transit.lost;
                transit.lost = 0;
                transit.reordered = 0;
                transit.duplicates = 0;
            }
        }
    }

    fn spoil_cost(self, cost: &mut HookCost) {
        let wrong = |ticks: u64| match self {
            Self::Skew(by) => ticks + by,
            Self::Coarse(step) => ticks - ticks % step.max(1),
            Self::Credulous | Self::HoldModule | Self::LogWarning => ticks,
        };
        cost.histogram = Histogram::from_pairs(
            cost.histogram
                .pairs()
                .map(|(ticks, count)| (wrong(ticks), count)),
        );
        cost.min = wrong(cost.min);
        cost.max = wrong(cost.max);
        cost.sum = cost
            .histogram
            .pairs()
            .map(|(ticks, count)| ticks * count)
            .sum();
    }
}
