// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab reproduce`: makes the numbers of a results file again, from what it says of itself.

mod made;
mod means;

use crate::environment;
use std::fs;
use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json;
use means::Means;
use mutexlab_draw::table::Style;
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::NamedTree;
use mutexlab_judge::compare::comparable::Comparable;
use mutexlab_judge::compare::difference::{Difference, Shown};
use mutexlab_judge::compare::finding::Finding;
use mutexlab_measure::closure::tree;
use mutexlab_measure::commit::Measurer;
use mutexlab_report::terminal::compare;
use mutexlab_report::terminal::compare::Format;
use mutexlab_results::metric::Kind;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Filter;
use mutexlab_scenario::{Named, ScenarioFile};

/// Parts of the closure that may differ without a word: exact numbers must not depend on them.
const IRRELEVANT: [&str; 2] = ["host.", "harness_sha256"];

/// Measure again what a results file tells of, and say whether it is equal
///
/// Rebuilds what the file's closure names: harness, probe and proxy of their commits, in work trees of
/// their own unless they are the present one, the kernel as that commit's catalog has it, and the
/// scenario. Says what was rebuilt and what could not be. Then every exact number must be the same.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab reproduce results/20261124T024223Z-58e4c2b0a1-quick.json\n  \
    mutexlab reproduce a.json --filter module/forward\n  \
    mutexlab reproduce results/reference/quick.json --identical    Another machine's, in every number\n  \
    mutexlab reproduce a.json --tree 7.3=../linux    Of a kernel tree of your own\n\n\
Exit codes: 0 if it is equal, 1 if not, 2 if it could not be measured again, 130 if interrupted.")]
pub struct ReproduceCommand {
    /// A results file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART")]
    filter: Option<Filter>,
    /// Boot a kernel tree that you have built, as was done then
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    /// Fail also unless all that the cells say is the same, as it is in virtual mode with the same programs
    #[arg(long)]
    identical: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whether a results file's numbers could be made again.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Outcome<'a> {
    /// Whether all exact numbers are as they were, and no cell is missing.
    equal: bool,
    /// Whether nothing at all that the cells say is other than it was: no number of any kind, and no histogram.
    identical: bool,
    /// Exact numbers that are in both.
    exact_numbers: usize,
    /// Cells that are in both.
    cells: usize,
    /// By what it was measured again, and whether that is what it was measured by then.
    made: Vec<String>,
    /// What was other than then, of all that numbers may depend on.
    closure: &'a [String],
    /// What was other than then and must not matter.
    irrelevant: &'a [String],
    /// Cells that were not measured again.
    missing: &'a [&'a str],
    /// What is other than it was: `from` is then, `to` is now.
    differences: Vec<&'a Finding<'a>>,
}

impl ReproduceCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the file cannot be read, or what it names cannot be built or measured again.
    pub fn run(&self) -> Result<i32> {
        let mut then = Run::read(&self.file)?;
        if let Some(filter) = &self.filter {
            then.cells.retain(|id, _| filter.admits(id));
            if then.cells.is_empty() {
                bail!(
                    "no cell of {} is of the filter {filter}",
                    self.file.display()
                );
            }
        }
        let (means, now) = self.again(&then)?;
        let mut made = means.lines();
        made.extend(made::lines(&then.closure, &now.closure));
        let comparable = Comparable::check(&then, &now, true);
        if let Some(refusal) = comparable.refusals.first() {
            bail!("what was measured again cannot be compared: {refusal}");
        }
        let difference = Difference::of(&then, &now, &Shown::default());
        let (irrelevant, closure): (Vec<_>, Vec<_>) = now
            .closure
            .differences(&then.closure)?
            .into_iter()
            .partition(|line| IRRELEVANT.iter().any(|part| line.starts_with(part)));
        let differences: Vec<_> = difference
            .findings
            .iter()
            .filter(|finding| finding.judgement.is_change())
            .collect();
        let outcome = Outcome {
            equal: differences.is_empty() && difference.only_a.is_empty(),
            identical: difference.only_a.is_empty() && identical(&then, &now)?,
            exact_numbers: exact_numbers(&then, &now),
            cells: difference.cells,
            made,
            closure: &closure,
            irrelevant: &irrelevant,
            missing: &difference.only_a,
            differences,
        };
        if self.json {
            json::print(&outcome)?;
        } else {
            print!("{}", describe(&outcome, &difference));
        }
        Ok(i32::from(
            !outcome.equal || (self.identical && !outcome.identical),
        ))
    }

    /// Measures the same again.
    fn again(&self, then: &Run) -> Result<(Means, Run)> {
        let closure = &then.closure;
        let repository = Repository::new(&environment::repository()?);
        let present = tree(repository.directory())?;
        let means = Means::of(closure, &present)
            .with_context(|| format!("{} cannot be made again", self.file.display()))?;
        self.ensure_trees(then)?;
        eprintln!("making {} again", self.file.display());
        means.lines().iter().for_each(|line| eprintln!("  {line}"));
        let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
        let path = scratch.path().join(format!("{}.toml", then.scenario));
        fs::write(&path, &closure.scenario_text)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let scenario = ScenarioFile::load(&path)
            .context("the scenario in the results is not understood by this program")?;
        let own = |named: &&Named| named.directory.is_some();
        if let Some(named) = scenario.scenario.subjects.iter().find(own) {
            bail!(
                "{} is of the subject {}, of whose directory results have the hash and not the place: measure its \
                 scenario again, and `mutexlab compare` both results",
                self.file.display(),
                named.subject
            );
        }
        let mut there = closure.kernels.keys();
        if let Some(name) = there.find(|name| !scenario.scenario.kernels.contains(name)) {
            bail!(
                "{} is of a kernel tree that was built under the name {name}, of which results have the hash of its \
                 files and not the place: measure it again as it was, with `mutexlab bench --tree {name}=DIRECTORY` or \
                 `mutexlab series`, and `mutexlab compare` both results",
                self.file.display()
            );
        }
        let interrupt = Interrupt::install()?;
        let surroundings = environment::surroundings()?;
        let measurer = Measurer {
            repository: &repository,
            scenario: &scenario,
            filter: self.filter.as_ref().or(then.filter.as_ref()),
            trees: &self.tree,
            again: true,
            own_harness: matches!(means, Means::Commit { .. }),
            surroundings: &surroundings,
            interrupt: &interrupt,
        };
        let find = |hash: &str| self.commit(&repository, hash);
        let run = match &means {
            Means::Present => measurer.files()?,
            Means::Proxy { proxy: commit } => measurer.proxy(&find(commit)?)?,
            Means::Commit { commit } => measurer.commit(&find(commit)?)?.run,
            Means::Two { harness, proxy } => measurer.two(&find(harness)?, &find(proxy)?)?,
        };
        Ok((means, run))
    }

    /// A commit that the results name.
    fn commit(&self, repository: &Repository, hash: &str) -> Result<Commit> {
        repository.commit(hash).with_context(|| {
            format!(
                "{} is of commit {hash}, which is not here: fetch it first",
                self.file.display()
            )
        })
    }

    /// Fails unless the user gives the kernels that were trees of a user's: nothing else has them.
    fn ensure_trees(&self, then: &Run) -> Result<()> {
        for (name, kernel) in &then.closure.kernels {
            let given = self.tree.iter().any(|tree| tree.name == *name);
            if kernel.source_sha256.is_none() && !given {
                bail!(
                    "kernel {name} of {} was a tree of somebody's own, of which the results know the \
                     image's hash alone ({}): give it with --tree {name}=DIRECTORY",
                    self.file.display(),
                    kernel.image_sha256
                );
            }
        }
        Ok(())
    }
}

/// Whether cells that both have are the same in all that their files say.
fn identical(then: &Run, now: &Run) -> Result<bool> {
    let cells = |run: &Run| {
        let path = &run.path;
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_in_both = |id: &str| then.cells.contains_key(id) && now.cells.contains_key(id);
        cells(&text, is_in_both).with_context(|| format!("{} is no results file", path.display()))
    };
    Ok(cells(then)? == cells(now)?)
}

/// All that the text of a results file says of cells with the right ids.
fn cells(text: &[u8], is_right: impl Fn(&str) -> bool) -> Result<Vec<Map<String, Value>>> {
    #[derive(Deserialize)]
    struct File {
        cells: Vec<Map<String, Value>>,
    }
    let mut cells = serde_json::from_slice::<File>(text)?.cells;
    cells.retain(|cell| {
        cell.get("id")
            .and_then(Value::as_str)
            .is_some_and(&is_right)
    });
    Ok(cells)
}

/// How many exact numbers both have.
fn exact_numbers(then: &Run, now: &Run) -> usize {
    let is_exact = |index: usize| {
        let definition = then.definitions.get(index);
        definition.is_some_and(|definition| definition.kind == Kind::Exact)
    };
    let common = then
        .cells
        .iter()
        .filter(|(id, _)| now.cells.contains_key(*id));
    common
        .flat_map(|(_, cell)| cell.boots.values())
        .flat_map(|boot| &boot.values)
        .filter(|(index, _)| is_exact(*index))
        .count()
}

fn describe(outcome: &Outcome<'_>, difference: &Difference<'_>) -> String {
    let mut text = String::new();
    let mut list = |heading: &str, lines: &[String]| {
        if !lines.is_empty() {
            text.push_str(&format!("{heading}\n"));
            lines
                .iter()
                .for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    };
    list("Made again:", &outcome.made);
    list(
        "Other than then, and should not matter:",
        outcome.irrelevant,
    );
    list("OTHER THAN THEN, and may well matter:", outcome.closure);
    let missing: Vec<String> = outcome.missing.iter().map(ToString::to_string).collect();
    list("Not measured again:", &missing);
    if !outcome.differences.is_empty() {
        text.push_str(&format!("\n{}\n", compare::summary(difference)));
        text.push_str(&compare::details(difference, false, Format::Terminal));
    }
    let verdict = if outcome.equal {
        let rest = match outcome.identical {
            true => "and so is everything else that the cells say, to the last digit",
            false => "of the rest that the cells say, not everything is",
        };
        let line = format!(
            "EQUAL: all {} exact numbers of {} cells are as they were, {rest}.",
            outcome.exact_numbers, outcome.cells
        );
        Style::Good.paint(&line)
    } else {
        Style::Bad.paint("NOT EQUAL: what differs is above.")
    };
    text + "\n" + &verdict + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_the_same_if_all_that_they_say_is() {
        let of = |text: &str| cells(text.as_bytes(), |id| id != "other").unwrap();
        let one =
            r#"{"schema": 5, "cells": [{"id": "a", "h": "HIST1", "n": 1.5}, {"id": "other"}]}"#;
        let same = r#"{"cells": [{"n": 1.5, "h": "HIST1", "id": "a"}], "started": "later"}"#;
        assert_eq!(of(one), of(same));
        for (was, is) in [("HIST1", "HIST2"), ("1.5", "1.50001"), ("\"a\"", "\"b\"")] {
            assert_ne!(of(one), of(&one.replace(was, is)), "{is}");
        }
        assert!(cells(b"[]", |_| true).is_err());
    }
}
