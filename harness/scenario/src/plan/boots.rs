// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which cells are measured in which boots, and in which order.

use super::PlannedBoot;
use crate::question::Scenario;
use mutexlab_protocol::GuestCell;

/// A kernel, a number of CPUs, and what is to be measured there.
pub(super) type Machine<'a> = (&'a String, u32, Vec<GuestCell>);

/// All cells of a machine in one boot.
pub(super) fn one_after_another(scenario: &Scenario, machines: &[Machine<'_>]) -> Vec<PlannedBoot> {
    let mut boots = Vec::new();
    for (kernel, cpus, cells) in machines {
        boots.extend((1..=scenario.boots).map(|repetition| PlannedBoot {
            id: format!("{kernel}/{cpus}cpu/boot{repetition}"),
            kernel: (*kernel).clone(),
            cpus: *cpus,
            repetition,
            cells: cells.clone(),
        }));
    }
    boots.retain(|boot| !boot.cells.is_empty());
    boots
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
                        cells: Vec::new(),
                    });
                }
                boots[place].cells.push(cell.clone());
            }
        }
    }
    boots
}
