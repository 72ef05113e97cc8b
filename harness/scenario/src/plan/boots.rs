// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which cells are measured in which boots, and in which order.

use super::PlannedBoot;
use crate::question::Scenario;
use mutexlab_model::seed;
use mutexlab_protocol::GuestCell;

/// A kernel, a number of CPUs, and what is to be measured there.
pub(super) type Machine<'a> = (&'a String, u32, Vec<GuestCell>);

/// All cells of a machine in one boot.
pub(super) fn one_after_another(scenario: &Scenario, machines: &[Machine<'_>]) -> Vec<PlannedBoot> {
    let mut boots = Vec::new();
    for (kernel, cpus, cells) in machines {
        boots.extend(repetitions(scenario).map(|(repetition, seed)| PlannedBoot {
            id: format!("{kernel}/{cpus}cpu/boot{repetition}"),
            kernel: (*kernel).clone(),
            cpus: *cpus,
            repetition,
            seed,
            cells: cells.clone(),
        }));
    }
    boots.retain(|boot| !boot.cells.is_empty());
    boots
}

/// Repetitions, and the seed of each.
fn repetitions(scenario: &Scenario) -> impl Iterator<Item = (u32, u32)> + '_ {
    let seeds = scenario.seeds.as_deref().unwrap_or(&[seed::USUAL]);
    let again = seeds.iter().cycle();
    let count = scenario.boots.max(seeds.len() as u32);
    (1..=count).zip(again.copied())
}

/// A boot for each thing that is compared, again and again in turn, so that what changes on the
/// host meanwhile befalls all alike.
pub(super) fn interleaved(scenario: &Scenario, machines: &[Machine<'_>]) -> Vec<PlannedBoot> {
    let mut boots: Vec<PlannedBoot> = Vec::new();
    for repetition in 1..=scenario.boots {
        for (kernel, cpus, cells) in machines {
            let start = boots.len();
            for cell in cells {
                // The name without what is implied.
                let variant = cell.id.split('/').nth(2).unwrap_or(cell.subject.name());
                let id = format!("{kernel}/{cpus}cpu/{variant}/boot{repetition}");
                let there = boots[start..].iter().position(|boot| boot.id == id);
                let place = there.map_or(boots.len(), |index| start + index);
                if place == boots.len() {
                    boots.push(PlannedBoot {
                        id,
                        kernel: (*kernel).clone(),
                        cpus: *cpus,
                        repetition,
                        seed: seed::USUAL,
                        cells: Vec::new(),
                    });
                }
                boots[place].cells.push(cell.clone());
            }
        }
    }
    boots
}
