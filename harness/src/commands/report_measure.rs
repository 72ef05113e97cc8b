// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a report shows of HEAD, measured as far as it was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use mutexlab_host::interrupt;
use mutexlab_host::interrupt::{Interrupt, Interrupted};
use mutexlab_host::parent;
use mutexlab_host::paths;
use mutexlab_measure::closure::tree;
use mutexlab_report::archive::{Archive, Warning};
use mutexlab_report::run::Run;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;

/// A scenario that is measured for the report.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Its name.
    pub scenario: &'static str,
    /// Which of its cells, as a [`Filter`]; all, if there is none.
    filter: Option<&'static str>,
}

/// What is measured, as far as there are such files, in the order of the report. Other scenarios and
/// cells would make it wait longer than a few minutes, and are shown if there are results of them.
pub const MEASURED: [Measured; 6] = [
    Measured::all("quick"),
    Measured::all("baselines"),
    Measured::all("ablation"),
    // A million takes as long to establish as all the rest of the report; TCP behaves alike.
    Measured {
        scenario: "flows",
        filter: Some("udp !-1000000flows"),
    },
    // Guest CPUs share one of the host's: 64 take the time of all the rest, too.
    Measured {
        scenario: "scaling",
        filter: Some("udp !/32cpu !/64cpu"),
    },
    Measured {
        scenario: "latency",
        filter: Some("udp"),
    },
];

impl Measured {
    const fn all(scenario: &'static str) -> Self {
        Self {
            scenario,
            filter: None,
        }
    }

    /// `mutexlab bench` with what measures it.
    fn bench(&self, file: &Path) -> Command {
        let mut command = Command::new(paths::this_program());
        command.arg("bench").arg(file);
        if let Some(filter) = self.filter {
            command.args(["--filter", filter]);
        }
        command
    }
}

/// Measures what `archive` has no results of at HEAD. What fails becomes a warning: it must not
/// keep the rest from being shown.
///
/// # Errors
/// If git fails, or the user interrupts.
pub fn missing(repository: &Path, archive: &Archive) -> Result<Vec<Warning>> {
    let interrupt = Interrupt::install()?;
    let tree = tree(repository)?;
    let mut warnings = Vec::new();
    for wanted in MEASURED {
        let name = wanted.scenario;
        let file = repository.join("scenarios").join(format!("{name}.toml"));
        if !file.is_file() {
            continue;
        }
        // Files that differ may differ otherwise now.
        let measured = !tree.dirty
            && ScenarioFile::load(&file)
                .is_ok_and(|scenario| is_measured(&scenario, wanted.filter, archive, &tree.commit));
        if measured {
            eprintln!("{name}: measured before at this commit");
            continue;
        }
        eprintln!("{name}: measuring {}", file.display());
        let start = Instant::now();
        // A process of its own, as a person would run it.
        let mut bench = wanted.bench(&file);
        parent::ends_it(&mut bench).context("cannot prepare this program to run again")?;
        let status = bench
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

/// Whether all that the scenario plans, or those of its cells that are wanted, was measured at this
/// commit.
fn is_measured(
    scenario: &ScenarioFile,
    filter: Option<&str>,
    archive: &Archive,
    head: &str,
) -> bool {
    let Ok(plan) = Plan::new(&scenario.scenario) else {
        // Measuring will say what is wrong with it.
        return false;
    };
    let filter: Option<Filter> = filter.and_then(|filter| filter.parse().ok());
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
        .filter(|cell| filter.as_ref().is_none_or(|filter| filter.admits(&cell.id)))
        .all(|cell| measured(&cell.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_report::synthetic;

    #[test]
    fn every_filter_leaves_cells_out_and_others_in() {
        for wanted in MEASURED {
            let name = format!("../scenarios/{}.toml", wanted.scenario);
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let scenario = ScenarioFile::load(&path).unwrap();
            let Some(filter) = wanted.filter else {
                continue;
            };
            let Ok(filter) = filter.parse::<Filter>();
            let plan = Plan::new(&scenario.scenario).unwrap();
            let cells = || plan.boots.iter().flat_map(|boot| &boot.cells);
            assert!(cells().any(|cell| filter.admits(&cell.id)), "{filter}");
            assert!(!cells().all(|cell| filter.admits(&cell.id)), "{filter}");
        }
    }

    #[test]
    fn what_is_there_is_not_measured_again() {
        let path = mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR")))
            .unwrap()
            .join("scenarios/quick.toml");
        let scenario = ScenarioFile::load(&path).unwrap();
        let plan = Plan::new(&scenario.scenario).unwrap();
        let mut run = synthetic::run(&synthetic::quick(1));
        let like = run.cells.remove(0);
        run.cells = plan
            .boots
            .iter()
            .flat_map(|boot| &boot.cells)
            .map(|cell| mutexlab_report::cell::Cell {
                id: cell.id.clone(),
                ..like.clone()
            })
            .collect();
        let head = run.commit.clone();
        let mut archive = Archive::default();
        archive.add(run);
        assert!(is_measured(&scenario, None, &archive, &head));
        assert!(!is_measured(
            &scenario,
            None,
            &archive,
            synthetic::COMMITS[0]
        ));
        // A run that was cut short.
        let missing = archive.runs[0].cells.pop().unwrap();
        assert!(!is_measured(&scenario, None, &archive, &head));
        let others = format!("!{}", missing.id);
        assert!(is_measured(&scenario, Some(&others), &archive, &head));
    }
}
