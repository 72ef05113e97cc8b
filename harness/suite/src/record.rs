// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the tests of a run stand.

use jiff::Timestamp;
use mutexlab_results::outcome::{Outcome, State};

/// All tests of a run.
#[derive(Debug)]
pub struct Record {
    all: Vec<Outcome>,
    /// When the run began.
    pub started: Timestamp,
}

impl Record {
    /// Of a run without tests yet.
    pub const fn new(started: Timestamp) -> Self {
        Self {
            all: Vec::new(),
            started,
        }
    }

    /// All tests, in the order in which they were planned.
    pub fn all(&self) -> &[Outcome] {
        &self.all
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Outcome> {
        self.all.iter_mut()
    }

    /// The test at a place that [`set`](Self::set) returned.
    pub fn at(&mut self, index: usize) -> &mut Outcome {
        &mut self.all[index]
    }

    /// Which suites there are, each once, in the order of the plan.
    pub fn suites(&self) -> Vec<&str> {
        distinct(self.all.iter().map(|outcome| outcome.suite.as_str()))
    }

    /// Which tests there are, each once.
    pub fn tests(&self) -> Vec<&str> {
        distinct(self.all.iter().map(|outcome| outcome.test.as_str()))
    }

    /// The tests of one suite.
    pub fn of_suite<'a>(&'a self, suite: &'a str) -> impl Iterator<Item = &'a Outcome> + Clone {
        self.all.iter().filter(move |other| other.suite == suite)
    }

    /// Sets where a test stands, and returns its place.
    pub fn set(&mut self, suite: &str, test: &str, state: State) -> usize {
        let known = |other: &Outcome| other.suite == suite && other.test == test;
        if let Some(index) = self.all.iter().position(known) {
            self.all[index].state = state;
            return index;
        }
        self.all.push(Outcome {
            suite: suite.to_owned(),
            test: test.to_owned(),
            state,
            took: None,
            console_log: None,
            first_try: None,
        });
        self.all.len() - 1
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
