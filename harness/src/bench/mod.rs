// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bench`: measures what a scenario asks for.

mod progress;
mod run;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use jiff::Timestamp;

pub use run::{measure, Lab};

use crate::interrupt::{Interrupt, Interrupted};
use crate::kernel::NamedTree;
use crate::plan::{Plan, Shard};
use crate::results::file::ResultsFile;
use crate::results::record::Selection;
use crate::scenario::{Mode, ScenarioFile};
use crate::table::{Align, Table};
use crate::verdict::Verdict;
use crate::{paths, summary};

/// Measure what a scenario asks for, and tell what a packet costs
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab bench                             All of scenarios/quick.toml\n  \
    mutexlab bench --plan                      Only say what would be measured\n  \
    mutexlab bench --filter module/forward     Only the cells with this in their names\n  \
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
    /// Only cells with this in their names
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// Only one of several parts, such as 2/5; the others are for other machines
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Finish a run that was cut short: the newest of the scenario, or the one in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["plan", "filter", "shard"])]
    resume: Option<Option<PathBuf>>,
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
        let mut scenario = ScenarioFile::load(&self.scenario)?;
        if self.lens {
            scenario.look()?;
        }
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        let selection = Selection {
            filter: self.filter.clone(),
            shard: self.shard.as_ref().map(ToString::to_string),
        };
        self.select(&mut plan, &scenario)?;
        if self.plan {
            return self.print_plan(&plan);
        }
        let interrupt = Interrupt::install()?;
        let lab = Lab::open(
            &repository,
            &scenario,
            &plan,
            &self.tree,
            self.module_source.as_deref(),
            &interrupt,
        )?;
        let mut results = self.open(&lab, &repository, &scenario, selection)?;
        skip_finished(&mut plan, &results);
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

    /// Leaves in the plan what the user wants of it.
    fn select(&self, plan: &mut Plan, scenario: &ScenarioFile) -> Result<()> {
        if let Some(part) = &self.filter {
            plan.retain(|_, cell| cell.id.contains(part));
            if plan.boots.is_empty() {
                bail!(
                    "no cell of {} has {part:?} in its name: see --plan",
                    scenario.name
                );
            }
        }
        if let Some(shard) = self.shard {
            plan.shard(shard);
            if plan.boots.is_empty() {
                bail!("shard {shard} of {} has no cells: use fewer", scenario.name);
            }
        }
        Ok(())
    }

    fn print_plan(&self, plan: &Plan) -> Result<i32> {
        if self.json {
            println!(
                "{}",
                serde_json::to_string_pretty(plan).context("cannot write JSON")?
            );
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

    fn open(
        &self,
        lab: &Lab<'_>,
        repository: &Path,
        scenario: &ScenarioFile,
        selection: Selection,
    ) -> Result<ResultsFile> {
        let directory = repository.join("results");
        let closure = lab.closure.clone();
        let Some(file) = &self.resume else {
            return ResultsFile::create(&directory, scenario, selection, closure, Timestamp::now());
        };
        let path = match file {
            Some(path) => path.clone(),
            None => ResultsFile::newest(&directory, &scenario.name)?,
        };
        let results = ResultsFile::open(&path)?;
        let mut differences = closure.differences(&results.results().closure)?;
        let lens = results.results().lens;
        if lens != scenario.scenario.lens {
            differences.push(format!(
                "the lens: then {lens:?}, now {:?}",
                scenario.scenario.lens
            ));
        }
        if !differences.is_empty() {
            bail!(
                "{} cannot be finished: it was begun under other conditions, and its numbers would \
                 not be comparable\n  {}\nRun `mutexlab bench` anew, or restore the conditions.",
                path.display(),
                differences.join("\n  ")
            );
        }
        Ok(results)
    }

    fn report(&self, results: &ResultsFile) -> Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(results.results());
            println!("{}", json.context("cannot write JSON")?);
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

/// Takes the cells out of the plan that a resumed run has, and those that it was not to have.
/// What our own machinery spoilt says nothing, and is measured again.
fn skip_finished(plan: &mut Plan, results: &ResultsFile) {
    let results = results.results();
    if let Some(part) = &results.filter {
        plan.retain(|_, cell| cell.id.contains(part));
    }
    if let Some(shard) = results.shard.as_ref().and_then(|shard| shard.parse().ok()) {
        plan.shard(shard);
    }
    plan.retain(|boot, cell| {
        !results.cells.iter().any(|record| {
            record.id == cell.id
                && record.repetition == boot.repetition
                && record.verdict != Verdict::Infra
        })
    });
}
