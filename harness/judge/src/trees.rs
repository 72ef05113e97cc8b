// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels beside each other of which one run has the same cells: what changed from the first to each of the others.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::compare::difference::{Difference, Shown};
use crate::compare::finding::{Change, Finding};
use mutexlab_results::metric::HOOK_MEAN;
use mutexlab_results::slim::{Cell, Run};

/// One kernel of a run and its cells, named without it: as such they can be compared with another's.
pub fn side(run: &Run, kernel: &str) -> Run {
    let prefix = format!("{kernel}/");
    let cells = run.cells.iter().filter(|(_, cell)| cell.kernel == kernel);
    let cells = cells.map(|(id, cell): (&String, &Cell)| {
        let name = id.strip_prefix(&prefix).unwrap_or(id);
        (name.to_owned(), cell.clone())
    });
    let mut side = Run {
        definitions: run.definitions.clone(),
        cells: cells.collect(),
        ..Run::clone_without_cells(run)
    };
    side.closure.kernels.retain(|name, _| name == kernel);
    side
}

/// What changed from the first kernel to each of the others.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Beside<'a> {
    /// The kernels' labels; the first is what the others are compared with.
    pub trees: Vec<&'a str>,
    /// How many cells the first has.
    pub cells: usize,
    /// Cell by cell.
    pub rows: Vec<Row<'a>>,
}

/// One metric of a cell, or how it ended.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Row<'a> {
    /// The cell, named without its kernel.
    pub cell: &'a str,
    /// The metric; null if it is about the cell's end.
    pub metric: Option<&'a str>,
    /// What was found on each of the others, beside the first; null if there is nothing to compare.
    pub found: Vec<Option<Finding<'a>>>,
}

impl Row<'_> {
    /// Whether it is other than on the first kernel on any of the others.
    pub fn is_change(&self) -> bool {
        let mut found = self.found.iter().flatten();
        found.any(|finding| finding.judgement.is_change())
    }

    /// Whether it is a number that a repetition may give otherwise.
    pub fn is_sampled(&self) -> bool {
        let mut found = self.found.iter().flatten();
        found.any(|finding| matches!(finding.change, Change::Sampled { .. }))
    }
}

impl<'a> Beside<'a> {
    /// Of sides of one run, in their order, with their labels.
    pub fn of(labels: &[&'a str], sides: &'a [Run]) -> Self {
        let all = Shown {
            metric: None,
            all: true,
        };
        let first = sides.first();
        let mut rows: BTreeMap<(&str, u8, usize), Row<'a>> = BTreeMap::new();
        let others = sides.len().saturating_sub(1);
        for (index, side) in sides.iter().skip(1).enumerate() {
            let Some(first) = first else { break };
            for finding in Difference::of(first, side, &all).findings {
                let metric = finding.change.metric();
                let place = metric.map_or(0, |metric| {
                    let mut names = first.definitions.iter().map(|definition| &definition.name);
                    1 + names
                        .position(|name| name == metric)
                        .unwrap_or(usize::MAX - 1)
                });
                // A verdict comes first, then what is asked for most.
                let rank = metric.map_or(0, |metric| 1 + u8::from(metric != HOOK_MEAN));
                // The name is the run's, and so outlives the finding.
                let metric = first.definitions.get(place.wrapping_sub(1));
                let row = rows
                    .entry((finding.cell, rank, place))
                    .or_insert_with(|| Row {
                        cell: finding.cell,
                        metric: metric.map(|definition| definition.name.as_str()),
                        found: vec![None; others],
                    });
                if let Some(found) = row.found.get_mut(index) {
                    *found = Some(finding);
                }
            }
        }
        Self {
            trees: labels.to_vec(),
            cells: first.map_or(0, |first| first.cells.len()),
            rows: rows.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::finding::Judgement;
    use mutexlab_results::sample::{exact, run, sampled};

    #[test]
    fn each_tree_is_beside_the_first() {
        let mut whole = run(&[
            (
                "before/a",
                &[&[exact("hook.mean", 7.0), sampled("path.mean", 90.0)]],
            ),
            (
                "after/a",
                &[&[exact("hook.mean", 8.0), sampled("path.mean", 91.0)]],
            ),
            (
                "later/a",
                &[&[exact("hook.mean", 7.0), sampled("path.mean", 90.0)]],
            ),
        ]);
        let labels = ["before", "after", "later"];
        for (id, cell) in &mut whole.cells {
            cell.kernel = id.split('/').next().unwrap().to_owned();
        }
        let sides = labels.map(|label| side(&whole, label));
        let beside = Beside::of(&labels, &sides);
        assert_eq!(beside.cells, 1);
        let [hook, path] = &beside.rows[..] else {
            panic!("{:?}", beside.rows)
        };
        assert_eq!((hook.cell, hook.metric), ("a", Some("hook.mean")));
        let judged: Vec<_> = hook
            .found
            .iter()
            .flatten()
            .map(|found| found.judgement)
            .collect();
        assert_eq!(judged, [Judgement::Regressed, Judgement::Unchanged]);
        assert!(hook.is_change() && !hook.is_sampled());
        assert!(path.is_sampled() && !path.is_change());
    }
}
