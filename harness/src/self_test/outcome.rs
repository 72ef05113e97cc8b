// SPDX-License-Identifier: MIT OR Apache-2.0

//! How tests ended, told as they end and again at the end.

use std::fmt;
use std::time::Duration;

use crate::kernel::Kernel;
use crate::table::{Align, Field, Style, Table};
use crate::verdict::{Ending, Verdict};

/// One test on one kernel.
#[derive(Clone, Debug)]
struct Outcome {
    test: String,
    kernel: String,
    ending: Ending,
}

/// All tests up to now.
#[derive(Debug, Default)]
pub struct Outcomes {
    all: Vec<Outcome>,
}

impl Outcomes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a test and tells of it.
    pub fn add(&mut self, test: &str, kernel: &Kernel, ending: Ending, took: Option<Duration>) {
        let kernel = label(kernel);
        let took = took.map_or(String::new(), |took| {
            format!(" ({:.1} s)", took.as_secs_f64())
        });
        eprintln!("{:<6} {kernel} {test}{took}", ending.verdict);
        if !ending.is_ok() {
            eprintln!("       {}", ending.reason);
        }
        self.all.push(Outcome {
            test: test.to_owned(),
            kernel,
            ending,
        });
    }

    /// Takes back that the newest test passed, if it did.
    pub fn spoil_last(&mut self, ending: &Ending) {
        if let Some(last) = self.all.last_mut().filter(|last| last.ending.is_ok()) {
            eprintln!(
                "{:<6} {} {}: {}",
                ending.verdict, last.kernel, last.test, ending.reason
            );
            last.ending = ending.clone();
        }
    }

    /// How many passed.
    pub fn passed(&self) -> usize {
        self.all.len() - self.failed()
    }

    /// How many did not, for whatever reason.
    pub fn failed(&self) -> usize {
        self.all
            .iter()
            .filter(|outcome| !outcome.ending.is_ok())
            .count()
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

impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("test", Align::Left),
            ("kernel", Align::Left),
            ("verdict", Align::Left),
            ("", Align::Left),
        ]);
        for outcome in &self.all {
            let style = match outcome.ending.verdict {
                Verdict::Ok => Style::Good,
                _ => Style::Bad,
            };
            let first_line = outcome.ending.reason.lines().next().unwrap_or_default();
            table.row([
                outcome.test.as_str().into(),
                outcome.kernel.as_str().into(),
                Field::styled(outcome.ending.verdict.name(), style),
                first_line.into(),
            ]);
        }
        table.fmt(formatter)
    }
}
