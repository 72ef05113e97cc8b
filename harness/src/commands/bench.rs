// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bench`: measures what a scenario asks for.

use super::bench_trees::{are_beside, Trees};
use super::functions;
use super::json;
use crate::environment;
use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use mutexlab_draw::table::{Align, Table};
use mutexlab_host::interrupt::{Interrupt, Interrupted};
use mutexlab_images::prepared::NamedTree;
use mutexlab_machine::tools::Tools;
use mutexlab_measure::{
    check_conditions, jobs, kernels, measure, ready, select, skip_finished, Lab,
};
use mutexlab_model::verdict::Verdict;
use mutexlab_report::terminal::summary;
use mutexlab_results::file;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Selection;
use mutexlab_scenario::plan::{Filter, Plan, Shard};
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

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
    mutexlab bench --tree before=../linux-a --tree after=../linux-b\n                                             \
                                               What a change of the kernel costs: docs/kernel-changes.md\n  \
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
    /// Print JSON instead of tables: what the results file has, or the plan
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
    /// Build this kernel tree, and measure it in the place of the scenario's kernel, beside others that are given so;
    /// if NAME is that of a kernel of the catalog's, boot it instead of that: it has to be built
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// With trees: every metric on a line of its own, also those that did not move
    #[arg(long, requires = "tree")]
    all: bool,
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
        let repository = environment::repository()?;
        let directory = match &self.results {
            Some(directory) => std::path::absolute(directory)
                .with_context(|| format!("cannot find {}", directory.display()))?,
            None => repository.join("results"),
        };
        let mut scenario = ScenarioFile::load(&self.scenario)?;
        let beside = are_beside(&self.tree, &repository, &scenario)?;
        match (self.lens, beside) {
            (true, false) => scenario.look()?,
            (true, true) => functions::look(&mut scenario)?,
            (false, _) => {}
        }
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        let subjects = ready(&repository, &scenario, &plan)?;
        let resumed = self.resumed(&directory, &scenario)?;
        let selection = match &resumed {
            Some(results) => results.results().selection(),
            None => Selection {
                filter: self.filter.clone(),
                shard: self.shard.as_ref().map(ToString::to_string),
            },
        };
        // Once: a part of a part would be less than was asked for.
        let selected = select(&mut plan, &scenario.name, &selection);
        let trees = if beside {
            selected.with_context(|| self.before_trees(&scenario))?;
            let trees = Trees::of(&self.tree, &repository, &scenario, &plan, &subjects)?;
            plan = trees.plan(&plan);
            Some(trees)
        } else {
            selected?;
            None
        };
        if self.plan {
            return self.print_plan(&plan, &subjects);
        }
        file::check_writable(&directory)?;
        let interrupt = Interrupt::install()?;
        // What is missing is told before anything is built.
        let surroundings = environment::surroundings()?;
        let tools = Tools::find(&surroundings)?;
        let kernels = match &trees {
            Some(trees) => trees.build(&repository, &surroundings, &interrupt)?,
            None => kernels(&plan, &self.tree, &repository, &surroundings, &interrupt)?,
        };
        let module_source = self.module_source.as_deref();
        let lab = Lab::with(
            &repository,
            tools,
            &scenario,
            subjects,
            kernels,
            module_source,
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
                "finished cells are in {}; `{}` measures the rest",
                results.path().display(),
                self.resuming(results.path())
            );
        }
        let well = measured?;
        match &trees {
            Some(trees) => trees.print(&results, self.all, self.json)?,
            None => self.report(&results)?,
        }
        let cells = &results.results().cells;
        let well = well && cells.iter().all(|cell| cell.verdict == Verdict::Ok);
        Ok(i32::from(!well))
    }

    fn print_plan(&self, plan: &Plan, subjects: &Subjects) -> Result<i32> {
        for module in subjects.modules() {
            eprintln!(
                "{}: `make` runs on this machine in a copy of {}",
                module.subject,
                module.sources.display()
            );
        }
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

    /// What a filter is of, if it admits no cell and there are trees.
    fn before_trees(&self, scenario: &ScenarioFile) -> String {
        let kernels = scenario.scenario.kernels.join(", ");
        let trees: Vec<&str> = self.tree.iter().map(|tree| tree.name.as_str()).collect();
        let trees = trees.join(", ");
        format!("cells are chosen by their names on {kernels}, before {trees} come in its place")
    }

    /// The command that goes on with the results in `path`.
    fn resuming(&self, path: &Path) -> String {
        let mut command = format!("mutexlab bench {}", self.scenario.display());
        for NamedTree { name, directory } in &self.tree {
            command += &format!(" --tree {name}={}", directory.display());
        }
        if self.lens {
            command += " --lens";
        }
        if let Some(directory) = &self.module_source {
            command += &format!(" --module-source {}", directory.display());
        }
        command + " --resume " + &path.to_string_lossy()
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
