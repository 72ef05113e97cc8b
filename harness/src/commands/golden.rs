// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `golden`.

use crate::environment;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_host::git::Repository;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_judge::compare::difference::{Difference, Shown};
use mutexlab_judge::golden::counts::Counts;
use mutexlab_measure::commit::Measurer;
use mutexlab_model::verdict::Verdict;
use mutexlab_report::terminal::compare;
use mutexlab_report::terminal::compare::Format;
use mutexlab_results::slim::Run;
use mutexlab_scenario::ScenarioFile;

/// Where the golden counts are.
const DIRECTORY: &str = "results/golden";

/// Measure what a packet costs, and tell what has moved from the golden counts
///
/// These are in results/golden/, a file for each scenario and kernel; what they are of depends on
/// nothing but the sources and the compilers.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab golden                          Check every scenario that has golden counts\n  \
    mutexlab golden --update                 Accept what moved; commit the files with the change\n  \
    mutexlab golden cache --update           Have golden counts of scenarios/cache.toml, too\n  \
    mutexlab golden --from results/a.json    Check results that are there already\n\n\
Exit codes: 0 if nothing moved, 1 if something did, 2 if the counts could not be checked, 130 if interrupted.")]
pub struct GoldenCommand {
    /// Names of scenarios [default: all that have golden counts]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Write the golden counts anew
    #[arg(long)]
    update: bool,
    /// Take these results instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with = "scenarios")]
    from: Vec<PathBuf>,
    /// Print JSON: a list with a document for each file
    #[arg(long)]
    json: bool,
}

/// How the check of a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// Nothing moved.
    Same,
    /// What moved was accepted.
    Updated,
    /// Something moved.
    Moved,
    /// It could not be checked.
    Unchecked,
}

/// The check of a file.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// The file with the golden counts.
    file: &'a Path,
    /// How its check ended.
    outcome: Outcome,
    /// Why it could not be checked; empty if it was.
    other_conditions: &'a [String],
    /// Cells that ended badly, and why.
    bad_cells: &'a [String],
    /// What moved: A is golden, B was measured; null if it could not be checked, or was written anew.
    difference: Option<&'a Difference<'a>>,
}

impl Document<'_> {
    const fn updated(file: &Path) -> Document<'_> {
        Document {
            file,
            outcome: Outcome::Updated,
            other_conditions: &[],
            bad_cells: &[],
            difference: None,
        }
    }

    fn value(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).context("cannot write JSON")
    }
}

impl GoldenCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something cannot be measured, read or written, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = environment::repository()?;
        let directory = repository.join(DIRECTORY);
        let mut worst = Outcome::Same;
        let mut documents = Vec::new();
        for run in self.runs(&repository, &directory)? {
            let run = run?;
            let kernels: BTreeSet<&str> = run
                .cells
                .values()
                .map(|cell| cell.kernel.as_str())
                .collect();
            for kernel in kernels {
                let name = format!("{}-{kernel}.txt", run.scenario);
                let path = directory.join(name);
                worst = worst.max(self.kernel(&run, kernel, &path, &mut documents)?);
            }
        }
        if self.json {
            json::print(&documents)?;
        } else if worst == Outcome::Moved {
            println!(
                "If that is what the change is meant to cost, accept it with `just golden --update` \
                 and commit {DIRECTORY}/ with it."
            );
        }
        Ok(match worst {
            Outcome::Same | Outcome::Updated => 0,
            Outcome::Moved => 1,
            Outcome::Unchecked => 2,
        })
    }

    /// The runs to check, each measured when it is its turn.
    fn runs<'a>(
        &'a self,
        repository: &'a Path,
        directory: &Path,
    ) -> Result<Box<dyn Iterator<Item = Result<Run>> + 'a>> {
        if !self.from.is_empty() {
            return Ok(Box::new(self.from.iter().map(|path| Run::read(path))));
        }
        let mut names: BTreeSet<String> = self.scenarios.iter().cloned().collect();
        if names.is_empty() {
            names = golden_scenarios(directory)?;
        }
        if names.is_empty() {
            bail!(
                "{DIRECTORY} has no golden counts: `mutexlab golden quick --update` measures those \
                 of scenarios/quick.toml"
            );
        }
        let interrupt = Interrupt::install()?;
        let surroundings = environment::surroundings()?;
        Ok(Box::new(names.into_iter().map(move |name| {
            let scenario = ScenarioFile::load(&scenario_path(repository, &name))?;
            let measurer = Measurer {
                repository: &Repository::new(repository),
                scenario: &scenario,
                filter: None,
                trees: &[],
                again: true,
                own_harness: false,
                surroundings: &surroundings,
                interrupt: &interrupt,
            };
            measurer.files()
        })))
    }

    /// Checks one file, or writes it, and tells of it: as a document more, if JSON is wanted.
    fn kernel(
        &self,
        run: &Run,
        kernel: &str,
        path: &Path,
        documents: &mut Vec<serde_json::Value>,
    ) -> Result<Outcome> {
        let now = Counts::of(run, kernel)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bad = bad_cells(run, kernel);
        if self.update {
            if !bad.is_empty() {
                bail!(
                    "{} is left as it is, since cells ended badly:\n  {}",
                    path.display(),
                    bad.join("\n  ")
                );
            }
            let cannot_write = || format!("cannot write {}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(path)).with_context(cannot_write)?;
            fs::write(path, now.to_string()).with_context(cannot_write)?;
            if self.json {
                documents.push(Document::updated(path).value()?);
            } else {
                println!("{DIRECTORY}/{name}: {} cells", now.cells.len());
            }
            return Ok(Outcome::Updated);
        }
        let golden: Counts = fs::read_to_string(path)
            .with_context(|| {
                format!(
                    "cannot read {}: `mutexlab golden {} --update` writes it",
                    path.display(),
                    run.scenario
                )
            })?
            .parse()
            .with_context(|| path.display().to_string())?;
        let conditions = golden.other_conditions(&now);
        let (before, after) = (golden.as_run(run), now.as_run(run));
        let difference = conditions
            .is_empty()
            .then(|| Difference::of(&before, &after, &Shown::default()));
        let outcome = match &difference {
            None => Outcome::Unchecked,
            Some(found) if bad.is_empty() && is_silent(found) => Outcome::Same,
            Some(_) => Outcome::Moved,
        };
        if self.json {
            let document = Document {
                file: path,
                outcome,
                other_conditions: &conditions,
                bad_cells: &bad,
                difference: difference.as_ref(),
            };
            documents.push(document.value()?);
            return Ok(outcome);
        }
        println!(
            "A  {}\nB  measured ({})\n",
            path.display(),
            run.path.display()
        );
        match &difference {
            Some(found) => {
                println!("{}\n", compare::summary(found));
                print!("{}", compare::details(found, false, Format::Terminal));
            }
            None => {
                println!(
                    "These golden counts are of another build, and cannot be checked here:\n  {}",
                    conditions.join("\n  ")
                );
            }
        }
        for cell in &bad {
            println!("ended badly: {cell}");
        }
        println!();
        Ok(outcome)
    }
}

/// Whether the two are the same, down to which cells and metrics there are.
fn is_silent(found: &Difference<'_>) -> bool {
    let apart = [
        &found.only_a,
        &found.only_b,
        &found.metrics_only_a,
        &found.metrics_only_b,
    ];
    found.findings.is_empty() && apart.iter().all(|list| list.is_empty())
}

fn bad_cells(run: &Run, kernel: &str) -> Vec<String> {
    let of_kernel = run.cells.iter().filter(|(_, cell)| cell.kernel == kernel);
    of_kernel
        .filter_map(|(id, cell)| match cell.verdict() {
            (Verdict::Ok, _) => None,
            (verdict, reason) => Some(format!("{id}: {verdict}: {}", reason.unwrap_or_default())),
        })
        .collect()
}

/// The scenarios that have golden counts.
fn golden_scenarios(directory: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(names);
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let counts: Counts = text.parse().with_context(|| path.display().to_string())?;
            names.insert(counts.condition("scenario").to_owned());
        }
    }
    Ok(names)
}

/// `quick` is scenarios/quick.toml; a path is itself.
fn scenario_path(repository: &Path, name: &str) -> PathBuf {
    if name.ends_with(".toml") {
        PathBuf::from(name)
    } else {
        repository.join("scenarios").join(format!("{name}.toml"))
    }
}
