// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports of a run for programs, and where they go.

use std::convert::Infallible;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{bail, Context, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::record::Record;
use super::{junit, ktap};
use mutexlab_results::outcome::{Outcome, State, Tally};

/// Version of the JSON; raised whenever a reader of the old one would misread the new one.
const SCHEMA: u32 = 1;

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output, when the run is over.
    Output,
    /// A file, which is current from the start of the run on.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Output,
            path => Self::File(path.into()),
        })
    }
}

/// Which reports are wanted.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// JSON instead of a table, on standard output.
    pub json: bool,
    /// KTAP.
    pub ktap: Option<Place>,
    /// JUnit's XML.
    pub junit: Option<Place>,
}

impl Reports {
    /// Fails if two want standard output.
    ///
    /// # Errors
    /// Only that.
    pub fn check(&self) -> Result<()> {
        if self.on_output() > 1 {
            bail!(
                "only one of --json, --ktap - and --junit - can go to standard output: give the \
                 others a file"
            );
        }
        Ok(())
    }

    fn on_output(&self) -> usize {
        let to_output = |place: &Option<Place>| *place == Some(Place::Output);
        [self.json, to_output(&self.ktap), to_output(&self.junit)]
            .into_iter()
            .filter(|&wants| wants)
            .count()
    }

    /// Writes what goes to files, each as a whole: whoever looks sees no half of one.
    pub(super) fn save(&self, outcomes: &Record) -> Result<()> {
        if let Some(Place::File(path)) = &self.ktap {
            replace(path, &ktap::text(outcomes))?;
        }
        if let Some(Place::File(path)) = &self.junit {
            replace(path, &junit::text(outcomes))?;
        }
        Ok(())
    }

    /// What goes to standard output, if something does.
    pub(super) fn output(&self, outcomes: &Record) -> Result<Option<String>> {
        Ok(if self.ktap == Some(Place::Output) {
            Some(ktap::text(outcomes))
        } else if self.junit == Some(Place::Output) {
            Some(junit::text(outcomes))
        } else if self.json {
            let document = serde_json::to_string_pretty(&Document::of(outcomes));
            Some(document.context("cannot write JSON")? + "\n")
        } else {
            None
        })
    }
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let cannot_write = || format!("cannot write the report {}", path.display());
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(cannot_write)?;
    file.write_all(text.as_bytes()).with_context(cannot_write)?;
    // A temporary file is its owner's alone; a report is for whoever may read the directory.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(file.path(), readable).with_context(cannot_write)?;
    file.persist(path).with_context(cannot_write)?;
    Ok(())
}

/// How the tests of a run ended.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// Version of this form.
    #[schemars(extend("const" = SCHEMA))]
    schema: u32,
    /// When the run began, RFC 3339, UTC.
    started: String,
    /// Whether the run came to its end.
    complete: bool,
    /// Tests that passed.
    passed: usize,
    /// Those that ran and did not pass.
    failed: usize,
    /// Those that cannot run on their kernel.
    skipped: usize,
    /// Those that should have run.
    not_run: usize,
    /// All of them, in the order of the plan.
    tests: Vec<Test<'a>>,
}

/// How a test ended.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Test<'a> {
    /// What it ran on, such as `7.3:debug`, or what it is a test of.
    suite: &'a str,
    /// Its name.
    test: &'a str,
    /// A verdict, `skip`, or `not run`.
    outcome: &'a str,
    /// Why, unless it passed.
    reason: Option<&'a str>,
    /// How long it took; null if it did not run, or that is not known.
    seconds: Option<f64>,
    /// What its guest printed, if it had one of which that was kept.
    console_log: Option<&'a Path>,
    /// How a first guest ended, if this is of a second one.
    first_try: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn of(outcomes: &'a Record) -> Self {
        let Tally {
            passed,
            failed,
            skipped,
            not_run,
        } = Tally::of(outcomes.all());
        let is_pending = |outcome: &Outcome| outcome.state == State::Pending;
        Self {
            schema: SCHEMA,
            started: outcomes.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            complete: !outcomes.all().iter().any(is_pending),
            passed,
            failed,
            skipped,
            not_run,
            tests: outcomes.all().iter().map(Test::of).collect(),
        }
    }
}

impl<'a> Test<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let reason = match &outcome.state {
            State::Ended(ending) => Some(ending.reason.as_str()).filter(|_| !ending.is_ok()),
            State::Skipped(why) => Some(why.as_str()),
            state => state.why_not_run(),
        };
        Self {
            suite: &outcome.suite,
            test: &outcome.test,
            outcome: outcome.state.word(),
            reason,
            seconds: outcome.took.map(|took| took.as_secs_f64()),
            console_log: outcome.console_log.as_deref(),
            first_try: outcome.first_try.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::outcome::tests::of_every_kind;
    use super::super::outcome::Ended;
    use super::*;
    use crate::outcome::Outcomes;
    use mutexlab_model::verdict::Ending;

    #[test]
    fn standard_output_is_for_one() {
        let reports = |json, ktap: Option<&str>, junit: Option<&str>| Reports {
            json,
            ktap: ktap.map(|text| text.parse().unwrap()),
            junit: junit.map(|text| text.parse().unwrap()),
        };
        assert!(reports(true, Some("a"), Some("b")).check().is_ok());
        assert!(reports(true, Some("-"), None).check().is_err());
        assert!(reports(false, Some("-"), Some("-")).check().is_err());
        let outcomes = of_every_kind();
        assert_eq!(
            reports(false, Some("a"), None).output(&outcomes).unwrap(),
            None
        );
        assert!(reports(false, Some("-"), None)
            .output(&outcomes)
            .unwrap()
            .is_some());
    }

    #[test]
    fn files_are_there_from_the_start_and_follow() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.ktap");
        let reports = Reports {
            ktap: Some(Place::File(path.clone())),
            ..Reports::default()
        };
        let mut outcomes = Outcomes::new(Timestamp::UNIX_EPOCH, reports);
        outcomes.plan("7.3", "a");
        outcomes.save().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("not ok 1 a # ERROR not run"), "{text}");
        let ended = Ended {
            suite: "7.3",
            test: "a",
            ending: Ending::ok(),
            took: None,
            console_log: None,
        };
        outcomes.ended(ended).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n  ok 1 a\n"), "{text}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_report_that_cannot_be_written_says_where() {
        let reports = Reports {
            junit: Some(Place::File("/nonexistent/report.xml".into())),
            ..Reports::default()
        };
        let error = Outcomes::new(Timestamp::UNIX_EPOCH, reports)
            .save()
            .unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/report.xml"));
    }

    #[test]
    fn json_tells_what_was_not_run() {
        let outcomes = of_every_kind();
        let document = serde_json::to_value(Document::of(&outcomes)).unwrap();
        assert_eq!(document["complete"], false);
        assert_eq!(document["not_run"], 2);
        let tests = document["tests"].as_array().unwrap();
        let find = |name: &str| tests.iter().find(|test| test["test"] == name).unwrap();
        assert_eq!(find("never-comes")["outcome"], "not run");
        assert_eq!(find("lost")["reason"], "the guest was gone");
        assert_eq!(find("passes")["reason"], serde_json::Value::Null);
        assert_eq!(find("hangs")["seconds"], 1.25);
    }
}
