// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `compare`.

use crate::environment;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_judge::compare::comparable::Comparable;
use mutexlab_judge::compare::difference::{Difference, Shown};
use mutexlab_measure::commit::Measurer;
use mutexlab_report::terminal::compare;
use mutexlab_report::terminal::compare::Format;
use mutexlab_results::closure::Closure;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Filter;
use mutexlab_scenario::ScenarioFile;

/// Tell what differs between two runs, or between two commits
///
/// A and B are results files or commits; of a commit that has no results its proxy is measured, by
/// the present harness, in a work tree of its own. `.` is the files as they are.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab compare HEAD~1 HEAD                What the last commit changed\n  \
    mutexlab compare HEAD                       What the files change that are not committed yet\n  \
    mutexlab compare v1..main --filter module   Only cells with this in their names\n  \
    mutexlab compare a.json b.json --markdown   For a pull request\n  \
    mutexlab compare HEAD~1 HEAD --metric hook.mean --all\n\n\
Exit codes: 0 if nothing is worse, 1 if something is, 2 if the two could not be compared, 130 if interrupted.")]
pub struct CompareCommand {
    /// A results file, a commit, `.`, or a range of commits (A..B)
    #[arg(value_name = "A")]
    a: String,
    /// What to compare it with
    #[arg(value_name = "B", default_value = ".")]
    b: String,
    /// What commits are measured with
    #[arg(long, value_name = "FILE", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART")]
    filter: Option<Filter>,
    /// Only metrics with this in their names
    #[arg(long, value_name = "PART")]
    metric: Option<String>,
    /// Every metric on a line of its own, also those that have not changed
    #[arg(long)]
    all: bool,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Compare also if kernels or compilers differ
    #[arg(long)]
    force_kernels: bool,
    /// Measure commits also if there are results of them
    #[arg(long)]
    again: bool,
    /// Measure each commit by its own harness
    #[arg(long)]
    own_harness: bool,
}

/// One of the two.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Side<'a> {
    /// Its results file.
    file: &'a Path,
    /// When it began, RFC 3339, UTC.
    started: &'a str,
    /// The commit of its proxy, in full.
    commit: &'a str,
    /// Whether files differed from it.
    dirty: bool,
}

/// What differs between two runs.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// What is compared with.
    a: Side<'a>,
    /// What is compared.
    b: Side<'a>,
    /// Why the two cannot be compared; empty if they can.
    refusals: &'a [String],
    /// What a reader should know of the two.
    notes: &'a [String],
    /// Null if they cannot be compared.
    difference: Option<&'a Difference<'a>>,
}

impl CompareCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the two cannot be read or measured, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let (a, b) = self.names()?;
        let mut notes = Vec::new();
        let (mut a, mut b) = match (Path::new(a), Path::new(b)) {
            (a, b) if a.is_file() && b.is_file() => Run::read_both(a, b)?,
            _ => (
                self.load("A", a, &mut notes)?,
                self.load("B", b, &mut notes)?,
            ),
        };
        if let Some(filter) = &self.filter {
            for run in [&mut a, &mut b] {
                run.cells.retain(|id, _| filter.admits(id));
            }
        }
        let mut comparable = Comparable::check(&a, &b, self.force_kernels);
        notes.append(&mut comparable.notes);
        comparable.notes = notes;
        self.print(&a, &b, &comparable)
    }

    fn names(&self) -> Result<(&str, &str)> {
        let given = (self.a.as_str(), self.b.as_str());
        if Path::new(given.0).is_file() {
            return Ok(given);
        }
        match self.a.split_once("..") {
            None => Ok(given),
            Some(_) if self.b != "." => bail!(
                "{:?} is a range already: give either A..B, or A and B",
                self.a
            ),
            Some((_, b)) if b.starts_with('.') => bail!(
                "{:?}: three dots mean the commit where branches part; give `git merge-base`'s answer as A",
                self.a
            ),
            Some((a, b)) => {
                // As git has it.
                let names = [a, b].map(|name| if name.is_empty() { "HEAD" } else { name });
                Ok(names.into())
            }
        }
    }

    fn load(&self, side: &str, name: &str, notes: &mut Vec<String>) -> Result<Run> {
        let path = Path::new(name);
        if path.is_file() {
            return Run::read(path);
        }
        let repository = Repository::new(&environment::repository()?);
        let commit: Option<Commit> = match name {
            "." => None,
            name => Some(repository.commit(name)?),
        };
        let interrupt = Interrupt::install()?;
        let scenario = ScenarioFile::load(&self.scenario)?;
        let surroundings = environment::surroundings()?;
        let measurer = Measurer {
            repository: &repository,
            scenario: &scenario,
            filter: self.filter.as_ref(),
            trees: &[],
            again: self.again,
            own_harness: self.own_harness,
            surroundings: &surroundings,
            interrupt: &interrupt,
        };
        let Some(commit) = commit else {
            return measurer.files();
        };
        let measured = measurer
            .commit(&commit)
            .with_context(|| format!("cannot measure {name}"))?;
        if let Some(why) = measured.own_harness {
            notes.push(format!("{side} WAS MEASURED BY ITS OWN HARNESS: {why}"));
        }
        Ok(measured.run)
    }

    fn print(&self, a: &Run, b: &Run, comparable: &Comparable) -> Result<i32> {
        let shown = Shown {
            metric: self.metric.as_deref(),
            all: self.all,
        };
        let refused = !comparable.refusals.is_empty();
        let difference = (!refused).then(|| Difference::of(a, b, &shown));
        let code = difference.as_ref().map_or(2, Difference::exit_code);
        if self.json {
            let document = Document {
                a: Side::of(a),
                b: Side::of(b),
                refusals: &comparable.refusals,
                notes: &comparable.notes,
                difference: difference.as_ref(),
            };
            json::print(&document)?;
            return Ok(code);
        }
        let format = if self.markdown {
            Format::Markdown
        } else {
            Format::Terminal
        };
        print!("{}", heading(a, b, format));
        if let Some(difference) = &difference {
            println!("{}\n", compare::summary(difference));
            print!("{}", compare::details(difference, self.all, format));
        }
        for note in &comparable.notes {
            println!("note: {note}");
        }
        if refused {
            eprintln!("mutexlab: these two cannot be compared:");
            for refusal in &comparable.refusals {
                eprintln!("  {refusal}");
            }
        }
        Ok(code)
    }
}

impl<'a> Side<'a> {
    fn of(run: &'a Run) -> Self {
        let Closure { commit, dirty, .. } = &run.closure;
        Self {
            file: &run.path,
            started: &run.started,
            commit,
            dirty: *dirty,
        }
    }
}

/// What is compared.
fn heading(a: &Run, b: &Run, format: Format) -> String {
    let mut text = String::new();
    for (side, run) in [("A", a), ("B", b)] {
        let by = match &run.closure.harness {
            Some(_) => ", its proxy by another tree's harness",
            None => "",
        };
        let commit = run.closure.short_commit();
        let file = run.path.file_name().unwrap_or_default().to_string_lossy();
        text += &match format {
            Format::Terminal => format!("{side}  {commit}{by} ({file})\n"),
            Format::Markdown => format!("- {side}: `{commit}`{by} ({file})\n"),
        };
    }
    text + "\n"
}
