// SPDX-License-Identifier: MIT OR Apache-2.0

//! Subjects beside each other, for each kind of traffic.

use super::cell::Cell;
use super::glossary;
use super::headlines;
use super::run::{Knob, Run};
use super::subjects::{Styles, OURS};
use super::traffic::Traffic;
use mutexlab_draw::chart::axis::{Axis, Zero};
use mutexlab_draw::chart::bars::{Bar, Bars, Group};
use mutexlab_draw::chart::{number, Plot};
use mutexlab_results::metric::PATH_OVER_NONE;

/// So many kinds of traffic share a plot.
const TOGETHER: usize = 4;

/// Cells of one traffic on one number of CPUs, no knob turned.
pub struct Contest<'a> {
    /// The packets.
    pub traffic: &'a Traffic,
    /// On so many CPUs.
    pub cpus: u32,
    /// The cells.
    pub cells: Vec<&'a Cell>,
}

impl Contest<'_> {
    /// What it is about, with the number of CPUs if that is not one.
    pub fn label(&self) -> String {
        match self.cpus {
            1 => self.traffic.label(),
            cpus => format!("{}, {cpus} CPUs", self.traffic.label()),
        }
    }

    /// A subject's number.
    pub fn value(&self, subject: &str, metric: &str) -> Option<f64> {
        self.cells
            .iter()
            .find(|cell| cell.subject == subject)?
            .value(metric)
    }
}

/// All contests of a run, in the order of its cells.
pub fn contests<'a>(run: &'a Run, knobs: &[Knob]) -> Vec<Contest<'a>> {
    let mut contests: Vec<Contest<'a>> = Vec::new();
    for cell in run
        .cells
        .iter()
        .filter(|cell| run.turned(knobs, cell).is_empty())
    {
        let known = contests
            .iter_mut()
            .find(|contest| (contest.traffic, contest.cpus) == (&cell.traffic, cell.cpus));
        match known {
            Some(contest) => contest.cells.push(cell),
            None => contests.push(Contest {
                traffic: &cell.traffic,
                cpus: cell.cpus,
                cells: vec![cell],
            }),
        }
    }
    contests
}

/// Bars for each metric; none where nothing is beside another.
pub fn plots(run: &Run, knobs: &[Knob], styles: &mut Styles) -> Vec<Box<dyn Plot>> {
    let contests = contests(run, knobs);
    let mut plots: Vec<Box<dyn Plot>> = Vec::new();
    for metric in headlines::of(run) {
        let values: Vec<f64> = contests
            .iter()
            .flat_map(|contest| &contest.cells)
            .filter_map(|cell| cell.value(metric))
            .collect();
        let unit = contests
            .iter()
            .flat_map(|contest| &contest.cells)
            .find_map(|cell| Some(glossary::unit(&cell.metric(metric)?.unit)));
        let Some(unit) = unit else { continue };
        let with_number = |contest: &&Contest<'_>| {
            let cells = contest.cells.iter();
            cells.filter(|cell| cell.metric(metric).is_some()).count() > 1
        };
        let shown: Vec<&Contest<'_>> = contests.iter().filter(with_number).collect();
        let parts = shown.chunks(TOGETHER);
        let count = parts.len();
        for (index, part) in parts.enumerate() {
            let groups: Vec<Group> = part
                .iter()
                .map(|contest| group(contest, metric, styles))
                .collect();
            let mut title = glossary::title(metric);
            if count > 1 {
                title.push_str(&format!(" ({} of {count})", index + 1));
            }
            plots.push(Box::new(Bars {
                description: description(&groups, &unit),
                title,
                axis: Axis::linear(metric, &unit, values.iter().copied(), Zero::Shown),
                groups,
            }));
        }
    }
    plots
}

fn group(contest: &Contest<'_>, metric: &str, styles: &mut Styles) -> Group {
    let ours = contest
        .value(OURS, metric)
        .filter(|_| metric != PATH_OVER_NONE);
    let bars = contest
        .cells
        .iter()
        .filter(|cell| cell.metric(metric).is_some() || !cell.is_ok())
        .map(|cell| {
            let value = cell.value(metric);
            let times = value
                .zip(ours)
                .filter(|_| cell.subject != OURS)
                .and_then(|(value, ours)| number::ratio(value, ours));
            Bar {
                name: cell.subject.clone(),
                style: styles.of(&cell.subject),
                value,
                note: if cell.is_ok() {
                    times.map_or_else(String::new, |times| format!("{times}×"))
                } else {
                    cell.verdict().to_owned()
                },
            }
        });
    Group {
        name: contest.label(),
        bars: bars.collect(),
    }
}

fn description(groups: &[Group], unit: &str) -> String {
    let bars = |group: &Group| {
        let bars = group.bars.iter().map(|bar| {
            let value = bar.value.map_or_else(|| bar.note.clone(), number::plain);
            format!("{} {value}", bar.name)
        });
        bars.collect::<Vec<_>>().join(", ")
    };
    let groups = groups
        .iter()
        .map(|group| format!("{}: {}", group.name, bars(group)));
    format!(
        "Bars, in {unit}. {}.",
        groups.collect::<Vec<_>>().join("; ")
    )
}
