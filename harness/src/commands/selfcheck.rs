// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab selfcheck`: whether the instrument can be trusted.

use crate::environment;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_draw::table::Style;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::NamedTree;
use mutexlab_measure::{jobs, measure_anew, Lab};
use mutexlab_model::mode::Mode;
use mutexlab_protocol::Sabotage;
use mutexlab_results::record::{Results, Selection};
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;

use mutexlab_judge::instrument::cells;
use mutexlab_judge::instrument::checks::{Check, Finding};

/// Where the scenario is, below the repository.
const SCENARIO: &str = "scenarios/selfcheck.toml";

/// Show that the instrument measures what is there, and nothing else
///
/// Boots the same cells three times and demands equal numbers; puts 0, 1, 10 and 100 instructions
/// into the path and demands to read exactly those; compares a boot with another of the same and
/// demands silence; and has the server misbehave and demands to be told.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab selfcheck            All four checks\n  \
    mutexlab selfcheck --json     The findings for a program\n\n\
Exit codes: 0 if the instrument can be trusted, 1 if not, 2 if that could not be found out.")]
pub struct SelfcheckCommand {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Keep the results file in this directory
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART", default_value = "")]
    filter: Filter,
    /// Measure wrong, which the checks must notice
    #[arg(long, hide = true)]
    sabotage: Option<Saboteur>,
}

/// Which wrong the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Saboteur {
    /// Each boot adds another number.
    Skew,
    /// Numbers are rounded.
    Coarse,
    /// Packets are not missed.
    Credulous,
}

impl Saboteur {
    /// What it does in one of the boots.
    fn in_boot(self, repetition: u32) -> Sabotage {
        match self {
            Self::Skew => Sabotage::Skew(u64::from(repetition)),
            Self::Coarse => Sabotage::Coarse(8),
            Self::Credulous => Sabotage::Credulous,
        }
    }
}

/// Whether the instrument can be trusted.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report<'a> {
    /// Whether all checks hold.
    trusted: bool,
    /// The checks.
    checks: &'a [Finding],
}

impl SelfcheckCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something is missing on this machine, the guests cannot be started, or the user
    /// interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = environment::repository()?;
        let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
        let directory = self.keep.as_deref().unwrap_or(scratch.path());
        let results = self.measure(&repository, directory)?;
        let findings: Vec<Finding> = Check::ALL
            .iter()
            .map(|check| check.judge(&results))
            .collect();
        let trusted = findings.iter().all(Finding::passed);
        if self.json {
            let report = Report {
                trusted,
                checks: &findings,
            };
            json::print(&report)?;
        } else {
            findings.iter().for_each(|finding| print!("{finding}"));
            println!("\n{}", verdict(trusted));
        }
        Ok(i32::from(!trusted))
    }

    /// Boots everything that the checks look at.
    fn measure(&self, repository: &Path, directory: &Path) -> Result<Results> {
        let scenario = ScenarioFile::load(&repository.join(SCENARIO))?;
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        plan.retain(|_, cell| self.filter.admits(&cell.id));
        if plan.boots.is_empty() {
            bail!("no cell of {SCENARIO} is of the filter {}", self.filter);
        }
        cells::add(&mut plan);
        if let Some(saboteur) = self.sabotage {
            for boot in &mut plan.boots {
                for cell in &mut boot.cells {
                    cell.sabotage = Some(saboteur.in_boot(boot.repetition));
                }
            }
        }
        let interrupt = Interrupt::install()?;
        let surroundings = environment::surroundings()?;
        let lab = Lab::open(
            repository,
            &surroundings,
            &scenario,
            &plan,
            &self.tree,
            None,
            &interrupt,
        )?;
        let (jobs, all) = (jobs(None, Mode::Virtual)?, Selection::default());
        // What ended badly is for the checks to judge.
        let results = measure_anew(&lab, &scenario, &plan, all, directory, jobs)?;
        Ok(results.results().clone())
    }
}

fn verdict(trusted: bool) -> String {
    if trusted {
        Style::Good.paint("The instrument can be trusted.")
    } else {
        Style::Bad.paint(
            "The instrument cannot be trusted here: no number of this machine should be believed \
             until the cause is found.",
        )
    }
}
