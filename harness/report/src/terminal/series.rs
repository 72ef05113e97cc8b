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

/// The table of the commits, and behind it what does not fit into it: why some do not build, and the functions of
/// those that moved something.
pub fn text(told: &[Told<'_>]) -> String {
    let mut text = table(told).to_string();
    // Writing to a string cannot fail.
    for one in told {
        if let Step::DoesNotBuild { why, log } = one.step {
            let (commit, log) = (one.commit, log.display());
            let _ = write!(text, "\n{commit} does not build: {why}\n  {log}\n");
        }
    }
    let mut remark = false;
    for one in told {
        let others: Vec<_> = one
            .functions
            .iter()
            .filter(|(_, functions)| !functions.is_empty())
            .collect();
        if others.is_empty() {
            continue;
        }
        remark = true;
        let _ = write!(text, "\n{} {}\n", one.commit, one.subject);
        for (cell, functions) in others {
            let table = moved::table(functions, ["before", "with it"]);
            let _ = write!(text, "\n  {cell}\n{table}");
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
                let mut seen = one.functions.iter();
                let text = match one.functions {
                    [] => "no count of the hooks moved",
                    _ if seen.any(|(_, functions)| !functions.is_empty()) => {
                        "no count of the hooks moved; see below"
                    }
                    _ => "no count moved",
                };
                (note(text, Style::Dim), &[][..])
            }
            Step::Measured { moved, .. } => (Field::from(""), moved.as_slice()),
        };
        let lines = lines(moved, false);
        if lines.is_empty() {
            table.row([one.commit.into(), subject, note]);
            continue;
        }
        let mut head = [Field::from(one.commit), subject];
        let mut last = "";
        for line in &lines {
            // A cell's name stands once.
            let cell = if line.cell == last { "" } else { &line.cell };
            last = &line.cell;
            table.row(head.into_iter().chain(fields(cell, line)));
            head = ["".into(), "".into()];
        }
    }
    table
}

fn fields(cell: &str, line: &Line) -> [Field; 5] {
    let look = super::compare::style(line.judgement);
    [
        cell.into(),
        line.what.as_str().into(),
        line.from.as_str().into(),
        line.to.as_str().into(),
        Field::styled(line.change.as_str(), look),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use mutexlab_judge::series::{steps, Outcome};
    use mutexlab_lens_analysis::difference::Pair;
    use mutexlab_results::sample::{exact, run};
    use mutexlab_results::slim::Run;

    fn of(image: &str, hook: f64) -> Run {
        let mut run = run(&[(
            "c",
            &[&[exact("hook.mean", hook), exact("hook.max", 2.0 * hook)]],
        )]);
        for kernel in run.closure.kernels.values_mut() {
            kernel.image_sha256 = image.repeat(64);
        }
        run
    }

    #[test]
    fn each_commit_has_a_line_and_what_moved_its_functions() {
        let runs = [of("a", 7.0), of("b", 7.0), of("b", 7.0), of("c", 9.0)];
        let [base, other, same, moving] = runs.each_ref().map(Outcome::Measured);
        let broken = Outcome::DoesNotBuild {
            why: "net/a.c:1:2: error: nonsense",
            log: Path::new("/a.log"),
        };
        let steps = steps(&[base, other, same, broken, moving]);
        let moved = Moved {
            function: "ip_forward".to_owned(),
            hooks: None,
            outside: Some(Pair { a: 1.0, b: 3.0 }),
        };
        let functions = [("c".to_owned(), vec![moved])];
        let still = [("c".to_owned(), Vec::new())];
        let told: Vec<Told<'_>> = ["1", "2", "3", "4", "5"]
            .iter()
            .zip(&steps)
            .map(|(commit, step)| Told {
                commit,
                subject: "Subject",
                step,
                functions: match *commit {
                    "2" => &still,
                    "5" => &functions,
                    _ => &[],
                },
            })
            .collect();
        let text = text(&told);
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[1..7],
            [
                "1 Subject what the first is compared with",
                "2 Subject no count moved",
                "3 Subject boots the same image",
                "4 Subject DOES NOT BUILD",
                "5 Subject c hook.mean 7 9 +2",
                "hook.max 14 18 +4",
            ]
        );
        assert!(text.contains("4 does not build: net/a.c:1:2: error: nonsense\n  /a.log"));
        assert_eq!(
            lines
                .iter()
                .filter(|line| *line == "ip_forward outside 1.00 3.00 +2.00")
                .count(),
            1
        );
        assert!(text.ends_with(&format!("{}\n", moved::REMARK)));
    }
}
