// SPDX-License-Identifier: MIT OR Apache-2.0

//! A comparison as a person reads it: on a terminal, or as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use mutexlab_draw::table::{decimals, Align, Field, Style, Table};
use mutexlab_judge::compare::bootstrap::{Interval, CONFIDENCE, MIN_BOOTS};
use mutexlab_judge::compare::difference::Difference;
use mutexlab_judge::compare::finding::{Change, Finding, Judgement};
use mutexlab_results::metric::Unit;

/// How a comparison is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Terminal,
    /// For a pull request.
    Markdown,
}

/// Names of metrics that a line lists before it only counts them.
const NAMED: usize = 3;

/// What was found, in a line.
pub fn summary(found: &Difference<'_>) -> String {
    let mut parts = Vec::new();
    let unjudged = found.unjudged_cells();
    let unchanged = found.cells - found.changed_cells - unjudged;
    if found.changed_cells == 0 {
        parts.push(format!("no change in {}", cells(unchanged)));
    } else {
        let mut part = format!("{} of {} changed", found.changed_cells, cells(found.cells));
        if let Some(headline) = headline(found) {
            let _ = write!(part, ": {headline}");
        }
        parts.push(part);
        if unchanged > 0 {
            parts.push(format!("{unchanged} unchanged"));
        }
    }
    if unjudged > 0 {
        parts.push(format!("{} without anything to compare", cells(unjudged)));
    }
    let apart = found.only_a.len() + found.only_b.len();
    if apart > 0 {
        parts.push(format!("{} in only one of the two", cells(apart)));
    }
    parts.join("; ") + "."
}

fn cells(count: usize) -> String {
    let noun = if count == 1 { "cell" } else { "cells" };
    format!("{count} {noun}")
}

/// The metric that changed in most cells, and by how much.
fn headline(found: &Difference<'_>) -> Option<String> {
    let mut by_metric: BTreeMap<&str, Vec<(f64, Unit)>> = BTreeMap::new();
    let mut order = Vec::new();
    for finding in &found.findings {
        if let (Some(metric), Some((from, to, unit)), true) = (
            finding.change.metric(),
            numbers(&finding.change),
            finding.judgement.is_change(),
        ) {
            if !by_metric.contains_key(metric) {
                order.push(metric);
            }
            by_metric.entry(metric).or_default().push((to - from, unit));
        }
    }
    // The first of those with the most cells: findings come by what matters.
    let most = by_metric.values().map(Vec::len).max()?;
    let metric = order
        .into_iter()
        .find(|metric| by_metric[metric].len() == most)?;
    let changes = &by_metric[metric];
    let (_, unit) = changes.first()?;
    let written: BTreeSet<String> = changes.iter().map(|&(by, _)| signed(by, by)).collect();
    let unit = unit_name(*unit);
    if let (1, Some(by)) = (written.len(), written.first()) {
        let each = if changes.len() == found.changed_cells {
            "each".to_owned()
        } else {
            changes.len().to_string()
        };
        return Some(format!("{metric} {by} {unit} in {each}"));
    }
    let low = changes.iter().map(|&(by, _)| by).fold(f64::NAN, f64::min);
    let high = changes.iter().map(|&(by, _)| by).fold(f64::NAN, f64::max);
    Some(format!(
        "{metric} {} to {} {unit} in {}",
        signed(low, low),
        signed(high, high),
        changes.len()
    ))
}

fn numbers(change: &Change<'_>) -> Option<(f64, f64, Unit)> {
    match *change {
        Change::Exact { from, to, unit, .. }
        | Change::Modelled { from, to, unit, .. }
        | Change::Repeatable { from, to, unit, .. }
        | Change::Sampled { from, to, unit, .. } => Some((from, to, unit)),
        Change::Verdict { .. } | Change::Varies { .. } => None,
    }
}

/// The table of what was found, and what else there is to say. With `each`, every metric has a line;
/// else those of a cell that changed by the same number share one.
pub fn details(found: &Difference<'_>, each: bool, format: Format) -> String {
    let mut text = String::new();
    let rows = lines(&found.findings, each);
    if !rows.is_empty() {
        text.push_str(&table(&rows, format));
        text.push('\n');
    }
    for line in remarks(found) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn remarks(found: &Difference<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if found.undecided > 0 {
        lines.push(format!(
            "Too few boots to tell of {} sampled numbers: it takes {MIN_BOOTS} on each side.",
            found.undecided
        ));
    }
    let sampled = |finding: &Finding<'_>| {
        finding.judgement.is_change() && matches!(finding.change, Change::Sampled { .. })
    };
    if found.findings.iter().any(sampled) {
        lines.push(format!(
            "Brackets hold a sampled difference with {} % confidence, over boots.",
            decimals(CONFIDENCE * 100.0, 0)
        ));
    }
    let modelled = |finding: &Finding<'_>| {
        finding.judgement.is_change() && matches!(finding.change, Change::Modelled { .. })
    };
    if found.findings.iter().any(modelled) {
        lines.push("Misses, transfers and cycles are modelled: docs/lens.md.".to_owned());
    }
    for (ids, what) in [
        (&found.only_a, "only in A"),
        (&found.only_b, "only in B"),
        (&found.bad_in_both, "ended badly in both"),
    ] {
        lines.extend(ids.iter().map(|id| format!("{what}: {id}")));
    }
    for (names, side) in [(&found.metrics_only_a, "A"), (&found.metrics_only_b, "B")] {
        if !names.is_empty() {
            lines.push(format!("metrics only of {side}: {}", names.join(", ")));
        }
    }
    lines
}

/// A line of the table.
pub(super) struct Line {
    pub(super) cell: String,
    pub(super) what: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) change: String,
    percent: String,
    pub(super) judgement: Judgement,
}

/// The lines of the table, with `each` one for every finding.
pub(super) fn lines(findings: &[Finding<'_>], each: bool) -> Vec<Line> {
    let mut rows: Vec<Line> = Vec::new();
    let mut names: Vec<Vec<&str>> = Vec::new();
    // Where the rows of the present cell begin, among which equal changes are looked for.
    let mut begin = 0;
    for finding in findings {
        if rows.get(begin).is_some_and(|row| row.cell != finding.cell) {
            begin = rows.len();
        }
        let row = row(finding);
        let alike = rows
            .get(begin..)
            .unwrap_or_default()
            .iter()
            .position(|other| {
                let exact = matches!(finding.change, Change::Exact { .. });
                exact && (&other.change, other.judgement) == (&row.change, row.judgement)
            });
        match (alike, finding.change.metric()) {
            (Some(index), Some(metric)) if !each => names[begin + index].push(metric),
            (_, metric) => {
                rows.push(row);
                names.push(metric.into_iter().collect());
            }
        }
    }
    for (row, names) in rows.iter_mut().zip(names) {
        if !names.is_empty() {
            row.what = listed(&names);
        }
    }
    rows
}

pub(super) fn listed(names: &[&str]) -> String {
    if names.len() <= NAMED {
        return names.join(", ");
    }
    let first = names.first().copied().unwrap_or_default();
    format!("{first} and {} more", names.len() - 1)
}

fn row(finding: &Finding<'_>) -> Line {
    let empty = Line {
        cell: finding.cell.to_owned(),
        what: String::new(),
        from: String::new(),
        to: String::new(),
        change: String::new(),
        percent: String::new(),
        judgement: finding.judgement,
    };
    let list = |values: &[f64]| {
        let texts: Vec<_> = values.iter().map(|&value| plain(value, 0.0)).collect();
        texts.join(" ")
    };
    match &finding.change {
        Change::Verdict { from, to, reason } => Line {
            what: "verdict".to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            change: reason.unwrap_or_default().to_owned(),
            ..empty
        },
        Change::Varies { from, to, .. } => Line {
            from: list(from),
            to: list(to),
            change: "not exact".to_owned(),
            ..empty
        },
        &(Change::Exact { from, to, .. }
        | Change::Modelled { from, to, .. }
        | Change::Repeatable { from, to, .. }) => Line {
            from: plain(from, to - from),
            to: plain(to, to - from),
            change: signed(to - from, to - from),
            percent: percent(from, to),
            ..empty
        },
        &Change::Sampled {
            from,
            to,
            difference,
            boots: [ours, theirs],
            ..
        } => {
            let by = to - from;
            let bounds = match difference {
                Some(Interval { low, high }) => {
                    format!("[{}, {}]", signed(low, by), signed(high, by))
                }
                None => format!("({ours} and {theirs} boots)"),
            };
            Line {
                from: plain(from, by),
                to: plain(to, by),
                change: format!("{} {bounds}", signed(by, by)),
                percent: percent(from, to),
                ..empty
            }
        }
    }
}

const HEAD: [(&str, Align); 7] = [
    ("cell", Align::Left),
    ("metric", Align::Left),
    ("A", Align::Right),
    ("B", Align::Right),
    ("change", Align::Right),
    ("%", Align::Right),
    ("", Align::Left),
];

fn table(rows: &[Line], format: Format) -> String {
    let mut last = "";
    let mut lines = Vec::new();
    for row in rows {
        // A cell's name stands once.
        let cell = if row.cell == last { "" } else { &row.cell };
        last = &row.cell;
        lines.push([
            cell,
            &row.what,
            &row.from,
            &row.to,
            &row.change,
            &row.percent,
            judgement_name(row.judgement),
        ]);
    }
    match format {
        Format::Terminal => {
            let mut table = Table::new(&HEAD);
            for (line, row) in lines.iter().zip(rows) {
                let style = style(row.judgement);
                table.row(line.iter().map(|&text| Field::styled(text, style)));
            }
            table.to_string()
        }
        Format::Markdown => {
            let mut text = String::new();
            let mut put = |fields: &[&str]| {
                let _ = writeln!(text, "| {} |", fields.join(" | "));
            };
            put(&HEAD.map(|(name, _)| name));
            put(&HEAD.map(|(_, align)| match align {
                Align::Left => ":--",
                Align::Right => "--:",
            }));
            for line in &lines {
                let escaped = line.map(|field| field.replace('|', "\\|").replace('\n', " "));
                put(&escaped.each_ref().map(String::as_str));
            }
            text
        }
    }
}

pub(super) const fn style(judgement: Judgement) -> Style {
    match judgement {
        Judgement::Regressed => Style::Bad,
        Judgement::Improved => Style::Good,
        Judgement::Changed => Style::Plain,
        Judgement::Unchanged | Judgement::Undecided => Style::Dim,
    }
}

const fn judgement_name(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Regressed => "regressed",
        Judgement::Improved => "improved",
        Judgement::Changed => "changed",
        Judgement::Unchanged => "unchanged",
        Judgement::Undecided => "undecided",
    }
}

/// As results files write it.
pub fn unit_name(unit: Unit) -> String {
    match serde_json::to_value(unit) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// With as many decimals as it takes to see a change `by` so much.
pub fn plain(value: f64, by: f64) -> String {
    let digits = if value.fract() == 0.0 && by.fract() == 0.0 {
        0
    } else {
        // Two digits of the change; -1 if it is 10 and more, -3 if it is 1000 and more.
        let magnitude = by.abs().log10().floor();
        (0..=6)
            .find(|&digits| magnitude.is_finite() && f64::from(digits) >= 1.0 - magnitude)
            .unwrap_or(if by == 0.0 { 2 } else { 6 })
    };
    decimals(value, usize::try_from(digits).unwrap_or(0))
}

/// The same with its sign.
pub(super) fn signed(value: f64, by: f64) -> String {
    let text = plain(value, by);
    if value > 0.0 {
        format!("+{text}")
    } else {
        text
    }
}

pub(super) fn percent(from: f64, to: f64) -> String {
    if from == 0.0 || from == to {
        return String::new();
    }
    let percent = (to - from) / from.abs() * 100.0;
    let digits = if percent.abs() < 10.0 { 2 } else { 0 };
    let sign = if percent > 0.0 { "+" } else { "" };
    format!("{sign}{}", decimals(percent, digits))
}
