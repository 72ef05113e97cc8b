// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the same cells cost at one commit after another.

use maud::{html, Markup};

use super::archive::Archive;
use super::comparison;
use super::glossary;
use super::golden::Golden;
use super::history::History;
use super::run::Run;
use mutexlab_draw::chart::axis::{Axis, Zero};
use mutexlab_draw::chart::lines::{Lines, Mark, Point, Series, Shape};
use mutexlab_draw::chart::mark::STYLES;
use mutexlab_draw::chart::number;
use mutexlab_draw::figure;
use mutexlab_draw::figure::Ids;
use mutexlab_results::metric::HOOK_MEAN;

/// Less than this is rounding.
const MOVED: f64 = 0.05;
/// What varies by itself has not moved by less than this part of it.
const MOVED_SAMPLED: f64 = 0.01;

/// A commit, or files that differ from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    /// The commit's place in the history.
    place: usize,
    /// As people write it; with a plus where files differed.
    label: String,
    dirty: bool,
}

/// Cells of one subject over commits.
#[derive(Debug)]
struct Subject<'a> {
    name: &'a str,
    /// Kinds of traffic.
    rows: Vec<Row>,
}

/// A cell over commits.
#[derive(Debug)]
struct Row {
    traffic: String,
    /// Whether it must be the same in each repetition.
    exact: bool,
    /// For each column that has one.
    values: Vec<Option<f64>>,
}

/// The trend of a scenario on a kernel.
#[derive(Debug)]
pub struct Trend<'a> {
    scenario: &'a str,
    kernel: &'a str,
    unit: String,
    columns: Vec<Column>,
    subjects: Vec<Subject<'a>>,
}

/// Where a column's numbers are from.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    Measured(&'a Run),
    Recorded(&'a Golden),
}

impl Numbers<'_> {
    fn value(self, cell: &str) -> Option<f64> {
        match self {
            Self::Measured(run) => run
                .cells
                .iter()
                .find(|known| known.id == cell)?
                .value(HOOK_MEAN),
            Self::Recorded(golden) => golden.value(cell, HOOK_MEAN),
        }
    }
}

/// What there is of a run's scenario on its kernel, in the order of the history.
fn sources<'a>(
    newest: &Run,
    archive: &'a Archive,
    golden: &'a [Golden],
    history: &History,
) -> Vec<(Column, Numbers<'a>)> {
    let mut sources: Vec<(Column, Numbers<'a>)> = Vec::new();
    let alike = |run: &&Run| {
        (&run.scenario, &run.mode, &run.kernel) == (&newest.scenario, &newest.mode, &newest.kernel)
    };
    for run in archive.runs.iter().filter(alike) {
        if let Some(place) = history.position(&run.commit) {
            let column = Column {
                place,
                label: run.short_commit(),
                dirty: run.dirty,
            };
            sources.push((column, Numbers::Measured(run)));
        }
    }
    // Golden counts are instructions.
    let counted = golden.iter().filter(|golden| {
        newest.mode == "virtual"
            && (&golden.scenario, &golden.kernel) == (&newest.scenario, &newest.kernel)
    });
    for golden in counted {
        let Some(commit) = history.commits.get(golden.commit) else {
            continue;
        };
        // What was measured there is as good, and has all cells.
        let measured = sources
            .iter()
            .any(|(column, _)| column.place == golden.commit && !column.dirty);
        if !measured {
            let column = Column {
                place: golden.commit,
                label: commit.short().to_owned(),
                dirty: false,
            };
            sources.push((column, Numbers::Recorded(golden)));
        }
    }
    sources.sort_by_key(|(column, _)| (column.place, column.dirty));
    sources
}

impl<'a> Trend<'a> {
    /// What is known of the default cells of `newest` at other commits; none if that is nothing.
    pub fn new(
        newest: &'a Run,
        archive: &Archive,
        golden: &[Golden],
        history: &History,
    ) -> Option<Self> {
        let sources = sources(newest, archive, golden, history);
        if sources.len() < 2 {
            return None;
        }
        let mut subjects: Vec<Subject<'a>> = Vec::new();
        let mut unit = String::new();
        for contest in comparison::contests(newest, &newest.knobs()) {
            for cell in &contest.cells {
                if let Some(metric) = cell.metric(HOOK_MEAN) {
                    unit = glossary::unit(&metric.unit);
                }
                let values: Vec<_> = sources
                    .iter()
                    .map(|(_, numbers)| numbers.value(&cell.id))
                    .collect();
                if values.iter().flatten().count() < 2 {
                    continue;
                }
                let kind = cell.metric(HOOK_MEAN).map(|metric| metric.kind.as_str());
                let row = Row {
                    traffic: contest.label(),
                    exact: kind == Some("exact"),
                    values,
                };
                match subjects.iter_mut().find(|known| known.name == cell.subject) {
                    Some(known) => known.rows.push(row),
                    None => subjects.push(Subject {
                        name: &cell.subject,
                        rows: vec![row],
                    }),
                }
            }
        }
        (!subjects.is_empty()).then_some(Self {
            scenario: &newest.scenario,
            kernel: &newest.kernel,
            unit,
            columns: sources.into_iter().map(|(column, _)| column).collect(),
            subjects,
        })
    }

    fn plot(&self, subject: &Subject<'_>, rows: &[Row]) -> Lines {
        let series: Vec<Series> = rows
            .iter()
            .enumerate()
            .map(|(style, row)| {
                let mut x = -1.0;
                let points = self
                    .columns
                    .iter()
                    .zip(&row.values)
                    .filter_map(|(column, value)| {
                        x += 1.0;
                        Some(Point {
                            x,
                            y: (*value)?,
                            at: column.label.clone(),
                            mark: if column.dirty {
                                Mark::Hollow
                            } else {
                                Mark::Filled
                            },
                        })
                    });
                Series {
                    name: row.traffic.clone(),
                    style,
                    points: points.collect(),
                }
            })
            .collect();
        let values = || series.iter().flat_map(|s| &s.points).map(|point| point.y);
        let told = series.iter().filter_map(|series| {
            let (first, last) = (series.points.first()?, series.points.last()?);
            let (from, to) = (number::plain(first.y), number::plain(last.y));
            Some(format!("{} from {from} to {to}", series.name))
        });
        let labels: Vec<String> = self.columns.iter().map(|c| c.label.clone()).collect();
        Lines {
            title: format!(
                "{} on {}, scenario {}: hook cost, mean of both directions",
                subject.name, self.kernel, self.scenario
            ),
            description: format!(
                "Lines over {} commits, in {}. {}.",
                self.columns.len(),
                self.unit,
                told.collect::<Vec<_>>().join("; ")
            ),
            x: Axis::ordinal("commits, the newest on the right", &labels),
            y: Axis::linear(HOOK_MEAN, &self.unit, values(), Zero::Apart),
            series,
            shape: Shape::After,
        }
    }

    /// What changed at each commit, the newest first.
    fn moves(&self, history: &History) -> Markup {
        let subjects: Vec<&Subject<'_>> = self.moving().collect();
        html! {
            table class="text" {
                caption { "What moved at which commit, in " (self.unit) }
                thead { tr {
                    th scope="col" { "commit" }
                    @for subject in &subjects { th scope="col" { (subject.name) } }
                    th scope="col" { "day" }
                    th scope="col" { "message" }
                } }
                tbody {
                    @for (index, column) in self.columns.iter().enumerate().rev() {
                        @let commit = history.commits.get(column.place);
                        tr {
                            th scope="row" { code { (column.label) } }
                            @for subject in &subjects {
                                td { @if index == 0 { "–" } @else { (moved(subject, index)) } }
                            }
                            td { (commit.map_or("", |commit| commit.day.as_str())) }
                            td class="words" { (commit.map_or("", |commit| commit.subject.as_str())) }
                        }
                    }
                }
            }
        }
    }

    /// Subjects of which any number moved.
    fn moving(&self) -> impl Iterator<Item = &Subject<'a>> {
        self.subjects.iter().filter(|subject| subject.moves())
    }

    /// The plots of what moved, and a sentence on what did not.
    pub fn section(&self, ids: &mut Ids, history: &History) -> Markup {
        let still: Vec<_> = self
            .subjects
            .iter()
            .filter(|subject| !subject.moves())
            .collect();
        html! {
            @for subject in self.moving() {
                @for rows in subject.rows.chunks(STYLES) {
                    (figure::wide(ids, &self.plot(subject, rows)))
                }
            }
            @if self.moving().next().is_some() {
                p class="note" { "The vertical axis does not begin at zero. A number holds until the next commit that was measured." }
                (figure::scroll(&self.moves(history)))
            }
            @if !still.is_empty() {
                p {
                    "Scenario " b { (self.scenario) } " on " (self.kernel) ": not one number of "
                    @for (index, subject) in still.iter().enumerate() {
                        @if index > 0 { @if index + 1 == still.len() { " and " } @else { ", " } }
                        b { (subject.name) }
                    }
                    " moved"
                    // The rule for what varies by itself.
                    @if still.iter().any(|subject| subject.rows.iter().any(|row| !row.exact)) { " by 1 %" }
                    " over " (self.columns.len()) " commits."
                }
            }
        }
    }
}

impl Row {
    /// Whether one value is another than the one before it.
    fn moved(&self, before: f64, now: f64) -> bool {
        let least = if self.exact {
            MOVED
        } else {
            (before.abs() * MOVED_SAMPLED).max(MOVED)
        };
        (now - before).abs() >= least
    }
}

impl Subject<'_> {
    fn moves(&self) -> bool {
        self.rows.iter().any(|row| {
            let mut known = row.values.iter().flatten();
            let first = known.next();
            known.any(|&now| first.is_some_and(|&first| row.moved(first, now)))
        })
    }
}

/// How the values of a column differ from the last ones that were known before it.
fn moved(subject: &Subject<'_>, column: usize) -> String {
    let known: Vec<(&Row, f64, f64)> = subject
        .rows
        .iter()
        .filter_map(|row| {
            let now = (*row.values.get(column)?)?;
            let before = row.values.get(..column)?.iter().rev().flatten().next()?;
            Some((row, *before, now))
        })
        .collect();
    let changes: Vec<f64> = known
        .iter()
        .filter(|(row, before, now)| row.moved(*before, *now))
        .map(|(_, before, now)| now - before)
        .collect();
    number::range(changes.iter().copied()).map_or_else(
        || "–".to_owned(),
        |range| format!("{range} in {} of {}", changes.len(), known.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    fn archive() -> Archive {
        let mut archive = Archive::default();
        // In no order.
        for commit in [2, 0, 1] {
            archive.add(synthetic::run(&synthetic::quick(commit)));
        }
        archive
    }

    #[test]
    fn commits_come_in_the_order_of_the_history() {
        let (archive, history) = (archive(), synthetic::history());
        let newest = archive.newest(&history, &[])[0];
        let trend = Trend::new(newest, &archive, &[], &history).unwrap();
        let labels: Vec<_> = trend.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["1111111", "2222222", "3333333"]);
        let names: Vec<_> = trend.moving().map(|subject| subject.name).collect();
        assert_eq!(names, ["module"]);
        let module = trend.moving().next().unwrap();
        assert_eq!(
            module.rows[0].values,
            [Some(203.0), Some(196.0), Some(189.0)]
        );
        assert_eq!(moved(module, 1), "\u{2212}7 in 3 of 3");
        let text = trend.section(&mut Ids::default(), &history).into_string();
        assert!(text.contains("Change &lt;1&gt; &amp; more"), "{text}");
    }

    #[test]
    fn recorded_numbers_fill_what_was_not_measured() {
        let (archive, history) = (archive(), synthetic::history());
        let newest = archive.newest(&history, &[])[0];
        let id = newest.cells[2].id.clone();
        let recorded = |commit, value| Golden {
            commit,
            scenario: "quick".into(),
            kernel: "7.3".into(),
            values: [((id.clone(), HOOK_MEAN.to_owned()), value)].into(),
        };
        let golden = [recorded(1, 1.0), recorded(3, 180.0)];
        let trend = Trend::new(newest, &archive, &golden, &history).unwrap();
        let module = trend.moving().next().unwrap();
        assert_eq!(
            module.rows[0].values,
            [Some(203.0), Some(196.0), Some(189.0), Some(180.0)]
        );
        assert_eq!(moved(module, 3), "\u{2212}9 in 1 of 1");
    }

    #[test]
    fn one_commit_is_no_trend() {
        let mut archive = Archive::default();
        archive.add(synthetic::run(&synthetic::quick(1)));
        let history = synthetic::history();
        let newest = archive.newest(&history, &[])[0];
        assert!(Trend::new(newest, &archive, &[], &history).is_none());
    }
}
