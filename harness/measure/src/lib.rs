// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measuring: a plan, or a commit, becomes results, in as many guests at once as there shall be.
//!
//! Must not know: what follows from the results.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod closure;
pub mod commit;
pub mod kernel;
mod lab;
pub mod look;
pub mod pack;
mod progress;
mod run;
pub mod steps;

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{bail, Context, Result};
use jiff::Timestamp;

pub use lab::{kernels, ready, Lab};
pub use run::measure;

use mutexlab_model::mode::Mode;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::{Results, Selection};
use mutexlab_scenario::plan::{Plan, Shard};
use mutexlab_scenario::ScenarioFile;

/// How many guests run side by side. Instructions can be counted in as many as there are cores;
/// time is measured in one alone.
///
/// # Errors
/// If the cores cannot be counted.
pub fn jobs(wanted: Option<NonZeroUsize>, mode: Mode) -> Result<usize> {
    match (wanted, mode) {
        (Some(jobs), _) => Ok(jobs.get()),
        (None, Mode::Virtual) => Ok(std::thread::available_parallelism()
            .context("cannot count the CPUs")?
            .get()),
        (None, Mode::Wall) => Ok(1),
    }
}

/// New results in `directory`, of all that there is in the plan.
///
/// # Errors
/// As [`measure`], or if results cannot be written.
pub fn measure_anew(
    lab: &Lab<'_>,
    scenario: &ScenarioFile,
    plan: &Plan,
    selection: Selection,
    directory: &Path,
    jobs: usize,
) -> Result<ResultsFile> {
    let (closure, now) = (lab.closure.clone(), Timestamp::now());
    let mut file = ResultsFile::create(directory, scenario, selection, closure, now)?;
    measure(lab, plan, jobs, &mut file)?;
    Ok(file)
}

/// Leaves in the plan what is wanted of it.
pub fn select(plan: &mut Plan, scenario: &str, selection: &Selection) -> Result<()> {
    if let Some(filter) = &selection.filter {
        plan.retain(|_, cell| filter.admits(&cell.id));
        if plan.boots.is_empty() {
            bail!("no cell of {scenario} is of the filter {filter}: see --plan");
        }
    }
    if let Some(text) = &selection.shard {
        let shard: Shard = text.parse()?;
        plan.shard(shard);
        if plan.boots.is_empty() {
            bail!("shard {shard} of {scenario} has no cells: use fewer");
        }
    }
    Ok(())
}

/// Fails unless a run can be gone on with: all that numbers depend on has to be as it was.
pub fn check_conditions(
    lab: &Lab<'_>,
    scenario: &ScenarioFile,
    results: &ResultsFile,
) -> Result<()> {
    let mut differences = lab.closure.differences(&results.results().closure)?;
    let (then, now) = (results.results().lens, scenario.scenario.lens);
    if then != now {
        differences.push(format!("the lens: then {then:?}, now {now:?}"));
    }
    if !differences.is_empty() {
        bail!(
            "{} cannot be finished: it was begun under other conditions, and its numbers would \
             not be comparable\n  {}\nRun `mutexlab bench` anew, or restore the conditions.",
            results.path().display(),
            differences.join("\n  ")
        );
    }
    Ok(())
}

/// Takes the cells out of the plan that a run has. What our own machinery spoilt says nothing, and
/// is measured again.
pub fn skip_finished(plan: &mut Plan, results: &Results) {
    plan.retain(|boot, cell| {
        !results.cells.iter().any(|record| {
            record.id == cell.id
                && record.repetition == boot.repetition
                && record.verdict != Verdict::Infra
        })
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The cells of a selection of scenarios/quick.toml, of which a run without cells goes on.
    fn selected(filter: Option<&str>, shard: Option<&str>) -> Vec<String> {
        let file = mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR")))
            .unwrap()
            .join("scenarios/quick.toml");
        let scenario = ScenarioFile::load(&file).unwrap();
        let mut plan = Plan::new(&scenario.scenario).unwrap();
        let selection = Selection {
            filter: filter.map(|text| text.parse().unwrap()),
            shard: shard.map(str::to_owned),
        };
        select(&mut plan, "quick", &selection).unwrap();
        let cells = plan.boots.iter().flat_map(|boot| &boot.cells);
        cells.map(|cell| cell.id.clone()).collect()
    }

    #[test]
    fn shards_of_a_selection_are_all_of_it() {
        for filter in [None, Some("module")] {
            let mut parts = selected(filter, Some("1/2"));
            parts.extend(selected(filter, Some("2/2")));
            let mut whole = selected(filter, None);
            assert!(!whole.is_empty());
            parts.sort();
            whole.sort();
            assert_eq!(parts, whole);
        }
    }
}
