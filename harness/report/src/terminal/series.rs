// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commits of a kernel one after the other, as a table, and where the counts moved.

use std::fmt::Write;

use mutexlab_draw::table::{Align, Field, Style, Table};
use mutexlab_judge::series::Step;
use mutexlab_lens_analysis::moved::Moved;

use super::compare::{lines, Line};
use super::moved;

/// A commit of which is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its name, short.
    pub commit: &'a str,
    /// The first line of its message.
    pub subject: &'a str,
    /// What it did.
    pub step: &'a Step<'a>,
    /// Where, by cell; empty if the lens was not asked.
    pub functions: &'a [(String, Vec<Moved>)],
}

/// The table of the commits, and behind it the functions of those that moved something.
pub fn text(told: &[Told<'_>]) -> String {
    let mut text = table(told).to_string();
    let mut remark = false;
    for one in told {
        for (cell, functions) in one.functions {
            if functions.is_empty() {
                continue;
            }
            remark = true;
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{} {}\n  {cell}\n\n", one.commit, one.subject);
            text += &moved::table(functions, ["before", "with it"]);
        }
    }
    if remark {
        let _ = write!(text, "\n{}\n", moved::REMARK);
    }
    text
}

fn table(told: &[Told<'_>]) -> Table {
    let mut table = Table::new(&[
        ("commit", Align::Left),
        ("", Align::Left),
        ("cell", Align::Left),
        ("count", Align::Left),
        ("before", Align::Right),
        ("with it", Align::Right),
        ("difference", Align::Right),
    ]);
    for one in told {
        let subject: Field = one.subject.into();
        let note = |text: &str, style| Field::styled(text, style);
        let (note, moved) = match one.step {
            Step::First { .. } => (note("what the first is compared with", Style::Dim), &[][..]),
            Step::SameImage => (note("boots the same image", Style::Dim), &[][..]),
            Step::DoesNotBuild { .. } => (note("DOES NOT BUILD", Style::Bad), &[][..]),
            Step::Measured { moved, .. } if moved.is_empty() => {
                let elsewhere = one
                    .functions
                    .iter()
                    .any(|(_, functions)| !functions.is_empty());
                let text = if elsewhere {
                    "no count of the hooks moved; see below"
                } else {
                    "no count moved"
                };
                (note(text, Style::Dim), &[][..])
            }
            Step::Measured { moved, .. } => (Field::from(""), moved.as_slice()),
        };
        let lines = lines(moved, false);
        let Some((first, rest)) = lines.split_first() else {
            table.row([one.commit.into(), subject, note]);
            if let Step::DoesNotBuild { why, log } = one.step {
                table.row(["".into(), Field::from(*why)]);
                table.row(["".into(), Field::from(log.display().to_string())]);
            }
            continue;
        };
        table.row(
            [Field::from(one.commit), subject]
                .into_iter()
                .chain(fields(first)),
        );
        for line in rest {
            table.row([Field::from(""), "".into()].into_iter().chain(fields(line)));
        }
    }
    table
}

fn fields(line: &Line) -> [Field; 5] {
    let look = super::compare::style(line.judgement);
    [
        line.cell.as_str().into(),
        line.what.as_str().into(),
        line.from.as_str().into(),
        line.to.as_str().into(),
        Field::styled(line.change.as_str(), look),
    ]
}
