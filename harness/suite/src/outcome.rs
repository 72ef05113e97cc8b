// SPDX-License-Identifier: MIT OR Apache-2.0

//! How tests ended: all that shall run are known from the start, so that none gets lost.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::record::Record;
use super::reports::Reports;
use mutexlab_images::prepared::Kernel;
use mutexlab_model::verdict::Ending;
use mutexlab_results::outcome::{Outcome, State};

/// A test that has run.
#[derive(Debug)]
pub struct Ended<'a> {
    /// What it ran on.
    pub suite: &'a str,
    /// Its name.
    pub test: &'a str,
    /// What came out.
    pub ending: Ending,
    /// How long it took.
    pub took: Option<Duration>,
    /// What its guest printed.
    pub console_log: Option<&'a Path>,
}

/// All tests of a run.
#[derive(Debug)]
pub struct Outcomes {
    record: Record,
    /// Where they are told of, too.
    reports: Reports,
}

impl Outcomes {
    /// None yet.
    pub const fn new(started: Timestamp, reports: Reports) -> Self {
        Self {
            record: Record::new(started),
            reports,
        }
    }

    /// A test that shall run.
    pub fn plan(&mut self, suite: &str, test: &str) {
        self.record.set(suite, test, State::Pending);
    }

    /// A test that cannot run there.
    pub fn skip(&mut self, suite: &str, test: &str, why: &str) {
        self.record.set(suite, test, State::Skipped(why.to_owned()));
    }

    /// A test that should have run.
    pub fn not_run(&mut self, suite: &str, test: &str, why: &str) {
        log::info!("{:<7} {suite} {test}\n        {why}", "not run");
        self.record.set(suite, test, State::NotRun(why.to_owned()));
    }

    /// A test has ended: tells of it, and keeps the reports current.
    ///
    /// # Errors
    /// If a report cannot be written.
    pub fn ended(&mut self, ended: Ended<'_>) -> Result<()> {
        let Ended {
            suite,
            test,
            ending,
            took,
            console_log,
        } = ended;
        let seconds = took.map_or(String::new(), |took| {
            format!(" ({:.1} s)", took.as_secs_f64())
        });
        log::info!("{:<7} {suite} {test}{seconds}", ending.verdict);
        if !ending.is_ok() {
            log::info!("        {}", ending.reason);
        }
        let index = self.record.set(suite, test, State::Ended(ending));
        let outcome = self.record.at(index);
        outcome.took = took;
        outcome.console_log = console_log.map(Path::to_owned);
        self.save()
    }

    /// A test shall have a second guest, since its first one ended as `infra`.
    pub fn retry(&mut self, suite: &str, test: &str, first: &Ending, console_log: &Path) {
        let index = self.record.set(suite, test, State::Pending);
        self.record.at(index).first_try = Some(format!(
            "second try; the first ended as {}: {} ({})",
            first.verdict,
            first.reason,
            console_log.display()
        ));
    }

    /// Takes back that a test passed, if it did.
    pub fn take_back(&mut self, suite: &str, test: &str, ending: &Ending) {
        let is_it = |outcome: &&mut Outcome| outcome.suite == suite && outcome.test == test;
        let passed = self.record.iter_mut().find(is_it);
        if let Some(outcome) = passed.filter(|outcome| outcome.state.passed()) {
            log::info!("{:<7} {suite} {test}: {}", ending.verdict, ending.reason);
            outcome.state = State::Ended(ending.clone());
        }
    }

    /// Brings the reports in files up to date.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn save(&self) -> Result<()> {
        self.reports.save(&self.record)
    }

    /// The last word: reports in files are as they stay, and what goes to standard output is returned.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn finish(&self) -> Result<Option<String>> {
        self.save()?;
        self.reports.output(&self.record)
    }
}

impl Deref for Outcomes {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// Outcomes of which several threads tell.
#[derive(Debug)]
pub struct Shared(Mutex<Outcomes>);

impl Shared {
    /// For several threads.
    pub const fn new(outcomes: Outcomes) -> Self {
        Self(Mutex::new(outcomes))
    }

    /// The outcomes, while no other thread changes them.
    pub fn lock(&self) -> MutexGuard<'_, Outcomes> {
        // Each change is whole: after a panic they say what had ended before it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel's name with its flavour.
pub fn label(kernel: &Kernel) -> String {
    if kernel.debug {
        format!("{}:debug", kernel.name)
    } else {
        kernel.name.clone()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use mutexlab_model::verdict::Verdict;
    use mutexlab_results::outcome::Tally;

    /// One test of each kind of outcome, two of them as of an interrupted run.
    pub fn of_every_kind() -> Outcomes {
        let mut outcomes = Outcomes::new(Timestamp::UNIX_EPOCH, Reports::default());
        for test in ["passes", "splats", "hangs", "breaks", "never-comes", "lost"] {
            outcomes.plan("7.3:debug", test);
        }
        outcomes.plan("6.12", "passes");
        outcomes.skip("6.12", "splats", "needs a debug kernel");
        outcomes.not_run("7.3:debug", "lost", "the guest was gone");
        let mut end = |suite, test, ending, log: Option<&Path>| {
            let ended = Ended {
                suite,
                test,
                ending,
                took: Some(Duration::from_millis(1250)),
                console_log: log,
            };
            outcomes.ended(ended).unwrap();
        };
        let log = Path::new("results/logs/run/7.3-debug.console.log");
        end("7.3:debug", "passes", Ending::ok(), Some(log));
        end(
            "7.3:debug",
            "splats",
            Ending::bad(
                Verdict::Splat,
                "KASAN: <use> & \"free\" # SKIP\nsecond line\u{1b}",
            ),
            Some(log),
        );
        end(
            "7.3:debug",
            "hangs",
            Ending::bad(Verdict::Hang, "no sign of life for 240 s"),
            Some(log),
        );
        end(
            "7.3:debug",
            "breaks",
            Ending::bad(Verdict::Infra, "QEMU is missing"),
            None,
        );
        end("6.12", "passes", Ending::ok(), None);
        outcomes
    }

    #[test]
    fn what_did_not_run_is_no_pass() {
        let outcomes = of_every_kind();
        let tally = Tally::of(outcomes.all());
        assert_eq!(
            tally,
            Tally {
                passed: 2,
                failed: 3,
                skipped: 1,
                not_run: 2
            }
        );
        assert!(!tally.is_well());
        let mut planned = Outcomes::new(Timestamp::UNIX_EPOCH, Reports::default());
        planned.plan("7.3", "a");
        assert!(!Tally::of(planned.all()).is_well());
    }

    #[test]
    fn a_pass_can_be_taken_back() {
        let mut outcomes = of_every_kind();
        let word =
            |outcomes: &Outcomes, suite| outcomes.of_suite(suite).next().unwrap().state.word();
        outcomes.take_back("6.12", "passes", &Ending::bad(Verdict::Panic, "too late"));
        assert_eq!(word(&outcomes, "6.12"), "panic");
        assert_eq!(word(&outcomes, "7.3:debug"), "ok");
        // What is bad already keeps its own reason.
        outcomes.take_back(
            "6.12",
            "passes",
            &Ending::bad(Verdict::Splat, "later still"),
        );
        assert_eq!(word(&outcomes, "6.12"), "panic");
    }
}
