// SPDX-License-Identifier: MIT OR Apache-2.0

//! Boots of many cells, cut into guests that can run side by side.
//!
//! What a boot did before a cell shows in that cell's sampled numbers. So which cells share a guest follows from the plan alone,
//! and not from how many guests a machine can run at once.

use mutexlab_model::traffic::Traffic;

use super::PlannedBoot;

/// What one guest does at most, in round trips: some 40 cells of 1,000. A guest takes as long as six of these to boot.
const MOST: u64 = 64_000;

/// Each boot, or its parts.
pub(super) fn cut(boots: Vec<PlannedBoot>) -> Vec<PlannedBoot> {
    boots.into_iter().flat_map(parts).collect()
}

fn parts(boot: PlannedBoot) -> Vec<PlannedBoot> {
    let all: u64 = boot.cells.iter().map(|cell| effort(&cell.traffic)).sum();
    let parts = all.div_ceil(MOST);
    if parts <= 1 {
        return vec![boot];
    }
    // In the scenario's order, so that what is compared shares a guest.
    let mut split: Vec<PlannedBoot> = Vec::new();
    let (mut done, mut part) = (0, None);
    for cell in &boot.cells {
        let of_this = done * parts / all;
        done += effort(&cell.traffic);
        if part != Some(of_this) {
            part = Some(of_this);
            split.push(PlannedBoot {
                id: format!("{}/part{}", boot.id, split.len() + 1),
                cells: Vec::new(),
                ..boot.clone()
            });
        }
        if let Some(last) = split.last_mut() {
            last.cells.push(cell.clone());
        }
    }
    split
}

/// How long a cell takes, beside others: establishing a flow is about a fifth of a paced round
/// trip, and what every cell does is about 500 of these.
fn effort(traffic: &Traffic) -> u64 {
    const EACH: u64 = 500;
    EACH + u64::from(traffic.flows) / 5 + u64::from(traffic.load.packets() + traffic.warm_up)
}
