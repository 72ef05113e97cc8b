// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bench`: measures what a scenario asks for.

pub mod closure;
mod lab;
mod progress;
mod run;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use jiff::Timestamp;

pub use lab::Lab;
pub use run::measure;

use crate::interrupt::{Interrupt, Interrupted};
use crate::kernel::NamedTree;
use crate::mode::Mode;
use crate::plan::{Filter, Plan, Shard};
use crate::results::file::{self, ResultsFile};
use crate::results::record::{Results, Selection};
use crate::scenario::ScenarioFile;
use crate::table::{Align, Table};
use crate::verdict::Verdict;
use crate::{json, paths, summary};

/// Measure what a scenario asks for, and tell what a packet costs
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab bench                             All of scenarios/quick.toml\n  \
    mutexlab bench --plan                      Only say what would be measured\n  \
    mutexlab bench --filter module/forward     Only the cells with this in their names\n  \
    mutexlab bench --filter '!module/'         Only those without\n  \
    mutexlab bench --filter 'udp !local'       All of it at once\n  \
    mutexlab bench --shard 2/5                 The second of five parts; `merge` joins them\n  \
    mutexlab bench --lens                      Count misses and lines of memory, too\n  \
    mutexlab bench --resume                    Finish the newest run that was cut short\n  \
    mutexlab bench --json | jq '.cells[].id'   The results for a program\n\n\
Exit codes: 0 if all is well, 1 if a cell ended badly, 2 if the bench could not run, 130 if interrupted.")]
pub struct BenchCommand {
    /// The question: a TOML file
    #[arg(value_name = "SCENARIO", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// Print the boots and their cells, and measure nothing
    #[arg(long)]
    plan: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART")]
    filter: Option<Filter>,
    /// Only one of several parts, such as 2/5; the others are for other machines
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Finish a run that was cut short: the newest of the scenario, or the one in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["plan", "filter", "shard"])]
    resume: Option<Option<PathBuf>>,
    /// Where results go, and where --resume looks [default: results/ of the repository]
    #[arg(long, value_name = "DIRECTORY")]
    results: Option<PathBuf>,
    /// How many guests run side by side [default: one a core in virtual mode, else 1]
    #[arg(long, short, value_name = "GUESTS")]
    jobs: Option<NonZeroUsize>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// Have the lens look on, also if the scenario does not ask for it: docs/lens.md
    #[arg(long)]
    lens: bool,
    /// Measure the proxy of another work tree of this repository, with the harness and probe of this
    #[arg(long, value_name = "DIRECTORY")]
    module_source: Option<PathBuf>,
}

impl BenchCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the scenario is wrong, something is missing on this machine, the results cannot be
    /// written, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = paths::repository()?;
        let directory = match &self.results {
            Some(directory) => std::path::absolute(directory)
                .with_context(|| format!("cannot find {}", directory.display()))?,
            None => repository.join("results"),
        };
        let mut scenario = ScenarioFile::load(&self.scenario)?;
        if self.lens {
            scenario.look()?;
        }
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        let resumed = self.resumed(&directory, &scenario)?;
        let selection = match &resumed {
            Some(results) => results.results().selection(),
            None => Selection {
                filter: self.filter.clone(),
                shard: self.shard.as_ref().map(ToString::to_string),
            },
        };
        // Once: a part of a part would be less than was asked for.
        select(&mut plan, &scenario.name, &selection)?;
        if self.plan {
            return self.print_plan(&plan);
        }
        file::check_writable(&directory)?;
        let interrupt = Interrupt::install()?;
        let lab = Lab::open(
            &repository,
            &scenario,
            &plan,
            &self.tree,
            self.module_source.as_deref(),
            &interrupt,
        )?;
        let mut results = match resumed {
            Some(results) => {
                check_conditions(&lab, &scenario, &results)?;
                results
            }
            None => ResultsFile::create(
                &directory,
                &scenario,
                selection,
                lab.closure.clone(),
                Timestamp::now(),
            )?,
        };
        skip_finished(&mut plan, results.results());
        let jobs = jobs(self.jobs, scenario.scenario.mode)?;
        let measured = measure(&lab, &plan, jobs, &mut results);
        if let Err(error) = &measured
            && error.is::<Interrupted>()
        {
            eprintln!(
                "finished cells are in {}; `mutexlab bench --resume` measures the rest",
                results.path().display()
            );
        }
        let well = measured?;
        self.report(&results)?;
        let cells = &results.results().cells;
        let well = well && cells.iter().all(|cell| cell.verdict == Verdict::Ok);
        Ok(i32::from(!well))
    }

    fn print_plan(&self, plan: &Plan) -> Result<i32> {
        if self.json {
            json::print(plan)?;
            return Ok(0);
        }
        let mut table = Table::new(&[("boot", Align::Left), ("cell", Align::Left)]);
        for boot in &plan.boots {
            for cell in &boot.cells {
                table.row([boot.id.as_str().into(), cell.id.as_str().into()]);
            }
        }
        print!("{table}");
        println!("{} cells in {} boots", plan.cells(), plan.boots.len());
        Ok(0)
    }

    /// The run to be finished, if one is.
    fn resumed(&self, directory: &Path, scenario: &ScenarioFile) -> Result<Option<ResultsFile>> {
        let Some(file) = &self.resume else {
            return Ok(None);
        };
        let path = match file {
            Some(path) => path.clone(),
            None => ResultsFile::newest(directory, &scenario.name)?,
        };
        ResultsFile::open(&path).map(Some)
    }

    fn report(&self, results: &ResultsFile) -> Result<()> {
        if self.json {
            json::print(results.results())?;
        } else {
            print!("{}", summary::text(results.results()));
            println!("{}", results.path().display());
        }
        Ok(())
    }
}

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

/// Leaves in the plan what is wanted of it.
fn select(plan: &mut Plan, scenario: &str, selection: &Selection) -> Result<()> {
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
fn check_conditions(lab: &Lab<'_>, scenario: &ScenarioFile, results: &ResultsFile) -> Result<()> {
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
fn skip_finished(plan: &mut Plan, results: &Results) {
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
    use super::*;

    /// The cells of a selection of scenarios/quick.toml, of which a run without cells goes on.
    fn selected(filter: Option<&str>, shard: Option<&str>) -> Vec<String> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/quick.toml");
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
