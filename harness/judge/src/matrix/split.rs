// SPDX-License-Identifier: MIT OR Apache-2.0

//! What of a difference between two kernels is the kernel's, and what has to do with a subject.
//!
//! A packet's path is split into three parts that add up: what it costs with no subject at all,
//! what the subject adds in the hooks, and what it causes or saves elsewhere. The first is the
//! kernel's, whatever is loaded. docs/kernels.md says what the others can and cannot tell.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::{HOOK_MEAN, PATH_MEAN};
use mutexlab_results::record::CellRecord;

/// What a subject adds to a packet's path, in instructions (mode `wall`: nanoseconds).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Part {
    /// Between the first and the last of netfilter's hooks: the subject's own work, that of the
    /// kernel's functions which it calls, and the calls of hooks.
    pub hooks: f64,
    /// Outside the hooks; below zero where the subject saves work.
    pub elsewhere: f64,
}

/// What a packet of some traffic costs on a kernel, in instructions (mode `wall`: nanoseconds).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cost {
    /// The whole path with no subject: generator, links, routing, empty hooks, receiver.
    pub none: f64,
    /// What the kernel's NAT adds.
    pub nft_dnat: Part,
    /// What the module adds.
    pub module: Part,
}

impl Part {
    fn minus(self, other: Part) -> Part {
        Part {
            hooks: self.hooks - other.hooks,
            elsewhere: self.elsewhere - other.elsewhere,
        }
    }

    /// All that it adds.
    pub fn sum(self) -> f64 {
        self.hooks + self.elsewhere
    }
}

impl Cost {
    /// From the cells of one kernel with this traffic; none if one of the three is no pass.
    fn of<'a>(cells: impl Iterator<Item = &'a CellRecord> + Clone) -> Option<Cost> {
        let metrics = |subject| {
            let cell = cells
                .clone()
                .find(|cell| cell.subject == subject && cell.verdict == Verdict::Ok)?;
            Some((cell.metric(PATH_MEAN)?, cell.metric(HOOK_MEAN)?))
        };
        let (none, _) = metrics(Subject::NONE)?;
        let part = |subject| {
            let (path, hooks) = metrics(subject)?;
            Some(Part {
                hooks,
                elsewhere: path - none - hooks,
            })
        };
        Some(Cost {
            none,
            nft_dnat: part(Subject::NFT_DNAT)?,
            module: part(Subject::MODULE)?,
        })
    }

    fn minus(self, other: Cost) -> Cost {
        Cost {
            none: self.none - other.none,
            nft_dnat: self.nft_dnat.minus(other.nft_dnat),
            module: self.module.minus(other.module),
        }
    }

    /// The whole path with the module.
    pub fn with_module(self) -> f64 {
        self.none + self.module.sum()
    }
}

/// One traffic on one kernel, beside the same on the kernel of reference.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Split {
    /// The traffic's name, as cells have it.
    pub traffic: String,
    /// The traffic.
    #[serde(skip)]
    pub details: Traffic,
    /// The kernel.
    pub kernel: String,
    /// What it costs there.
    pub cost: Cost,
    /// How much more it costs there than on the kernel of reference; none for that itself, and if
    /// it is not known for that.
    pub more: Option<Cost>,
}

/// All traffics on all kernels, those of `reference` first, in the order of the cells. What was
/// not measured well is left out.
pub fn splits(cells: &[CellRecord], reference: &str) -> Vec<Split> {
    let mut traffics: Vec<Traffic> = Vec::new();
    for cell in cells {
        if !traffics.contains(&cell.traffic) {
            traffics.push(cell.traffic);
        }
    }
    let others: BTreeSet<&str> = cells
        .iter()
        .map(|cell| cell.kernel.as_str())
        .filter(|&kernel| kernel != reference)
        .collect();
    let mut splits = Vec::new();
    for traffic in traffics {
        let cost = |kernel: &str| {
            Cost::of(
                cells
                    .iter()
                    .filter(|cell| cell.kernel == kernel && cell.traffic == traffic),
            )
        };
        let base = cost(reference);
        for kernel in std::iter::once(reference).chain(others.iter().rev().copied()) {
            if let Some(cost) = cost(kernel) {
                splits.push(Split {
                    traffic: traffic.name(),
                    details: traffic,
                    kernel: kernel.to_owned(),
                    cost,
                    more: base
                        .filter(|_| kernel != reference)
                        .map(|base| cost.minus(base)),
                });
            }
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::sample;

    #[test]
    fn the_parts_add_up_to_the_path() {
        let cells = sample::cells("7.3", [1000.0, 1450.0, 1130.0], [0.0, 500.0, 180.0]);
        let found = splits(&cells, "7.3");
        let [split] = found.as_slice() else { panic!() };
        assert_eq!(split.cost.none, 1000.0);
        assert_eq!(split.cost.nft_dnat.hooks, 500.0);
        assert_eq!(split.cost.nft_dnat.elsewhere, -50.0);
        assert_eq!(split.cost.module.elsewhere, -50.0);
        assert_eq!(split.cost.with_module(), 1130.0);
        assert_eq!(split.more, None);
    }

    #[test]
    fn what_everybody_pays_is_the_kernel_s() {
        let mut cells = sample::cells("7.3", [1000.0, 1500.0, 1180.0], [0.0, 500.0, 180.0]);
        // The kernel takes 300 more for each packet, and 20 more in the hooks with the module.
        cells.extend(sample::cells(
            "6.12",
            [1300.0, 1800.0, 1500.0],
            [0.0, 500.0, 200.0],
        ));
        let found = splits(&cells, "7.3");
        let more = found[1].more.unwrap();
        assert_eq!(found[1].kernel, "6.12");
        assert_eq!(more.none, 300.0);
        assert_eq!(more.nft_dnat.sum(), 0.0);
        assert_eq!(more.module.hooks, 20.0);
        assert_eq!(more.module.elsewhere, 0.0);
        assert_eq!(more.with_module(), 320.0);
    }

    #[test]
    fn what_is_no_pass_is_not_compared() {
        let mut cells = sample::cells("7.3", [1.0; 3], [0.0; 3]);
        cells.extend(sample::cells("6.12", [1.0; 3], [0.0; 3]));
        cells[0].verdict = Verdict::Failed;
        let found = splits(&cells, "7.3");
        let [split] = found.as_slice() else { panic!() };
        assert_eq!((split.kernel.as_str(), split.more), ("6.12", None));
    }
}
