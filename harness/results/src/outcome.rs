// SPDX-License-Identifier: MIT OR Apache-2.0

//! How tests ended.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_model::verdict::{Ending, Verdict};

/// Where a test stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The run has not come to it. Whoever finds this after the run knows that it was cut short.
    Pending,
    /// It ran, and this came out.
    Ended(Ending),
    /// It cannot run on this kernel, and why; neither a pass nor a failure.
    Skipped(String),
    /// It should have run and could not, and why.
    NotRun(String),
}

impl State {
    /// Whether the test passed. Nothing but that is a pass.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Ended(ending) if ending.is_ok())
    }

    /// Why it did not run, if it should have.
    pub fn why_not_run(&self) -> Option<&str> {
        match self {
            Self::Pending => Some("the run ended before"),
            Self::NotRun(why) => Some(why),
            Self::Ended(_) | Self::Skipped(_) => None,
        }
    }

    /// A word for it: a verdict, or what is none.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ended(ending) => ending.verdict.name(),
            Self::Skipped(_) => "skip",
            Self::Pending | Self::NotRun(_) => "not run",
        }
    }
}

/// One test on one kernel.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it ran on, such as `7.3:debug`, or what it is a test of.
    pub suite: String,
    /// The test's name.
    pub test: String,
    /// Where it stands.
    pub state: State,
    /// How long it took, if it ran and that is known.
    pub took: Option<Duration>,
    /// What its guest printed, if it had one of which that was kept.
    pub console_log: Option<PathBuf>,
    /// How a first guest ended, if this is of a second one: only our own machinery's failures are
    /// tried once more.
    pub first_try: Option<String>,
}

impl Outcome {
    /// What is wrong, if it is neither a pass nor one that cannot run there. A test that did not
    /// run says nothing about the module.
    pub fn trouble(&self) -> Option<(Verdict, &str)> {
        match &self.state {
            State::Ended(ending) if ending.is_ok() => None,
            State::Ended(ending) => Some((ending.verdict, &ending.reason)),
            State::Skipped(_) | State::Pending | State::NotRun(_) => {
                Some((Verdict::Infra, self.state.why_not_run()?))
            }
        }
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those that ran and did not pass.
    pub failed: usize,
    /// Those that cannot run on their kernel.
    pub skipped: usize,
    /// Those that should have run.
    pub not_run: usize,
}

impl Tally {
    /// Of some tests.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            let count = match &outcome.state {
                State::Ended(ending) if ending.is_ok() => &mut tally.passed,
                State::Ended(_) => &mut tally.failed,
                State::Skipped(_) => &mut tally.skipped,
                State::Pending | State::NotRun(_) => &mut tally.not_run,
            };
            *count += 1;
        }
        tally
    }

    /// Whether nothing is wrong.
    pub const fn is_well(self) -> bool {
        self.failed == 0 && self.not_run == 0
    }
}
