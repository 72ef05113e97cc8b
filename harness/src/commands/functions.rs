// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where counts moved between two kernels, by what the lens kept beside results.

use std::collections::BTreeMap;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_lens_analysis::analysis::Analysis;
use mutexlab_lens_analysis::file_name;
use mutexlab_lens_analysis::moved::{moved, Moved};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::CellRecord;
use mutexlab_scenario::ScenarioFile;

/// A kernel in a results file.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The file.
    pub file: &'a ResultsFile,
    /// What it calls the kernel.
    pub kernel: &'a str,
}

/// The functions of a cell whose instructions moved.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OfCell {
    /// The cell, named without its kernel.
    pub cell: String,
    /// The greatest change first.
    pub functions: Vec<Moved>,
}

/// So many boots tell what varies from what moved.
const BOOTS: u32 = 2;

/// Has the lens look on, in as many boots as it takes to tell what moved.
///
/// # Errors
/// If it cannot look on what this asks for.
pub fn look(scenario: &mut ScenarioFile) -> Result<()> {
    scenario.look()?;
    scenario.scenario.boots = scenario.scenario.boots.max(BOOTS);
    Ok(())
}

/// The functions that moved from `a` to `b`, of each cell that the lens saw on both.
///
/// # Errors
/// If what the lens kept cannot be read.
pub fn between(a: Side<'_>, b: Side<'_>) -> Result<Vec<OfCell>> {
    let mut found = Vec::new();
    let of_b = b.cells();
    for (cell, before) in a.cells() {
        let Some(after) = of_b.get(cell) else {
            continue;
        };
        found.push(OfCell {
            cell: cell.to_owned(),
            functions: moved(&a.analyses(&before)?, &b.analyses(after)?)?,
        });
    }
    Ok(found)
}

impl<'a> Side<'a> {
    /// Its cells that have numbers, boot by boot, by their names without it.
    fn cells(self) -> BTreeMap<&'a str, Vec<&'a CellRecord>> {
        let mut cells: BTreeMap<&str, Vec<&CellRecord>> = BTreeMap::new();
        for cell in &self.file.results().cells {
            let name = cell.id.strip_prefix(self.kernel);
            let name = name.and_then(|name| name.strip_prefix('/'));
            if let (Some(name), Verdict::Ok) = (name, cell.verdict) {
                cells.entry(name).or_default().push(cell);
            }
        }
        cells
    }

    fn analyses(self, boots: &[&CellRecord]) -> Result<Vec<Analysis>> {
        let read = |cell: &&CellRecord| {
            let name = file_name(&cell.id, cell.repetition);
            Analysis::read(&self.file.log_directory().join(name))
        };
        boots.iter().map(read).collect()
    }
}
