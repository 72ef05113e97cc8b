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
    pub fn add(&mut self, test: &str, kernel: &str, ending: Ending, took: Option<Duration>) {
        let took = took.map_or(String::new(), |took| {
            format!(" ({:.1} s)", took.as_secs_f64())
        });
        eprintln!("{:<6} {kernel} {test}{took}", ending.verdict);
        if !ending.is_ok() {
            eprintln!("       {}", ending.reason);
        }
        self.all.push(Outcome {
            test: test.to_owned(),
            kernel: kernel.to_owned(),
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

impl Outcomes {
    /// What `of` gives, each once, in the order of running.
    fn distinct<'a>(&'a self, of: impl Fn(&'a Outcome) -> &'a str) -> Vec<&'a str> {
        let mut seen = Vec::new();
        for outcome in &self.all {
            if !seen.contains(&of(outcome)) {
                seen.push(of(outcome));
            }
        }
        seen
    }
}

/// A table of tests and kernels, and the reasons of what failed.
impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.distinct(|outcome| &outcome.kernel);
        let mut head = vec![("test", Align::Left)];
        head.extend(kernels.iter().map(|&kernel| (kernel, Align::Left)));
        let mut table = Table::new(&head);
        for test in self.distinct(|outcome| &outcome.test) {
            let verdicts = kernels.iter().map(|&kernel| {
                let outcome = self
                    .all
                    .iter()
                    .find(|outcome| outcome.test == test && outcome.kernel == kernel);
                outcome.map_or(Field::styled("–", Style::Dim), verdict)
            });
            table.row(std::iter::once(test.into()).chain(verdicts));
        }
        table.fmt(formatter)?;
        for outcome in self.all.iter().filter(|outcome| !outcome.ending.is_ok()) {
            let Ending { verdict, reason } = &outcome.ending;
            let verdict = Style::Bad.paint(verdict.name());
            writeln!(
                formatter,
                "\n  {verdict} {} on {}",
                outcome.test, outcome.kernel
            )?;
            for line in reason.lines() {
                writeln!(formatter, "    {line}")?;
            }
        }
        Ok(())
    }
}

fn verdict(outcome: &Outcome) -> Field {
    let style = match outcome.ending.verdict {
        Verdict::Ok => Style::Good,
        _ => Style::Bad,
    };
    Field::styled(outcome.ending.verdict.name(), style)
}
