// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measuring wrong on purpose, to show that the self check notices.

use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::HookCost;
use mutexlab_protocol::measurement::Measurement;
use mutexlab_protocol::Sabotage;

/// Makes of `measurement` what a bad instrument would have said.
pub fn spoil(sabotage: Sabotage, measurement: &mut Measurement) {
    for cost in [&mut measurement.original, &mut measurement.reply] {
        spoil_cost(sabotage, cost);
    }
    if let (Sabotage::Credulous, Some(open)) = (sabotage, &mut measurement.open) {
        for transit in [&mut open.forward, &mut open.round_trip] {
            transit.arrived += transit.lost;
            transit.lost = 0;
            transit.reordered = 0;
            transit.duplicates = 0;
        }
    }
}

fn spoil_cost(sabotage: Sabotage, cost: &mut HookCost) {
    let wrong = |ticks: u64| match sabotage {
        Sabotage::Skew(by) => ticks + by,
        Sabotage::Coarse(step) => ticks - ticks % step.max(1),
        Sabotage::Credulous | Sabotage::HoldModule | Sabotage::LogWarning => ticks,
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
