// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel's row: how its tests and its cells ended.

use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_model::stand_in::StandIn;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::outcome::{Outcome, Tally};
use mutexlab_results::record::Results;

/// All that is said of one kernel.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Row {
    /// The kernel.
    pub kernel: String,
    /// What `uname -r` says of the one that was measured; none if none was.
    pub release: Option<String>,
    /// What stood in for its pinned source, if that was gone.
    pub stand_in: Option<StandIn>,
    /// The worst of what follows; only if all is well it is.
    pub verdict: Verdict,
    /// What the tests ran on, such as `7.3:debug`; none if there were none.
    pub tested: Option<String>,
    /// How they ended.
    pub tests: Tally,
    /// How many cells were measured well.
    pub cells_ok: usize,
    /// How many there are.
    pub cells: usize,
    /// What went wrong, a line each.
    pub troubles: Vec<String>,
}

impl Row {
    /// Of `kernel`, with the cells of `results` and these tests.
    pub fn of(kernel: &str, results: &Results, outcomes: &[&Outcome], planned: usize) -> Row {
        let mut worst = Verdict::Ok;
        let mut troubles = Vec::new();
        for boot in &results.boots {
            if boot.verdict != Verdict::Ok && boot.id.split('/').next() == Some(kernel) {
                worst = worst.max(boot.verdict);
                let reason = boot.reason.as_deref().unwrap_or_default();
                troubles.push(format!(
                    "{} boot {}: {reason} ({})",
                    boot.verdict, boot.id, boot.console_log
                ));
            }
        }
        let cells: Vec<_> = (results.cells.iter())
            .filter(|cell| cell.kernel == kernel)
            .collect();
        for cell in cells.iter().filter(|cell| cell.verdict != Verdict::Ok) {
            worst = worst.max(cell.verdict);
            let reason = cell.reason.as_deref().unwrap_or_default();
            troubles.push(format!("{} cell {}: {reason}", cell.verdict, cell.id));
        }
        if cells.len() < planned {
            worst = worst.max(Verdict::Infra);
            troubles.push(format!("{} cells were not measured", planned - cells.len()));
        }
        for outcome in outcomes {
            let Some((verdict, why)) = outcome.trouble() else {
                continue;
            };
            worst = worst.max(verdict);
            troubles.push(format!("{verdict} test {}: {why}", outcome.test));
        }
        let closure = results.closure.kernels.get(kernel);
        Row {
            kernel: kernel.to_owned(),
            release: closure.map(|closure| closure.release.clone()),
            stand_in: closure.and_then(|closure| closure.stand_in.clone()),
            verdict: worst,
            tested: outcomes.first().map(|outcome| outcome.suite.clone()),
            tests: Tally::of(outcomes.iter().copied()),
            cells_ok: cells
                .iter()
                .filter(|cell| cell.verdict == Verdict::Ok)
                .count(),
            cells: planned.max(cells.len()),
            troubles,
        }
    }
}
