// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels beside each other, as a table: each metric on the first, on the others, and the difference.

use mutexlab_draw::table::{Align, Field, Style, Table};
use mutexlab_judge::compare::finding::{Change, Finding};
use mutexlab_judge::trees::{Beside, Row};
use mutexlab_results::metric::{BULK_PER_KIB, FIRST_PACKET, HOOK_MEAN, PATH_MEAN, ROUTER};

use super::compare::{listed, percent, plain, signed, style};

/// What is told of every cell, moved or not.
const ALWAYS: [&str; 5] = [HOOK_MEAN, FIRST_PACKET, PATH_MEAN, ROUTER, BULK_PER_KIB];

/// The table, and what is to be said of it. Unless `all` is to be told, metrics that did not move are left out, and
/// exact ones of a cell that moved by the same numbers share a line.
pub fn text(beside: &Beside<'_>, all: bool) -> String {
    let Some((first, others)) = beside.trees.split_first() else {
        return String::new();
    };
    let mut head = vec![
        ("cell", Align::Left),
        ("metric", Align::Left),
        (*first, Align::Right),
    ];
    for &other in others {
        head.extend([(other, Align::Right), ("difference", Align::Right)]);
    }
    if others.len() == 1 {
        head.push(("%", Align::Right));
    }
    head.push(("", Align::Left));
    let mut table = Table::new(&head);
    let mut last = "";
    for (row, names) in grouped(beside, all) {
        // A cell's name stands once.
        let cell = if row.cell == last { "" } else { row.cell };
        last = row.cell;
        table.row(fields(cell, &names, row, others.len()));
    }
    format!("{table}\n{}", remarks(beside))
}

/// The rows that are told, each with the names of its metrics.
fn grouped<'a>(beside: &'a Beside<'a>, all: bool) -> Vec<(&'a Row<'a>, Vec<&'a str>)> {
    let told = |row: &&Row<'_>| {
        let always = row.metric.is_none_or(|metric| ALWAYS.contains(&metric));
        all || always || row.is_change()
    };
    let mut rows: Vec<(&Row<'_>, Vec<&str>)> = Vec::new();
    for row in beside.rows.iter().filter(told) {
        let by = moves(row).filter(|_| !all && row.is_change());
        let alike = |(other, _): &&mut (&Row<'_>, _)| {
            by.is_some() && other.cell == row.cell && moves(other) == by
        };
        match (rows.iter_mut().find(alike), row.metric) {
            (Some((_, names)), Some(metric)) => names.push(metric),
            (_, metric) => rows.push((row, metric.into_iter().collect())),
        }
    }
    rows
}

/// By how much an exact metric moved on each; none if there is one on which it is no such metric.
fn moves(row: &Row<'_>) -> Option<Vec<u64>> {
    let moved = row.found.iter().map(|found| match found.as_ref()?.change {
        Change::Exact { from, to, .. } => Some((to - from).to_bits()),
        _ => None,
    });
    moved.collect()
}

fn fields(cell: &str, names: &[&str], row: &Row<'_>, others: usize) -> Vec<Field> {
    let metric = match names {
        [] => "verdict".to_owned(),
        names => listed(names),
    };
    // A number is written with as many digits as its smallest difference needs.
    let by = row.found.iter().flatten().filter_map(|finding| {
        let (from, to) = numbers(&finding.change)?;
        (to != from).then_some((to - from).abs())
    });
    let by = by.fold(f64::INFINITY, f64::min);
    let by = if by.is_finite() { by } else { 0.0 };
    let first = row.found.iter().flatten().next();
    let first = first.map_or_else(String::new, |finding| ends(&finding.change, by).0);
    let mut fields = vec![Field::from(cell), metric.into(), first.into()];
    for finding in &row.found {
        let Some(finding) = finding else {
            fields.extend([Field::from("–"), "".into()]);
            continue;
        };
        let look = style(finding.judgement);
        fields.push(ends(&finding.change, by).1.into());
        fields.push(Field::styled(difference(finding), look));
    }
    if others == 1 {
        let numbers = row
            .found
            .iter()
            .flatten()
            .find_map(|one| numbers(&one.change));
        let percent = numbers.map_or_else(String::new, |(from, to)| percent(from, to));
        fields.push(percent.into());
    }
    let (kind, look) = kind(row);
    fields.push(Field::styled(kind, look));
    fields
}

const fn numbers(change: &Change<'_>) -> Option<(f64, f64)> {
    match *change {
        Change::Exact { from, to, .. }
        | Change::Modelled { from, to, .. }
        | Change::Repeatable { from, to, .. }
        | Change::Sampled { from, to, .. } => Some((from, to)),
        Change::Verdict { .. } | Change::Varies { .. } => None,
    }
}

/// What it was on the first, and what it is.
fn ends(change: &Change<'_>, by: f64) -> (String, String) {
    let list = |values: &[f64]| {
        let texts: Vec<_> = values.iter().map(|&value| plain(value, 0.0)).collect();
        texts.join(" ")
    };
    match change {
        Change::Verdict { from, to, .. } => (from.to_string(), to.to_string()),
        Change::Varies { from, to, .. } => (list(from), list(to)),
        &(Change::Exact { from, to, .. }
        | Change::Modelled { from, to, .. }
        | Change::Repeatable { from, to, .. }
        | Change::Sampled { from, to, .. }) => (plain(from, by), plain(to, by)),
    }
}

fn difference(finding: &Finding<'_>) -> String {
    match finding.change {
        Change::Verdict { reason, .. } => reason.unwrap_or_default().to_owned(),
        Change::Varies { .. } => "not exact".to_owned(),
        Change::Exact { from, to, .. }
        | Change::Modelled { from, to, .. }
        | Change::Repeatable { from, to, .. }
        | Change::Sampled { from, to, .. } => {
            if from == to {
                "=".to_owned()
            } else {
                signed(to - from, to - from)
            }
        }
    }
}

/// What kind of number a row has, and whether it is to be believed as it stands.
fn kind(row: &Row<'_>) -> (String, Style) {
    let mut kind = ("", Style::Plain);
    for finding in row.found.iter().flatten() {
        kind = match &finding.change {
            Change::Verdict { .. } => ("", Style::Plain),
            Change::Varies { .. } | Change::Exact { .. } => ("exact", Style::Plain),
            Change::Modelled { .. } => ("modelled", Style::Dim),
            Change::Repeatable { .. } => ("repeatable", Style::Plain),
            Change::Sampled { .. } if finding.judgement.is_change() => {
                ("sampled, sure", Style::Plain)
            }
            Change::Sampled { .. } => ("sampled", Style::Dim),
        };
        if finding.judgement.is_change() {
            break;
        }
    }
    (kind.0.to_owned(), kind.1)
}

fn remarks(beside: &Beside<'_>) -> String {
    let changed = beside.rows.iter().filter(|row| row.is_change());
    let mut cells: Vec<&str> = changed.map(|row| row.cell).collect();
    cells.dedup();
    let moved = match cells.len() {
        0 => format!("No exact count of {} moved.\n", count(beside.cells)),
        moved => format!("Of {} {moved} moved.\n", count(beside.cells)),
    };
    let sampled = if beside.rows.iter().any(Row::is_sampled) {
        "What is sampled varies from boot to boot, also on one kernel: docs/comparing.md.\n"
    } else {
        ""
    };
    moved + sampled
}

fn count(cells: usize) -> String {
    let noun = if cells == 1 { "cell" } else { "cells" };
    format!("{cells} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_judge::trees::side;
    use mutexlab_results::sample::{exact, run, sampled, MetricOfTest};
    use mutexlab_results::slim::Run;

    fn table(labels: &[&str], all: bool) -> Vec<Vec<String>> {
        let metrics = |hook: f64, path: f64| -> Vec<MetricOfTest> {
            vec![
                exact("hook.original.mean", hook),
                exact("hook.reply.mean", 5.0),
                exact("hook.mean", hook / 2.0 + 3.0),
                exact("hook.original.max", hook),
                sampled("path.mean", path),
            ]
        };
        let cells = [
            ("before/c", metrics(7.0, 90.0)),
            ("after/c", metrics(8.0, 91.5)),
            ("later/c", metrics(7.0, 90.0)),
        ];
        let boots: Vec<[&[MetricOfTest]; 1]> =
            cells.iter().map(|(_, of)| [of.as_slice()]).collect();
        let cells: Vec<(&str, &[&[MetricOfTest]])> = cells
            .iter()
            .zip(&boots)
            .map(|((id, _), boots)| (*id, boots.as_slice()))
            .collect();
        let mut whole = run(&cells);
        for (id, cell) in &mut whole.cells {
            cell.kernel = id.split('/').next().unwrap().to_owned();
        }
        let sides: Vec<Run> = labels.iter().map(|label| side(&whole, label)).collect();
        let text = text(&Beside::of(labels, &sides), all);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().map(words).collect()
    }

    #[test]
    fn two_have_a_difference_and_what_moved_alike_shares_a_line() {
        let lines = table(&["before", "after"], false);
        assert_eq!(
            lines[0],
            ["cell", "metric", "before", "after", "difference", "%"]
        );
        let hook = ["c", "hook.mean", "6.50", "7.00", "+0.50", "+7.69", "exact"];
        assert_eq!(lines[1], hook);
        let names = ["hook.original.mean,", "hook.original.max"];
        assert_eq!(lines[2][..2], names);
        assert_eq!(lines[2][2..], ["7", "8", "+1", "+14", "exact"]);
        assert_eq!(
            lines[3],
            ["path.mean", "90.0", "91.5", "+1.5", "+1.67", "sampled"]
        );
        assert_eq!(lines[5].join(" "), "Of 1 cell 1 moved.");
    }

    #[test]
    fn what_moved_otherwise_has_a_line_of_its_own() {
        // Neither is exact, so neither moved by a number that the other could have moved by, too.
        let metrics = |first: f64, second: f64| {
            [1, 2, 3].map(|_| {
                vec![
                    sampled("path.mean", first),
                    sampled("router.packet", second),
                ]
            })
        };
        let (before, after) = (metrics(100.0, 50.0), metrics(200.0, 900.0));
        let before: Vec<&[MetricOfTest]> = before.iter().map(Vec::as_slice).collect();
        let after: Vec<&[MetricOfTest]> = after.iter().map(Vec::as_slice).collect();
        let mut whole = run(&[("before/c", &before), ("after/c", &after)]);
        for (id, cell) in &mut whole.cells {
            cell.kernel = id.split('/').next().unwrap().to_owned();
        }
        let sides = ["before", "after"].map(|label| side(&whole, label));
        let beside = Beside::of(&["before", "after"], &sides);
        let changed = beside.rows.iter().filter(|row| row.is_change()).count();
        assert_eq!(changed, 2);
        let text = text(&beside, false);
        assert!(
            !text.contains("path.mean,") && !text.contains(" and "),
            "{text}"
        );
    }

    #[test]
    fn all_is_told_if_asked_and_each_has_its_difference_to_the_first() {
        let lines = table(&["before", "after", "later"], true);
        let head = [
            "cell",
            "metric",
            "before",
            "after",
            "difference",
            "later",
            "difference",
        ];
        assert_eq!(lines[0], head);
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.len() > 5 && line[0] != "What")
                .count(),
            6
        );
        let reply = lines
            .iter()
            .find(|line| line[0] == "hook.reply.mean")
            .unwrap();
        assert_eq!(reply[1..], ["5", "5", "=", "5", "=", "exact"]);
        let unmoved = table(&["before", "later"], false);
        assert!(unmoved
            .iter()
            .any(|line| line.join(" ") == "No exact count of 1 cell moved."));
    }
}
