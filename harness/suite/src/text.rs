// SPDX-License-Identifier: MIT OR Apache-2.0

//! The outcomes of a run for people: a table of tests and kernels, and the reasons of what failed or
//! was tried twice.

use std::fmt::{self, Write};

use super::record::Record;
use mutexlab_draw::table::{Align, Field, Style, Table};
use mutexlab_machine::decode;
use mutexlab_results::outcome::{Outcome, State, Tally};

/// All of a run.
pub struct Text<'a>(pub &'a Record);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes = self.0;
        let suites = outcomes.suites();
        let mut head = vec![("test", Align::Left)];
        head.extend(suites.iter().map(|&suite| (suite, Align::Left)));
        let mut table = Table::new(&head);
        for test in outcomes.tests() {
            let fields = suites.iter().map(|&suite| {
                let found = outcomes.of_suite(suite).find(|other| other.test == test);
                found.map_or(Field::styled("–", Style::Dim), field)
            });
            table.row(std::iter::once(test.into()).chain(fields));
        }
        table.fmt(formatter)?;
        for outcome in outcomes.all() {
            if let State::Ended(ending) = &outcome.state
                && (!ending.is_ok() || outcome.first_try.is_some())
            {
                let style = if ending.is_ok() {
                    Style::Good
                } else {
                    Style::Bad
                };
                let verdict = style.paint(ending.verdict.name());
                let Outcome { test, suite, .. } = outcome;
                writeln!(formatter, "\n  {verdict} {test} on {suite}")?;
                for line in details(outcome) {
                    writeln!(formatter, "    {line}")?;
                }
            }
        }
        formatter.write_char('\n')?;
        let Tally {
            passed,
            failed,
            skipped,
            not_run,
        } = Tally::of(outcomes.all());
        if not_run > 0 {
            let told = format!("{not_run} that should have run did not");
            writeln!(formatter, "{}", Style::Bad.paint(&told))?;
        }
        writeln!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// Why a test did not pass, and where to look, line by line. Empty for a pass without a log.
pub fn details(outcome: &Outcome) -> Vec<String> {
    let reason = match &outcome.state {
        State::Ended(ending) => ending.reason.as_str(),
        State::Skipped(why) => why,
        state => state.why_not_run().unwrap_or_default(),
    };
    let mut lines: Vec<String> = reason.lines().map(str::to_owned).collect();
    lines.extend(outcome.first_try.clone());
    if let Some(log) = &outcome.console_log {
        lines.push(format!("console log: {}", log.display()));
        if !outcome.state.passed() && decode::beside(log).is_file() {
            lines.push(format!("decoded: {}", decode::beside(log).display()));
        }
    }
    lines
}

fn field(outcome: &Outcome) -> Field {
    let style = match &outcome.state {
        State::Ended(ending) if ending.is_ok() => Style::Good,
        State::Skipped(_) => Style::Dim,
        _ => Style::Bad,
    };
    Field::styled(outcome.state.word(), style)
}

#[cfg(test)]
mod tests {
    use super::super::outcome::tests::of_every_kind;
    use super::*;

    #[test]
    fn failures_name_their_log() {
        let text = Text(&of_every_kind()).to_string();
        assert!(text.contains("splat splats on 7.3:debug"), "{text}");
        let log = "    console log: results/logs/run/7.3-debug.console.log";
        assert_eq!(text.matches(log).count(), 2, "{text}");
        assert!(
            text.ends_with("2 that should have run did not\n2 passed, 3 failed, 1 skipped\n"),
            "{text}"
        );
    }
}
