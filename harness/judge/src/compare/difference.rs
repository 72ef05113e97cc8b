// SPDX-License-Identifier: MIT OR Apache-2.0

//! What differs between two runs, and which way.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::finding::{Change, Finding, Judgement};
use super::pairing::Pairing;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::slim::{Cell, Run};

/// Which of the metrics are looked at, and how much is told.
#[derive(Clone, Debug, Default)]
pub struct Shown<'a> {
    /// Only metrics with this in their names.
    pub metric: Option<&'a str>,
    /// Tell of what has not changed, too.
    pub all: bool,
}

/// What differs between two runs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Difference<'a> {
    /// Cells that are in both.
    pub cells: usize,
    /// Those of them of which anything has changed.
    pub changed_cells: usize,
    /// What was found, by what matters: ends of cells, exact metrics by relative size, modelled
    /// ones, sampled ones.
    pub findings: Vec<Finding<'a>>,
    /// Sampled metrics that too few boots tell of.
    pub undecided: usize,
    /// Cells that ended badly on both sides, so that there is nothing to compare.
    pub bad_in_both: Vec<&'a str>,
    /// Cells that only A has.
    pub only_a: Vec<&'a str>,
    /// Cells that only B has.
    pub only_b: Vec<&'a str>,
    /// Metrics that only A has, of any cell that is in both.
    pub metrics_only_a: Vec<&'a str>,
    /// Metrics that only B has.
    pub metrics_only_b: Vec<&'a str>,
}

impl<'a> Difference<'a> {
    /// Compares `b` with `a`. Whether that makes sense is for
    /// [`Comparable`](super::comparable::Comparable) to say.
    pub fn of(a: &'a Run, b: &'a Run, shown: &Shown<'_>) -> Self {
        let mut found = Self {
            cells: 0,
            changed_cells: 0,
            findings: Vec::new(),
            undecided: 0,
            bad_in_both: Vec::new(),
            only_a: only(a, b),
            only_b: only(b, a),
            metrics_only_a: Vec::new(),
            metrics_only_b: Vec::new(),
        };
        let mut pairing = Pairing::of(&a.definitions, &b.definitions, shown.metric);
        for (id, ours) in &a.cells {
            let Some(theirs) = b.cells.get(id) else {
                continue;
            };
            found.cells += 1;
            let before = found.findings.len();
            found.cell(id, ours, theirs, &mut pairing, shown);
            let new = found.findings.get(before..).unwrap_or_default();
            if new.iter().any(|finding| finding.judgement.is_change()) {
                found.changed_cells += 1;
            }
        }
        (found.metrics_only_a, found.metrics_only_b) = pairing.unpaired();
        found.sort(&pairing);
        found
    }

    /// How many findings are of this kind.
    pub fn count(&self, judgement: Judgement) -> usize {
        let same = |finding: &&Finding<'_>| finding.judgement == judgement;
        self.findings.iter().filter(same).count()
    }

    /// Cells that have no numbers on one side or both.
    pub fn unjudged_cells(&self) -> usize {
        let unmeasured = |finding: &&Finding<'_>| finding.is_unmeasured();
        self.findings.iter().filter(unmeasured).count() + self.bad_in_both.len()
    }

    /// Whether a comparison can let this pass: 0 if nothing is worse, 1 if something is or an exact
    /// metric varies, 2 if a cell that one side measured the other could not.
    pub fn exit_code(&self) -> i32 {
        let is_bad = |finding: &Finding<'_>| {
            let varies = matches!(finding.change, Change::Varies { .. });
            varies || finding.judgement == Judgement::Regressed
        };
        if self.findings.iter().any(is_bad) {
            1
        } else if self.findings.iter().any(Finding::is_unmeasured) {
            2
        } else {
            0
        }
    }

    fn cell(
        &mut self,
        id: &'a str,
        a: &'a Cell,
        b: &'a Cell,
        pairing: &mut Pairing<'a>,
        shown: &Shown<'_>,
    ) {
        let ((from, why_from), (to, why_to)) = (a.verdict(), b.verdict());
        if from != to {
            self.findings.push(Finding {
                cell: id,
                judgement: Judgement::of_verdicts(from, to),
                change: Change::Verdict {
                    from,
                    to,
                    reason: if to > from { why_to } else { why_from },
                },
            });
            return;
        }
        if from != Verdict::Ok {
            self.bad_in_both.push(id);
            return;
        }
        for (ours, theirs) in pairing.pairs(a, b) {
            let finding = Finding::of(id, &ours, &theirs, shown.all);
            if finding.judgement == Judgement::Undecided {
                self.undecided += 1;
            }
            if shown.all || finding.judgement.is_change() {
                self.findings.push(finding);
            }
        }
    }

    /// What matters first; what is of one cell stays together.
    fn sort(&mut self, pairing: &Pairing<'a>) {
        let mut largest: BTreeMap<(u8, &str), f64> = BTreeMap::new();
        for finding in &self.findings {
            let size = largest
                .entry((finding.change.rank(), finding.cell))
                .or_insert(0.0);
            *size = size.max(finding.change.relative());
        }
        self.findings.sort_by_cached_key(|finding| {
            let rank = finding.change.rank();
            let size = largest.get(&(rank, finding.cell)).copied().unwrap_or(0.0);
            // Sizes are not negative, and their bits are in their order then.
            let by_size = std::cmp::Reverse(size.to_bits());
            let metric = finding.change.metric().map(|metric| pairing.place(metric));
            // That a cell was not measured matters, though nobody knows which way.
            let judged = if rank == 0 {
                0
            } else {
                finding.judgement.rank()
            };
            (judged, rank, by_size, finding.cell, metric)
        });
    }
}

fn only<'a>(these: &'a Run, those: &Run) -> Vec<&'a str> {
    let ids = these.cells.keys();
    ids.filter(|id| !those.cells.contains_key(*id))
        .map(String::as_str)
        .collect()
}
