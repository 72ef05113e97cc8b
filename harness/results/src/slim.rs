// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comparing needs of a results file: much less than is in it. Histograms, counters and
//! console reports are skipped while reading, and every metric's name is kept once, so that two
//! runs of ten thousand cells fit into a fraction of their files' size.

mod stored;

use std::collections::BTreeMap;
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::closure::Closure;
use crate::metrics::{Better, Kind, Unit};
use crate::record::SCHEMA;
use mutexlab_model::mode::Mode;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;
use stored::{File, OldTraffic};

/// The run of a results file.
#[derive(Clone, Debug)]
pub struct Run {
    /// The file.
    pub path: PathBuf,
    /// The scenario's name.
    pub scenario: String,
    /// What time is counted in.
    pub mode: Mode,
    /// When the run began.
    pub started: String,
    /// Which cells were chosen, unless all were.
    pub filter: Option<Filter>,
    /// The caches that the lens modelled, if it looked on.
    pub lens: Option<Machine>,
    /// Everything that the numbers depend on.
    pub closure: Closure,
    /// What the metrics are, in the order in which the file first names them.
    pub definitions: Vec<Definition>,
    /// The cells by id.
    pub cells: BTreeMap<String, Cell>,
}

/// What a metric is, apart from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// Whether a repetition must give the same number.
    pub kind: Kind,
}

/// A cell in all its boots.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The kernel's name.
    pub kernel: String,
    /// The packets.
    pub traffic: Traffic,
    /// What it gave in each boot, by repetition.
    pub boots: BTreeMap<u32, CellBoot>,
}

/// A cell in one boot.
#[derive(Clone, Debug)]
pub struct CellBoot {
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless it is ok.
    pub reason: Option<String>,
    /// Index of the definition, and the number.
    pub values: Vec<(usize, f64)>,
}

impl Cell {
    /// Its worst end, and why.
    pub fn verdict(&self) -> (Verdict, Option<&str>) {
        let worst = self.boots.values().max_by_key(|boot| boot.verdict);
        worst.map_or((Verdict::Infra, None), |boot| {
            (boot.verdict, boot.reason.as_deref())
        })
    }
}

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
