// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where counts moved between two kernels, by what the lens kept beside results.

use anyhow::Result;
use serde::Serialize;

use mutexlab_lens_analysis::analysis::Analysis;
use mutexlab_lens_analysis::file_name;
use mutexlab_lens_analysis::moved::{moved, Moved};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::CellRecord;

/// A kernel in a results file.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The file.
    pub file: &'a ResultsFile,
    /// What it calls the kernel.
    pub kernel: &'a str,
}

/// The functions of a cell whose instructions moved.
#[derive(Clone, Debug, Serialize)]
pub struct OfCell {
    /// The cell, named without its kernel.
    pub cell: String,
    /// The greatest change first.
    pub functions: Vec<Moved>,
}

/// The functions that moved from `a` to `b`, of each cell that the lens saw on both.
///
/// # Errors
/// If what the lens kept cannot be read.
pub fn between(a: Side<'_>, b: Side<'_>) -> Result<Vec<OfCell>> {
    let mut found = Vec::new();
    for (cell, before) in a.cells() {
        let Some((_, after)) = b.cells().find(|(name, _)| *name == cell) else {
            continue;
        };
        found.push(OfCell {
            cell: cell.to_owned(),
            functions: moved(&a.analysis(before)?, &b.analysis(after)?)?,
        });
    }
    Ok(found)
}

impl<'a> Side<'a> {
    /// Its cells that have numbers, in their first boots, by their names without it.
    fn cells(self) -> impl Iterator<Item = (&'a str, &'a CellRecord)> {
        let cells = self.file.results().cells.iter();
        cells.filter_map(move |cell| {
            let name = cell.id.strip_prefix(self.kernel)?.strip_prefix('/')?;
            (cell.repetition == 1 && cell.verdict == Verdict::Ok).then_some((name, cell))
        })
    }

    fn analysis(self, cell: &CellRecord) -> Result<Analysis> {
        let name = file_name(&cell.id, cell.repetition);
        Analysis::read(&self.file.log_directory().join(name))
    }
}
