// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comparing needs of a results file: much less than is in it. Histograms, counters and
//! console reports are skipped while reading, and every metric's name is kept once, so that two
//! runs of ten thousand cells fit into a fraction of their files' size.

mod run;
mod stored;

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::record::SCHEMA;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;
pub use run::{Cell, CellBoot, Definition, Run};
use stored::{File, OldTraffic};

impl Run {
    /// Reads a results file, also of the format before this program's.
    ///
    /// # Errors
    /// If it cannot be read or is no results file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Reads two results files, one beside the other.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_both(a: &Path, b: &Path) -> Result<(Self, Self)> {
        let (a, b) = thread::scope(|scope| {
            let a = scope.spawn(|| Self::read(a));
            let b = Self::read(b);
            (a.join(), b)
        });
        Ok((a.unwrap_or_else(|panic| resume_unwind(panic))?, b?))
    }

    /// Reads a results file's text.
    ///
    /// # Errors
    /// If it is not the text of a results file.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: Option<u32>,
        }
        let wrong = match serde_json::from_str::<File<Traffic>>(text) {
            Ok(file) if file.schema == SCHEMA => return Ok(file.into_run(path)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let version: Version = serde_json::from_str(text)
            .with_context(|| format!("{} is no JSON object", path.display()))?;
        match (version.schema, wrong) {
            (Some(1), _) => serde_json::from_str::<File<OldTraffic>>(text)
                .map(|file| file.into_run(path))
                .with_context(|| format!("{} is no results file", path.display())),
            (Some(SCHEMA), Some(error)) => {
                Err(error).with_context(|| format!("{} is no results file", path.display()))
            }
            (Some(schema), _) => bail!(
                "{} is of schema {schema}, but this program reads 1 to {SCHEMA}",
                path.display()
            ),
            (None, _) => bail!(
                "{} names no schema, so it is no results file",
                path.display()
            ),
        }
    }

    /// All that is not about cells.
    #[must_use]
    pub fn clone_without_cells(other: &Self) -> Self {
        Self {
            path: other.path.clone(),
            scenario: other.scenario.clone(),
            mode: other.mode,
            started: other.started.clone(),
            filter: other.filter.clone(),
            lens: other.lens,
            closure: other.closure.clone(),
            definitions: Vec::new(),
            cells: BTreeMap::new(),
        }
    }

    /// Whether every cell of `scenario` that `filter` chooses was measured to its end.
    ///
    /// # Errors
    /// If the scenario amounts to nothing.
    pub fn is_complete(&self, scenario: &ScenarioFile, filter: Option<&Filter>) -> Result<bool> {
        let plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        Ok(plan.boots.iter().all(|boot| {
            boot.cells
                .iter()
                .filter(|cell| filter.is_none_or(|filter| filter.admits(&cell.id)))
                .all(|planned| {
                    let cell = self.cells.get(&planned.id);
                    let record = cell.and_then(|cell| cell.boots.get(&boot.repetition));
                    record.is_some_and(|record| record.verdict != Verdict::Infra)
                })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_unknown_schema_is_refused() {
        for (text, part) in [
            ("{\"schema\": 99}", "schema 99"),
            ("{}", "names no schema"),
            ("[]", "no JSON object"),
            ("{\"schema\": 1}", "no results file"),
        ] {
            let error = Run::parse(Path::new("a.json"), text).unwrap_err();
            let error = format!("{error:#}");
            assert!(
                error.starts_with("a.json") && error.contains(part),
                "{error}"
            );
        }
    }
}
