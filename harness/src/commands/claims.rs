// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab claims`: what was said of the optimizations, and what measuring says of it.

use crate::environment;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use jiff::Timestamp;

use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Flavour};
use mutexlab_machine::tools::Tools;
use mutexlab_measure::{jobs, measure_anew, Lab};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::record::{Results, Selection};
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

use mutexlab_judge::claims::cells::Cells;
use mutexlab_judge::claims::report::{Report, SCHEMA};
use mutexlab_judge::claims::steps::Steps;
use mutexlab_judge::claims::{creation, latency, lookup, scaling, throughput};
use mutexlab_report::terminal::claims::Format;

/// Measure the five claims about the optimizations, and say which hold
///
/// Single steps (a lookup, an allocation, a copy) are timed in the kernel, whole packets by three
/// scenarios; each claim is judged against the optimization switched off and against what the
/// kernel offers for the same. docs/claims.md defends each verdict. What `--json`
/// prints is also kept below results/claims/; results/claims/schema.json says what is in it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab claims                 Measure and judge\n  \
    mutexlab claims --markdown      For a pull request\n  \
    mutexlab claims --json | jq '.claims[] | .text, .verdict'\n\n\
Exit codes: 0 if all could be measured, whether it holds or not; 2 if not, 130 if interrupted.")]
pub struct ClaimsCommand {
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
}

impl ClaimsCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something could not be measured, something is missing on this machine, or the user
    /// interrupts.
    pub fn run(&self) -> Result<i32> {
        let started = Timestamp::now();
        let repository = environment::repository()?;
        let interrupt = Interrupt::install()?;
        let measure = |name: &str| self.measure(&repository, name, &interrupt);
        let packets = measure("claims")?;
        let steps = self.steps(&repository, &packets, &interrupt)?;
        let bulk = measure("claims-bulk")?;
        let scaling = measure("claims-scaling")?;
        let cells = Cells::new(&packets.results.cells);
        let judged = [
            lookup::judge(&steps, cells)?,
            creation::judge(&steps, cells)?,
            latency::judge(cells)?,
            throughput::judge(Cells::new(&bulk.results.cells))?,
            scaling::judge(Cells::new(&scaling.results.cells))?,
        ];
        let report = Report {
            schema: SCHEMA,
            started: started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            closure: &packets.results.closure,
            results: [&packets, &bulk, &scaling]
                .map(|measured| relative(&repository, &measured.path))
                .into(),
            claims: &judged,
            steps: steps.all(),
        };
        let path = save(&report, &repository, started)?;
        if self.json {
            println!("{}", json(&report)?);
        } else {
            let format = if self.markdown {
                Format::Markdown
            } else {
                Format::Terminal
            };
            println!("{}", heading(&packets.results));
            print!("\n{}", format.text(&judged));
            println!("\n{}", relative(&repository, &path).display());
        }
        Ok(0)
    }

    /// Has single steps measured, by the kernel that `packets` were measured with.
    fn steps(&self, repository: &Path, packets: &Measured, interrupt: &Interrupt) -> Result<Steps> {
        let results = &packets.results;
        let name = results.closure.kernels.keys().next();
        let name = name.context("the scenario has no kernel")?;
        let surroundings = environment::surroundings()?;
        let (cache, flavour) = (Cache::of(&surroundings), Flavour::Plain);
        let kernel = Kernel::prepare(name, flavour, &self.tree, repository, &cache, interrupt)?;
        eprintln!("measuring single steps");
        let log = repository.join("results/logs/claims-steps.console.log");
        Steps::new(mutexlab_measure::steps::steps(
            &kernel,
            &Tools::find(&surroundings)?,
            interrupt,
            &log,
        )?)
    }

    /// Measures all of the scenario called `name`.
    fn measure(&self, repository: &Path, name: &str, interrupt: &Interrupt) -> Result<Measured> {
        let file = repository
            .join("scenarios")
            .join(name)
            .with_extension("toml");
        let scenario = ScenarioFile::load(&file)?;
        let plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        let surroundings = environment::surroundings()?;
        let lab = Lab::open(
            repository,
            &surroundings,
            &scenario,
            &plan,
            &self.tree,
            None,
            interrupt,
        )?;
        let jobs = jobs(None, scenario.scenario.mode)?;
        let (directory, all) = (repository.join("results"), Selection::default());
        let results = measure_anew(&lab, &scenario, &plan, all, &directory, jobs)?;
        let path = results.path().to_owned();
        let results = results.results().clone();
        if let Some(bad) = results
            .cells
            .iter()
            .find(|cell| cell.verdict != Verdict::Ok)
        {
            bail!(
                "the claims cannot be judged: {} ended as {} ({}); see {}",
                bad.id,
                bad.verdict,
                bad.reason.as_deref().unwrap_or("no reason known"),
                path.display()
            );
        }
        Ok(Measured { results, path })
    }
}

/// A scenario's results, and where they are.
struct Measured {
    results: Results,
    path: PathBuf,
}

/// Keeps the verdicts and what they were taken from, below results/claims/.
fn save(report: &Report<'_>, repository: &Path, started: Timestamp) -> Result<PathBuf> {
    let directory = repository.join("results/claims");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let name = format!(
        "{}-{}.json",
        started.strftime("%Y%m%dT%H%M%SZ"),
        report.closure.short_commit()
    );
    let path = directory.join(name);
    fs::write(&path, json(report)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn json(report: &Report<'_>) -> Result<String> {
    serde_json::to_string_pretty(report).context("cannot write JSON")
}

fn relative(repository: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(repository).unwrap_or(path).to_owned()
}

/// What the numbers are of.
fn heading(results: &Results) -> String {
    let closure = &results.closure;
    let releases: Vec<&str> = (closure.kernels.values())
        .map(|kernel| kernel.release.as_str())
        .collect();
    format!(
        "What branch 13 claims, and what instructions say of it (Linux {}, commit {})",
        releases.join(", "),
        closure.short_commit(),
    )
}
