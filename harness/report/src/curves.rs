// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a number costs that the scenario varies: flows, CPUs, payload, rate.

use std::collections::{BTreeMap, BTreeSet};

use super::cell::Cell;
use super::glossary;
use super::headlines;
use super::run::{Knob, Run};
use super::subjects::Styles;
use super::traffic::{Dimension, Traffic};
use mutexlab_draw::chart::axis::{Axis, Zero};
use mutexlab_draw::chart::lines::{Lines, Mark, Point, Series, Shape};
use mutexlab_draw::chart::{number, Plot};

/// A curve has at least so many points; fewer are better told by bars or a table.
const POINTS: usize = 3;

/// A dimension along which cells of a run differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// The number of CPUs.
    Cpus,
    /// A number of the traffic's.
    Traffic(Dimension),
}

impl Along {
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpus => ("CPUs", "CPUs"),
            Self::Traffic(dimension) => dimension.name(),
        }
    }

    fn number(self, cell: &Cell) -> Option<f64> {
        match self {
            Self::Cpus => Some(f64::from(cell.cpus)),
            Self::Traffic(dimension) => cell.traffic.number(dimension),
        }
    }

    /// What cells of one plot have in common.
    fn rest(self, cell: &Cell) -> (Traffic, u32) {
        match self {
            Self::Cpus => (cell.traffic.clone(), 0),
            Self::Traffic(dimension) => (cell.traffic.without(dimension), cell.cpus),
        }
    }
}

/// The dimensions with enough different numbers for a curve, all else being equal.
pub fn dimensions(run: &Run) -> Vec<Along> {
    let all = std::iter::once(Along::Cpus).chain(Dimension::ALL.map(Along::Traffic));
    all.filter(|along| {
        let mut numbers: BTreeMap<(Traffic, u32), BTreeSet<u64>> = BTreeMap::new();
        for cell in &run.cells {
            if let Some(number) = along.number(cell) {
                let alike = numbers.entry(along.rest(cell)).or_default();
                alike.insert(number.to_bits());
            }
        }
        numbers.values().any(|numbers| numbers.len() >= POINTS)
    })
    .collect()
}

/// A plot for each metric and each kind of traffic.
pub fn plots(run: &Run, knobs: &[Knob], styles: &mut Styles) -> Vec<Box<dyn Plot>> {
    let mut plots: Vec<Box<dyn Plot>> = Vec::new();
    for along in dimensions(run) {
        let mut rests: Vec<(Traffic, u32)> = Vec::new();
        for cell in &run.cells {
            let rest = along.rest(cell);
            if !rests.contains(&rest) {
                rests.push(rest);
            }
        }
        for metric in headlines::of(run) {
            for rest in &rests {
                if let Some(plot) = plot(run, knobs, styles, along, rest, metric) {
                    plots.push(Box::new(plot));
                }
            }
        }
    }
    plots
}

fn plot(
    run: &Run,
    knobs: &[Knob],
    styles: &mut Styles,
    along: Along,
    rest: &(Traffic, u32),
    metric: &str,
) -> Option<Lines> {
    let (name, unit) = along.name();
    let mut series: Vec<Series> = Vec::new();
    let mut metric_unit = None;
    for cell in run.cells.iter().filter(|cell| along.rest(cell) == *rest) {
        let (Some(x), Some(y)) = (along.number(cell), cell.value(metric)) else {
            continue;
        };
        metric_unit = cell.metric(metric).map(|metric| metric.unit.clone());
        let variant = run.variant(knobs, cell);
        let point = Point {
            x,
            y,
            at: format!("{} {unit}", number::plain(x)),
            mark: Mark::Filled,
        };
        match series.iter_mut().find(|series| series.name == variant) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                style: styles.of(&variant),
                name: variant,
                points: vec![point],
            }),
        }
    }
    for series in &mut series {
        series.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let different: BTreeSet<u64> = points().map(|point| point.x.to_bits()).collect();
    if different.len() < 2 {
        return None;
    }
    let metric_unit = glossary::unit(&metric_unit?);
    let (low, high) = points().fold((f64::INFINITY, 0.0_f64), |(low, high), point| {
        (low.min(point.x), high.max(point.x))
    });
    let xs = points().map(|point| point.x);
    let x = match along {
        Along::Cpus if low > 0.0 => Axis::log(name, "", xs, 2.0),
        Along::Traffic(_) if low > 0.0 && high / low >= 50.0 => Axis::log(name, "", xs, 10.0),
        _ => Axis::linear(name, unit, xs, Zero::Shown),
    };
    Some(Lines {
        title: format!("{}: {}", glossary::title(metric), rest.0.label()),
        description: description(&series, &metric_unit, name),
        y: Axis::linear(
            metric,
            &metric_unit,
            points().map(|point| point.y),
            Zero::Shown,
        ),
        x,
        shape: Shape::Straight,
        series,
    })
}

fn description(series: &[Series], unit: &str, along: &str) -> String {
    let ends = series.iter().filter_map(|series| {
        let (first, last) = (series.points.first()?, series.points.last()?);
        Some(format!(
            "{} goes from {} at {} to {} at {}",
            series.name,
            number::plain(first.y),
            first.at,
            number::plain(last.y),
            last.at
        ))
    });
    format!(
        "Lines over {along}, in {unit}. {}.",
        ends.collect::<Vec<_>>().join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    #[test]
    fn dimensions_are_what_a_scenario_varies_by_itself() {
        let found = |file| dimensions(&synthetic::run(&file));
        assert_eq!(found(synthetic::scaling()), [Along::Cpus]);
        let flows = Along::Traffic(Dimension::Flows);
        assert_eq!(found(synthetic::flows()), [flows]);
        assert_eq!(found(synthetic::quick(0)), []);
        // Three payloads in all, but only two of one kind.
        let mut file = synthetic::quick(0);
        let names = ["64", "1000", "65000-bulk"].map(|name| format!("forward-v4-tcp-{name}"));
        let cells = file["cells"].as_array_mut().unwrap();
        for (cell, name) in cells.iter_mut().zip(names) {
            cell["id"] = format!("7.3/1cpu/none/{name}").into();
        }
        cells.truncate(3);
        assert_eq!(found(file), []);
    }
}
