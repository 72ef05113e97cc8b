// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a report shows of HEAD, measured as far as it was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::archive::{Archive, Warning};
use super::run::Run;
use crate::interrupt::{self, Interrupt, Interrupted};
use crate::paths;
use crate::plan::Plan;
use crate::results::closure::Tree;
use crate::scenario::ScenarioFile;

/// The scenarios that are measured, as far as there are such files, in the order of the report.
/// Others would make it wait longer, and are shown if there are results of them.
pub const SCENARIOS: [&str; 6] = [
    "quick",
    "baselines",
    "ablation",
    "flows",
    "scaling",
    "latency",
];

/// Measures what `archive` has no results of at HEAD. What fails becomes a warning: it must not
/// keep the rest from being shown.
///
/// # Errors
/// If git fails, or the user interrupts.
pub fn missing(repository: &Path, archive: &Archive) -> Result<Vec<Warning>> {
    let interrupt = Interrupt::install()?;
    let tree = Tree::of(repository)?;
    let mut warnings = Vec::new();
    for name in SCENARIOS {
        let file = repository.join("scenarios").join(format!("{name}.toml"));
        if !file.is_file() {
            continue;
        }
        // Files that differ may differ otherwise now.
        let measured = !tree.dirty
            && ScenarioFile::load(&file)
                .is_ok_and(|scenario| is_measured(&scenario, archive, &tree.commit));
        if measured {
            eprintln!("{name}: measured before at this commit");
            continue;
        }
        eprintln!("{name}: measuring {}", file.display());
        let start = Instant::now();
        // A process of its own, as a person would run it.
        let status = Command::new(paths::this_program())
            .arg("bench")
            .arg(&file)
            .current_dir(repository)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("cannot run this program again")?;
        interrupt.check()?;
        eprintln!("{name}: {:.0} s", start.elapsed().as_secs_f64());
        match status.code() {
            Some(0) => {}
            Some(interrupt::EXIT_CODE) => return Err(Interrupted.into()),
            Some(1) => warnings.push(Warning::new(
                name,
                "a cell or a boot ended badly, see below",
            )),
            _ => warnings.push(Warning::new(
                name,
                format!("could not be measured: `mutexlab bench scenarios/{name}.toml` says why"),
            )),
        }
    }
    Ok(warnings)
}

/// Whether all that the scenario plans was measured at this commit.
fn is_measured(scenario: &ScenarioFile, archive: &Archive, head: &str) -> bool {
    let Ok(plan) = Plan::new(&scenario.scenario) else {
        // Measuring will say what is wrong with it.
        return false;
    };
    let of_head: Vec<&Run> = archive
        .runs
        .iter()
        .filter(|run| run.scenario == scenario.name && run.commit == head && !run.dirty)
        .collect();
    let measured = |id: &str| {
        of_head
            .iter()
            .flat_map(|run| &run.cells)
            // What our own machinery spoilt says nothing.
            .any(|cell| cell.id == id && cell.verdict() != "infra")
    };
    plan.boots
        .iter()
        .flat_map(|boot| &boot.cells)
        .all(|cell| measured(&cell.id))
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    #[test]
    fn what_is_there_is_not_measured_again() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/quick.toml");
        let scenario = ScenarioFile::load(&path).unwrap();
        let plan = Plan::new(&scenario.scenario).unwrap();
        let mut run = synthetic::run(&synthetic::quick(1));
        let like = run.cells.remove(0);
        run.cells = plan
            .boots
            .iter()
            .flat_map(|boot| &boot.cells)
            .map(|cell| super::super::cell::Cell {
                id: cell.id.clone(),
                ..like.clone()
            })
            .collect();
        let head = run.commit.clone();
        let mut archive = Archive::default();
        archive.add(run);
        assert!(is_measured(&scenario, &archive, &head));
        assert!(!is_measured(&scenario, &archive, synthetic::COMMITS[0]));
        // A run that was cut short.
        archive.runs[0].cells.pop();
        assert!(!is_measured(&scenario, &archive, &head));
    }
}
