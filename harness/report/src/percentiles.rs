// SPDX-License-Identifier: MIT OR Apache-2.0

//! Percentiles from stored histograms, whatever they are of, on an axis on which each nine takes
//! the same room.

use super::comparison::{self, Contest};
use super::glossary;
use super::headlines;
use super::run::{Knob, Run};
use super::subjects::Styles;
use mutexlab_draw::chart::axis::{Axis, Zero};
use mutexlab_draw::chart::lines::{Lines, Mark, Point, Series, Shape};
use mutexlab_draw::chart::{number, Plot};
use mutexlab_model::histogram::Histogram;

/// Two places on the axis that nobody can tell apart.
const HAIR: f64 = 0.003;

/// Plots of a run, those in which packets differ and those in which all cost the same.
#[derive(Default)]
pub struct Percentiles {
    /// In some line a packet is more than a hundredth away from the median.
    pub curved: Vec<Box<dyn Plot>>,
    /// Every line is level, or nearly so.
    pub level: Vec<Box<dyn Plot>>,
}

/// A plot for each traffic and each histogram.
pub fn plots(run: &Run, knobs: &[Knob], styles: &mut Styles) -> Percentiles {
    let mut plots = Percentiles::default();
    let open = headlines::is_open(run);
    for contest in comparison::contests(run, knobs) {
        let mut names: Vec<&String> = contest
            .cells
            .iter()
            .flat_map(|cell| cell.histograms.keys())
            .collect();
        // What the run is about comes first.
        names.sort_by_key(|name| (name.starts_with("hook") == open, *name));
        names.dedup();
        for name in names {
            let Some(plot) = plot(&contest, name, styles) else {
                continue;
            };
            let curved = contest
                .cells
                .iter()
                .filter_map(|cell| cell.histograms.get(name))
                .any(is_curved);
            if curved {
                plots.curved.push(Box::new(plot));
            } else {
                plots.level.push(Box::new(plot));
            }
        }
    }
    plots
}

fn is_curved(histogram: &Histogram) -> bool {
    let (median, max) = (histogram.percentile(50_000), histogram.max());
    let low = histogram.pairs().next().map(|(value, _)| value);
    median
        .zip(max)
        .zip(low)
        .is_some_and(|((median, max), low)| {
            max > median + median / 100 || low + median / 100 < median
        })
}

fn plot(contest: &Contest<'_>, name: &str, styles: &mut Styles) -> Option<Lines> {
    let found = || {
        contest.cells.iter().filter_map(|cell| {
            let histogram = cell.histograms.get(name)?;
            (cell.is_ok() && histogram.count() > 0).then_some((*cell, histogram))
        })
    };
    let most = found().map(|(_, histogram)| histogram.count()).max()?;
    let x = Axis::percentiles(most);
    let unit = found()
        .find_map(|(cell, _)| cell.unit_of(name))
        .unwrap_or("unit unknown");
    let series: Vec<Series> = found()
        .map(|(cell, histogram)| Series {
            name: cell.subject.clone(),
            style: styles.of(&cell.subject),
            points: points(histogram, &x),
        })
        .collect();
    let values = series.iter().flat_map(|series| &series.points);
    let described = found().map(|(cell, histogram)| {
        let value = |thousandths| {
            let value = histogram.percentile(thousandths);
            value.map_or_else(|| "none".to_owned(), |value| number::plain(to_float(value)))
        };
        format!(
            "{}: median {}, p99 {}, maximum {}",
            cell.subject,
            value(50_000),
            value(99_000),
            value(100_000)
        )
    });
    Some(Lines {
        title: format!("{}: {}", contest.label(), glossary::span(name)),
        description: format!(
            "Percentiles of {most} packets, in {unit}. {}.",
            described.collect::<Vec<_>>().join("; ")
        ),
        y: Axis::linear(
            name,
            &glossary::unit(unit),
            values.map(|point| point.y),
            Zero::Shown,
        ),
        x,
        series,
        shape: Shape::Before,
    })
}

/// The value at each percentile: level up to the part of the packets that took at most that, then
/// up to the next. Marked at the axis's ticks.
fn points(histogram: &Histogram, x: &Axis) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let count = to_float(histogram.count());
    let bend = |x: f64, y: f64| Point {
        x,
        y,
        at: String::new(),
        mark: Mark::None,
    };
    let mut below = 0;
    let mut last = 0.0;
    for (value, packets) in histogram.pairs() {
        let value = to_float(value);
        if points.is_empty() {
            points.push(bend(0.0, value));
        }
        below += packets;
        let part = to_float(below) / count;
        // Steps too narrow to be seen are left to the next one, but for the last.
        if x.scale.place(part) - last >= HAIR || part >= 1.0 {
            last = x.scale.place(part);
            points.push(bend(part, value));
        }
    }
    for (part, label) in &x.ticks {
        if let Some(value) = at(histogram, *part) {
            let name = match label.as_str() {
                "max" => "max".to_owned(),
                label => format!("{label} %"),
            };
            points.push(Point {
                x: *part,
                y: value,
                at: name,
                mark: Mark::Filled,
            });
        }
    }
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    points
}

/// The value at or below which so great a part of the values lies, by nearest rank.
fn at(histogram: &Histogram, part: f64) -> Option<f64> {
    let count = to_float(histogram.count());
    // Rounding must not make the 999th of 1000 the 1000th.
    let rank = (part * count - 1e-6).ceil().max(1.0);
    let mut below = 0;
    histogram
        .pairs()
        .find(|(_, packets)| {
            below += packets;
            to_float(below) >= rank
        })
        .map(|(value, _)| to_float(value))
}

/// Counts of packets and of instructions stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn to_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_percentiles_by_nearest_rank() {
        let histogram = Histogram::from_pairs([(10, 900), (20, 99), (500, 1)]);
        let points = points(&histogram, &Axis::percentiles(1000));
        let marked: Vec<_> = points
            .iter()
            .filter(|point| point.mark == Mark::Filled)
            .map(|point| (point.at.as_str(), point.y))
            .collect();
        assert_eq!(
            marked,
            [
                ("50 %", 10.0),
                ("90 %", 10.0),
                ("99 %", 20.0),
                ("99.9 %", 20.0),
                ("max", 500.0)
            ]
        );
        assert!(is_curved(&histogram));
        assert!(!is_curved(&Histogram::from_pairs([(175, 1000)])));
    }

    proptest! {
        #[test]
        fn curves_rise_from_the_least_to_the_greatest(
            pairs in prop::collection::vec((0_u64..30_000, 1_u64..500), 1..300)
        ) {
            let histogram = Histogram::from_pairs(pairs);
            let points = points(&histogram, &Axis::percentiles(histogram.count()));
            for pair in points.windows(2) {
                prop_assert!(pair[0].x <= pair[1].x);
                prop_assert!(pair[0].y <= pair[1].y, "{:?}", pair);
            }
            prop_assert_eq!(points[0].y, to_float(histogram.pairs().next().unwrap().0));
            prop_assert_eq!(points.last().unwrap().y, to_float(histogram.max().unwrap()));
            // Not more than can be seen.
            prop_assert!(points.len() < 400);
        }

        #[test]
        fn a_mark_agrees_with_the_histogram(
            pairs in prop::collection::vec((0_u64..30_000, 1_u64..500), 1..50), thousandths in 1_u32..=100_000,
        ) {
            let histogram = Histogram::from_pairs(pairs);
            let part = f64::from(thousandths) / 100_000.0;
            prop_assert_eq!(at(&histogram, part), histogram.percentile(thousandths).map(to_float));
        }
    }
}
