// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `series`.

use crate::environment;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::bench_trees::{no_further_modules, only_kernel};
use super::functions::{self, OfCell, Side};
use super::json;
use mutexlab_host::git::{Commit, Range, Repository};
use mutexlab_host::interrupt::{Interrupt, Interrupted};
use mutexlab_images::build::DoesNotBuild;
use mutexlab_images::modules::DoNotBuild;
use mutexlab_images::prepared::Kernel;
use mutexlab_images::workshop::Workshop;
use mutexlab_images::Cache;
use mutexlab_judge::series::{steps, Outcome, Step};
use mutexlab_judge::trees::side;
use mutexlab_machine::tools::Tools;
use mutexlab_measure::kernel::Asker;
use mutexlab_measure::{jobs, ready, select};
use mutexlab_model::mode::Mode;
use mutexlab_model::verdict::Verdict;
use mutexlab_report::terminal::series;
use mutexlab_report::terminal::series::Told;
use mutexlab_results::file;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Selection;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;

/// Where results are kept, below the repository.
const RESULTS: &str = "results/series";
/// So many cells on each commit are told of, since fewer would often do.
const MANY: usize = 12;

/// Tell which commits of a kernel move a count, and in which functions
///
/// Builds the tree of each commit of RANGE, and of the commit before them, each from what is left of the last one;
/// measures it on the scenario, and compares it with the one before. Of commits that boot another image the lens tells
/// where instructions moved, also outside the hooks. What is built and measured is kept: after an interruption the same
/// command goes on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab series v7.3.3..v7.3.4 --linux ../linux --filter 1cpu/none/forward-v4-udp-64\n  \
    mutexlab series HEAD~3..HEAD --linux ../linux --filter 'forward-v4-udp !partial !unnecessary'\n  \
    mutexlab series HEAD~1.. scenarios/bursts.toml --linux ../linux\n  \
    mutexlab series HEAD~3.. --linux ../linux --json | jq '.commits[] | [.commit, .verdict]'\n\n\
Exit codes: 0 if all is measured, 1 if a commit does not build or a cell ended badly, 2 if the series could not \
run, 130 if interrupted.")]
pub struct SeriesCommand {
    /// The commits, as git writes it: A..B
    #[arg(value_name = "RANGE")]
    range: String,
    /// The question
    #[arg(value_name = "SCENARIO", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// The kernel's git repository, whose work tree is not touched
    #[arg(long, value_name = "DIRECTORY")]
    linux: PathBuf,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART")]
    filter: Option<Filter>,
    /// Ask the lens only about commits that move a count: what moves outside the hooks alone is not seen then
    #[arg(long)]
    exact_only: bool,
    /// How many guests run side by side [default: one a core]
    #[arg(long, short, value_name = "GUESTS")]
    jobs: Option<NonZeroUsize>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// A commit, and what came of it.
struct Measured {
    commit: Commit,
    subject: String,
    end: End,
}

enum End {
    DoesNotBuild { why: String, log: PathBuf },
    Run(Box<Run>),
}

/// All that comes out, as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// The scenario's file.
    scenario: &'a str,
    /// The range as it was given.
    range: &'a str,
    /// The one before the range, and those in it.
    commits: Vec<CommitReport<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CommitReport<'a> {
    /// Its hash.
    commit: &'a str,
    /// The first line of its message.
    subject: &'a str,
    /// What came of it.
    step: &'a Step<'a>,
    /// Where counts moved; empty if the lens was not asked.
    functions: &'a [OfCell],
}

impl SeriesCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If there is no such range, something is missing on this machine, results cannot be written, or the user
    /// interrupts.
    pub fn run(&self) -> Result<i32> {
        let result = self.measure_and_print();
        if let Err(error) = &result
            && error.is::<Interrupted>()
        {
            eprintln!("what is built and measured is kept; the same command goes on with the rest");
        }
        result
    }

    fn measure_and_print(&self) -> Result<i32> {
        let repository = environment::repository()?;
        let surroundings = environment::surroundings()?;
        let scenario = ScenarioFile::load(&self.scenario)?;
        if scenario.scenario.mode != Mode::Virtual {
            bail!(
                "{} counts time, which varies: a series takes a scenario with mode = \"virtual\", whose counts are exact",
                scenario.file
            );
        }
        let selection = Selection {
            filter: self.filter.clone(),
            shard: None,
        };
        let plan = planned(&scenario, &selection)?;
        let like = only_kernel(&scenario, &plan)?;
        let tools = Tools::find(&surroundings)?;
        let subjects = ready(&repository, &scenario, &plan)?;
        no_further_modules(&subjects)?;
        let linux = fs::canonicalize(&self.linux).with_context(|| {
            format!(
                "cannot find the kernel's repository {}",
                self.linux.display()
            )
        })?;
        let linux = Repository::new(&linux);
        let interrupt = Interrupt::install()?;
        let cache = Cache::of(&surroundings);
        let workshop = Workshop::open(&linux, &repository, &like, &cache, &interrupt)?;
        let range = linux.range(&self.range)?;
        let directory = repository.join(RESULTS);
        file::check_writable(&directory)?;
        let asker = Asker {
            repository: &repository,
            tools: &tools,
            scenario: &scenario,
            subjects: &subjects,
            like: &like,
            plan: &plan,
            selection: &selection,
            directory: &directory,
            jobs: jobs(self.jobs, scenario.scenario.mode)?,
            interrupt: &interrupt,
        };
        if plan.cells() > MANY {
            eprintln!(
                "{} cells are measured on every commit: --filter takes fewer, `mutexlab bench --plan {}` lists them",
                plan.cells(),
                scenario.file
            );
        }
        let measured = measure(&linux, &range, &workshop, &asker)?;
        let outcomes: Vec<_> = measured.iter().map(Measured::outcome).collect();
        let steps = steps(&outcomes);
        let functions = self.functions(&measured, &steps, &workshop, &asker)?;
        self.print(&measured, &steps, &functions)?;
        let bad = measured.iter().filter(|one| one.is_bad()).count();
        Ok(i32::from(bad > 0))
    }

    /// Where counts moved, commit by commit, as far as the lens is to be asked.
    fn functions(
        &self,
        measured: &[Measured],
        steps: &[Step<'_>],
        workshop: &Workshop<'_>,
        asker: &Asker<'_>,
    ) -> Result<Vec<Vec<OfCell>>> {
        let mut seen = vec![Vec::new(); steps.len()];
        let mut scenario = asker.scenario.clone();
        if let Err(error) = functions::look(&mut scenario) {
            eprintln!("functions are not told: {error:#}");
            return Ok(seen);
        }
        let plan = planned(&scenario, asker.selection)?;
        let lens = Asker {
            scenario: &scenario,
            plan: &plan,
            ..*asker
        };
        let asked = lens.cells();
        let mut before: Option<&Commit> = None;
        for (index, (one, step)) in measured.iter().zip(steps).enumerate() {
            if matches!(step, Step::DoesNotBuild { .. }) {
                continue;
            }
            let is_asked = step.moves_a_count() || !self.exact_only;
            if let (Step::Measured { .. }, Some(before), true) = (step, before, is_asked) {
                eprintln!("{}: the lens looks where counts moved", one.commit.short());
                let look = |commit: &Commit| -> Result<(ResultsFile, String)> {
                    let file = lens.ask(&workshop.kernel(commit)?)?;
                    let name = kernel_in(file.results().closure.kernels.keys());
                    Ok((file, name))
                };
                let (a, b) = (look(before)?, look(&one.commit)?);
                let [a, b] = [&a, &b].map(|(file, kernel)| Side { file, kernel });
                seen[index] = functions::between(a, b)?;
                seen[index].retain(|one| asked.contains(one.cell.as_str()));
            }
            before = Some(&one.commit);
        }
        Ok(seen)
    }

    fn print(&self, measured: &[Measured], steps: &[Step<'_>], seen: &[Vec<OfCell>]) -> Result<()> {
        let commits = measured.iter().zip(steps).zip(seen);
        if self.json {
            let commits = commits.map(|((one, step), functions)| CommitReport {
                commit: &one.commit.hash,
                subject: &one.subject,
                step,
                functions,
            });
            return json::print(&Document {
                scenario: &self.scenario.to_string_lossy(),
                range: &self.range,
                commits: commits.collect(),
            });
        }
        let functions: Vec<Vec<_>> = seen
            .iter()
            .map(|cells| {
                let cells = cells.iter();
                cells
                    .map(|one| (one.cell.clone(), one.functions.clone()))
                    .collect()
            })
            .collect();
        let told: Vec<Told<'_>> = measured
            .iter()
            .zip(steps)
            .zip(&functions)
            .map(|((one, step), functions)| Told {
                commit: one.commit.short(),
                subject: &one.subject,
                step,
                functions,
            })
            .collect();
        print!("{}", series::text(&told));
        Ok(())
    }
}

impl Measured {
    /// Whether it is not well, of which it tells as far as the table does not.
    fn is_bad(&self) -> bool {
        let End::Run(run) = &self.end else {
            return true;
        };
        let mut is_bad = false;
        for (id, cell) in &run.cells {
            let (verdict, reason) = cell.verdict();
            if verdict != Verdict::Ok {
                is_bad = true;
                let reason = reason.unwrap_or("nobody knows why");
                eprintln!("{}: {id}: {verdict}: {reason}", self.commit.short());
            }
        }
        is_bad
    }

    fn outcome(&self) -> Outcome<'_> {
        match &self.end {
            End::DoesNotBuild { why, log } => Outcome::DoesNotBuild { why, log },
            End::Run(run) => Outcome::Measured(run),
        }
    }
}

fn planned(scenario: &ScenarioFile, selection: &Selection) -> Result<Plan> {
    let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
    select(&mut plan, &scenario.name, selection)?;
    Ok(plan)
}

/// Builds and measures the commits, the oldest first.
fn measure(
    linux: &Repository,
    range: &Range,
    workshop: &Workshop<'_>,
    asker: &Asker<'_>,
) -> Result<Vec<Measured>> {
    let commits: Vec<_> = std::iter::once(&range.base).chain(&range.commits).collect();
    let mut measured = Vec::new();
    for (index, commit) in commits.iter().enumerate() {
        let subject = linux.subject(commit)?;
        eprintln!(
            "[{}/{}] {} {subject}",
            index + 1,
            commits.len(),
            commit.short()
        );
        let end = match workshop.kernel(commit) {
            Ok(kernel) => End::Run(Box::new(ask(asker, &kernel)?)),
            Err(error) => {
                let end = does_not_build(&error, &workshop.source()).ok_or(error)?;
                eprintln!("it does not build, and the series goes on");
                end
            }
        };
        measured.push(Measured {
            commit: (*commit).clone(),
            subject,
            end,
        });
    }
    Ok(measured)
}

/// The results of a kernel, with cells that are named without it.
fn ask(asker: &Asker<'_>, kernel: &Kernel) -> Result<Run> {
    let file = asker.ask(kernel)?;
    let run = Run::read(file.path())?;
    let mut run = side(&run, &kernel_in(run.closure.kernels.keys()));
    // What was measured before may be more than is asked about now.
    let asked = asker.cells();
    run.cells.retain(|cell, _| asked.contains(cell.as_str()));
    Ok(run)
}

/// What results of a series call their kernel, which may be an earlier commit's that boots the same.
fn kernel_in<'a>(mut names: impl Iterator<Item = &'a String>) -> String {
    names.next().cloned().unwrap_or_default()
}

/// The verdict, if an error is one on the commit.
fn does_not_build(error: &anyhow::Error, source: &Path) -> Option<End> {
    let source = format!("{}/", source.display());
    let end = |why: &str, log: &Path| End::DoesNotBuild {
        // Files are told as from the source on.
        why: why.trim().replace(&source, ""),
        log: log.to_owned(),
    };
    if let Some(DoesNotBuild { errors, log, .. }) = error.downcast_ref() {
        return Some(end(errors.first().map_or("", String::as_str), log));
    }
    let modules = error.downcast_ref::<DoNotBuild>()?;
    let why = format!("the modules do not build against it: {}", modules.first());
    Some(end(&why, &modules.log))
}
