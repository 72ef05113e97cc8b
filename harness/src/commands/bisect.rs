// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `bisect`.

use crate::environment;
use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::interrupt::{Interrupt, Interrupted};
use mutexlab_judge::bisect::halving;
use mutexlab_judge::bisect::halving::{Found, Judged};
use mutexlab_judge::bisect::value;
use mutexlab_judge::bisect::value::Value;
use mutexlab_measure::commit::Measurer;
use mutexlab_report::terminal::compare::{plain, unit_name};
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Filter;
use mutexlab_scenario::ScenarioFile;

/// What of a commit is measured: nothing else can change a number.
const MEASURED: &str = "module";

/// Find the commit that changed a metric
///
/// Measures commits between GOOD and BAD, along first parents, as `compare` does, until it is found.
/// Results are kept: after an interruption the same command goes on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab bisect hook.mean v1 HEAD\n  \
    mutexlab bisect hook.first_packet HEAD~20 HEAD --cell module/forward-v4-udp-64\n\n\
Exit codes: 0 if it is found, 1 if it is one of several that cannot be measured, 2 if the search could not run, 130 if interrupted.")]
pub struct BisectCommand {
    /// The metric's name, such as hook.mean
    #[arg(value_name = "METRIC")]
    metric: String,
    /// A commit from before the change
    #[arg(value_name = "GOOD")]
    good: String,
    /// A commit that has it
    #[arg(value_name = "BAD")]
    bad: String,
    /// What commits are measured with
    #[arg(long, value_name = "FILE", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// Measure only cells with this in their names, and follow one of them [default: the cell that
    /// changed most]
    #[arg(long, value_name = "PART")]
    cell: Option<Filter>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The commit that changed a metric.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report {
    /// The metric that was followed.
    metric: String,
    /// In which cell.
    cell: String,
    /// The unit of all numbers here.
    unit: String,
    /// What it was in GOOD.
    good: f64,
    /// What it is in BAD.
    bad: f64,
    /// The first commit that is bad.
    first_bad: CommitReport,
    /// Commits before it that could not be measured, any of which may have done it.
    suspects: Vec<CommitReport>,
    /// What it was before that commit.
    before: f64,
    /// What it is with it.
    after: f64,
}

/// A commit.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CommitReport {
    /// Its hash, in full.
    commit: String,
    /// The first line of its message.
    subject: String,
}

impl BisectCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If GOOD or BAD cannot be measured, or do not differ, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = Repository::new(&environment::repository()?);
        let scenario = ScenarioFile::load(&self.scenario)?;
        let interrupt = Interrupt::install()?;
        let surroundings = environment::surroundings()?;
        let measurer = Measurer {
            repository: &repository,
            scenario: &scenario,
            filter: self.cell.as_ref(),
            trees: &[],
            again: false,
            own_harness: false,
            surroundings: &surroundings,
            interrupt: &interrupt,
        };
        let report = self.search(&repository, &mut |commit| {
            measurer.commit(commit).map(|measured| measured.run)
        })?;
        if self.json {
            json::print(&report)?;
        } else {
            print!("{}", report.text());
        }
        Ok(i32::from(!report.suspects.is_empty()))
    }

    /// The search itself, whatever measures.
    fn search(
        &self,
        repository: &Repository,
        measure: &mut dyn FnMut(&Commit) -> Result<Run>,
    ) -> Result<Report> {
        let good = repository.commit(&self.good)?;
        let bad = repository.commit(&self.bad)?;
        let commits = repository.between(&good, &bad, MEASURED)?;
        if commits.is_empty() {
            bail!(
                "no commit behind {} up to {} changes {MEASURED}/, of which everything is that is measured",
                good.short(),
                bad.short()
            );
        }
        let run_of_good = measure(&good).context("GOOD cannot be measured")?;
        let run_of_bad = measure(&bad).context("BAD cannot be measured")?;
        let filter = self.cell.as_ref();
        let cell = value::most_different(&run_of_good, &run_of_bad, &self.metric, filter)?;
        let of = |run: &Run| Value::of(run, &cell, &self.metric);
        let (value_of_good, value_of_bad) = (of(&run_of_good)?, of(&run_of_bad)?);
        eprintln!(
            "{cell}: {} {} in {}, {} in {}; {} commits change {MEASURED}/",
            self.metric,
            value_of_good.number,
            good.short(),
            value_of_bad.number,
            bad.short(),
            commits.len()
        );
        let mut values = vec![None; commits.len()];
        if let Some(last) = values.last_mut() {
            // It has the same module.
            *last = Some(value_of_bad.number);
        }
        let found = halving::first_bad(commits.len(), |index| {
            let commit = &commits[index];
            match measure(commit).and_then(|run| of(&run)) {
                Ok(value) => {
                    values[index] = Some(value.number);
                    let judged = value.judged(value_of_good, value_of_bad);
                    eprintln!("{}: {}: {judged:?}", commit.short(), value.number);
                    Ok(judged)
                }
                Err(error) if error.is::<Interrupted>() => Err(error),
                Err(error) => {
                    eprintln!("{}: skipped: {error:#}", commit.short());
                    Ok(Judged::Skipped)
                }
            }
        })?;
        let Found {
            first_bad,
            suspects,
        } = found;
        let before = values[..first_bad].iter().rev().flatten().next();
        let tell = |index: usize| -> Result<CommitReport> {
            let commit = &commits[index];
            Ok(CommitReport {
                commit: commit.hash.clone(),
                subject: repository.subject(commit)?,
            })
        };
        Ok(Report {
            metric: self.metric.clone(),
            unit: unit_name(value_of_good.unit),
            good: value_of_good.number,
            bad: value_of_bad.number,
            first_bad: tell(first_bad)?,
            suspects: suspects.into_iter().map(tell).collect::<Result<_>>()?,
            before: before.copied().unwrap_or(value_of_good.number),
            after: values[first_bad].unwrap_or(value_of_bad.number),
            cell,
        })
    }
}

impl Report {
    fn text(&self) -> String {
        let by = self.after - self.before;
        let mut text = format!(
            "{} {}\n  {} of {}: {} before, {} with it ({})\n",
            self.first_bad.commit,
            self.first_bad.subject,
            self.metric,
            self.cell,
            plain(self.before, by),
            plain(self.after, by),
            self.unit
        );
        if !self.suspects.is_empty() {
            text += "  These before it could not be measured, and any of them may have done it:\n";
            for suspect in &self.suspects {
                text += &format!("    {} {}\n", suspect.commit, suspect.subject);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::sample::with_history;
    use mutexlab_results::sample::{exact, run};

    fn command(good: &Commit, bad: &Commit) -> BisectCommand {
        BisectCommand {
            metric: "hook.mean".into(),
            good: good.hash.clone(),
            bad: bad.hash.clone(),
            scenario: PathBuf::new(),
            cell: None,
            json: false,
        }
    }

    /// What a module costs that says so itself, or does not build.
    fn measure(repository: &Repository, commit: &Commit) -> Result<Run> {
        let text = repository.git(&["show", &format!("{}:module/a", commit.hash)])?;
        let cost = text.parse().context("does not build")?;
        Ok(run(&[
            ("changes", &[&[exact("hook.mean", cost)]]),
            ("stays", &[&[exact("hook.mean", 7.0)]]),
        ]))
    }

    #[test]
    fn the_commit_is_found_in_a_history() {
        let states = [
            "100", "99", "", "101", "broken", "102", "", "102", "103", "",
        ];
        let (_directory, repository, commits) = with_history(&states);
        let mut measured = Vec::new();
        let command = command(&commits[0], &commits[9]);
        let report = command
            .search(&repository, &mut |commit| {
                measured.push(commit.hash.clone());
                measure(&repository, commit)
            })
            .unwrap();
        assert_eq!(report.cell, "changes");
        assert_eq!(report.first_bad.subject, "State 3");
        assert_eq!((report.before, report.after), (99.0, 101.0));
        assert_eq!(report.suspects, []);
        let mut once = measured.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), measured.len());
        assert!(measured.len() < states.len() - 2, "{}", measured.len());
    }

    #[test]
    fn what_cannot_be_measured_is_suspected() {
        let (_directory, repository, commits) = with_history(&["1", "1", "no", "nor this", "2"]);
        let command = command(&commits[0], &commits[4]);
        let report = command
            .search(&repository, &mut |commit| measure(&repository, commit))
            .unwrap();
        assert_eq!(report.first_bad.subject, "State 4");
        let suspects: Vec<_> = report.suspects.iter().map(|s| s.subject.as_str()).collect();
        assert_eq!(suspects, ["State 2", "State 3"]);
        assert!(report.text().contains("could not be measured"));
    }

    #[test]
    fn a_history_without_the_change_is_refused() {
        let (_directory, repository, commits) = with_history(&["1", "", "1 ", "1"]);
        let search = |good: usize, bad: usize| {
            let command = command(&commits[good], &commits[bad]);
            let result = command.search(&repository, &mut |commit| measure(&repository, commit));
            format!("{:#}", result.unwrap_err())
        };
        assert!(search(0, 1).contains("no commit behind"));
        assert!(search(0, 3).contains("the same in both"));
        assert!(search(3, 0).contains("does not come before"));
    }

    #[test]
    fn an_interruption_ends_the_search() {
        let (_directory, repository, commits) = with_history(&["1", "1.0", "1.00", "2"]);
        let command = command(&commits[0], &commits[3]);
        let result = command.search(&repository, &mut |commit| {
            if [&commits[0], &commits[3]].contains(&commit) {
                measure(&repository, commit)
            } else {
                Err(Interrupted.into())
            }
        });
        assert!(result.unwrap_err().is::<Interrupted>());
    }
}
