// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a scenario amounts to: boots, and the cells that each measures. The plan is data; making
//! it touches nothing.

mod boots;
mod cells;
mod combine;
mod filter;
mod guests;
mod on;
mod shard;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Serialize;

pub use cells::variant;
pub use combine::Combination;
pub use filter::Filter;
pub use shard::Shard;

use crate::question::Scenario;
use mutexlab_model::mode::Mode;
use mutexlab_protocol::GuestCell;
use toml_mistake::Mistake;

/// Everything that is to be done, in order.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Plan {
    /// The boots, none of them empty.
    pub boots: Vec<PlannedBoot>,
}

/// Cells that share a kernel and a number of CPUs are measured in one boot.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PlannedBoot {
    /// Stable name, such as `7.3/1cpu/boot1`.
    pub id: String,
    /// The kernel's name.
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Which repetition it is, from 1.
    pub repetition: u32,
    /// What its random numbers come from.
    pub seed: u32,
    /// The cells, in the order of measuring.
    pub cells: Vec<GuestCell>,
}

impl Plan {
    /// All that a scenario's lists amount to.
    ///
    /// # Errors
    /// If the scenario excludes what it does not ask for, or everything.
    pub fn new(scenario: &Scenario) -> Result<Self, Mistake> {
        let mut used = vec![false; scenario.exclude.len()];
        let mut machines = Vec::new();
        for kernel in &scenario.kernels {
            for &cpus in &scenario.cpus {
                let mut cells = cells::cells(scenario, &format!("{kernel}/{cpus}cpu"), cpus);
                cells.retain(|cell| {
                    let mut excluded = false;
                    for (exclusion, used) in scenario.exclude.iter().zip(&mut used) {
                        if exclusion.holds(kernel, cpus, cell) {
                            *used = true;
                            excluded = true;
                        }
                    }
                    !excluded
                });
                for cell in &cells {
                    scenario.check_cell(&cell.traffic)?;
                }
                machines.push((kernel, cpus, cells));
            }
        }
        if let Some(index) = used.iter().position(|used| !used) {
            let message = "this excludes nothing: no cell is like it";
            return Err(Mistake::at("exclude", message).element(index));
        }
        if machines.iter().all(|(_, _, cells)| cells.is_empty()) {
            return Err(Mistake::at("exclude", "every cell is excluded"));
        }
        Ok(Self {
            boots: match scenario.mode {
                Mode::Virtual => guests::cut(boots::one_after_another(scenario, &machines)),
                Mode::Wall => boots::interleaved(scenario, &machines),
            },
        })
    }

    /// Keeps the cells of one shard.
    pub fn shard(&mut self, shard: Shard) {
        let mut place = 0;
        for boot in &mut self.boots {
            boot.cells.retain(|_| {
                place += 1;
                shard.has(place - 1)
            });
        }
        self.boots.retain(|boot| !boot.cells.is_empty());
    }

    /// Keeps the cells that `keep` says to keep, and the boots that still have one.
    pub fn retain(&mut self, keep: impl Fn(&PlannedBoot, &GuestCell) -> bool) {
        for boot in &mut self.boots {
            let cells = std::mem::take(&mut boot.cells);
            boot.cells = cells.into_iter().filter(|cell| keep(boot, cell)).collect();
        }
        self.boots.retain(|boot| !boot.cells.is_empty());
    }

    /// How many cells there are in all boots.
    pub fn cells(&self) -> usize {
        self.boots.iter().map(|boot| boot.cells.len()).sum()
    }

    /// The kernels' names, each once.
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.boots.iter().map(|boot| boot.kernel.as_str()).collect();
        names.dedup();
        names
    }
}
