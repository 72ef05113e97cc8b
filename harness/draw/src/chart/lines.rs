// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines over an axis: trends, percentiles, and what more flows or CPUs cost.

use std::collections::BTreeMap;

use maud::{html, Markup};

use super::axis::Axis;
use super::{label, labels, legend, line, mark, number, px, text, Plot, FONT, LINE};

/// The height of the field that lines are drawn in.
const FIELD: f64 = 190.0;
/// What is left free at both ends of the axis from left to right.
const INSET: f64 = 8.0;
/// Labels beside the lines get at most this part of the width; with longer ones there is a legend.
const LABELS: f64 = 0.36;

/// Lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// What is shown.
    pub title: String,
    /// What is seen.
    pub description: String,
    /// The axis from left to right.
    pub x: Axis,
    /// The axis from below to above.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
    /// How two points are connected.
    pub shape: Shape,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// How it is drawn.
    pub style: usize,
    /// In the order of x.
    pub points: Vec<Point>,
}

/// One value of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// From left to right.
    pub x: f64,
    /// From below to above.
    pub y: f64,
    /// What the table calls x.
    pub at: String,
    /// How it is marked.
    pub mark: Mark,
}

/// How a point is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// With its style's marker.
    Filled,
    /// The same, not filled: it is less certain than the others.
    Hollow,
    /// Not at all, and the table leaves it out: it only bends the line.
    None,
}

/// How two points are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// By a straight line.
    Straight,
    /// Up or down at the left one's x, and then level: what is true from there on.
    Before,
    /// Level, and then up or down at the right one's x: what was true until then.
    After,
}

impl Lines {
    fn legend(&self) -> Vec<(usize, String)> {
        self.series
            .iter()
            .map(|series| (series.style, series.name.clone()))
            .collect()
    }

    fn path(&self, series: &Series, place: &impl Fn(&Point) -> (f64, f64)) -> String {
        let mut path = String::new();
        let mut last = None;
        for point in &series.points {
            let (x, y) = place(point);
            match (last, self.shape) {
                (None, _) => path.push_str(&format!("M{} {}", px(x), px(y))),
                (Some(_), Shape::Straight) => path.push_str(&format!("L{} {}", px(x), px(y))),
                (Some(_), Shape::Before) => path.push_str(&format!("V{}H{}", px(y), px(x))),
                (Some(_), Shape::After) => path.push_str(&format!("H{}V{}", px(x), px(y))),
            }
            last = Some((x, y));
        }
        path
    }

    fn curve(&self, series: &Series, place: &impl Fn(&Point) -> (f64, f64)) -> Markup {
        let class = format!("curve {}", mark::class(series.style));
        let note = |point: &Point| {
            let (value, unit) = (number::plain(point.y), &self.y.unit);
            format!("{}, {}: {value} {unit}", series.name, point.at)
        };
        html! {
            path class=(class) stroke-dasharray=[mark::dashes(series.style)]
                d=(self.path(series, place)) {}
            @for point in series.points.iter().filter(|point| point.mark != Mark::None) {
                @let (x, y) = place(point);
                (mark::marker(series.style, x, y, point.mark == Mark::Hollow, Some(&note(point))))
            }
        }
    }

    /// The names beside the lines' right ends.
    fn names(
        &self,
        right: f64,
        field: (f64, f64),
        place: &impl Fn(&Point) -> (f64, f64),
    ) -> Markup {
        let named: Vec<_> = self
            .series
            .iter()
            .filter_map(|series| Some((series, place(series.points.last()?))))
            .collect();
        let wanted: Vec<f64> = named.iter().map(|(_, (_, y))| *y).collect();
        let places = labels::spread(&wanted, LINE - 2.0, field.0, field.1);
        html! {
            @for ((series, (x, y)), at) in named.iter().zip(places) {
                @if (at - y).abs() > 3.0 || right - x > 12.0 {
                    (line((x + 6.0, *y), (right + 8.0, at), "leader"))
                }
                (label(right + 11.0, at + 4.0, "start",
                    &format!("name {}", mark::class(series.style)), &series.name))
            }
        }
    }
}

impl Plot for Lines {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn draw(&self, width: f64) -> (Markup, f64) {
        let widest = |texts: &mut dyn Iterator<Item = &String>| {
            texts
                .map(|text| text::width(text, FONT))
                .fold(0.0, f64::max)
        };
        let left = widest(&mut self.y.ticks.iter().map(|(_, label)| label)) + 12.0;
        let names = widest(&mut self.series.iter().map(|series| &series.name));
        let beside = names + 16.0 <= width * LABELS;
        let right = width - if beside { names + 16.0 } else { 14.0 };
        let top = LINE + 14.0;
        // Names that stand beside the lines need room below each other.
        let height = FIELD.max(count(self.series.len()) * (LINE - 2.0));
        let bottom = top + height;
        // Markers at the ends keep off the labels of the other axis.
        let x =
            |value: f64| left + INSET + self.x.scale.place(value) * (right - left - 2.0 * INSET);
        let y = |value: f64| bottom - self.y.scale.place(value) * height;
        let place = |point: &Point| (x(point.x), y(point.y));

        let mut below = bottom + LINE + 3.0 + LINE;
        let mut explained = html! {};
        if !beside {
            let (drawn, room) = legend::draw(&self.legend(), 4.0, below, width - 8.0, true);
            explained = drawn;
            below += room;
        }
        let drawn = html! {
            (label(0.0, LINE - 4.0, "start", "axis-name", &self.y.title()))
            @for (value, text) in &self.y.ticks {
                (line((left, y(*value)), (right, y(*value)), if *value == 0.0 { "zero" } else { "grid" }))
                (label(left - 6.0, y(*value) + 4.0, "end", "tick", text))
            }
            @for tick in self.x.across(x, 8.0, width) {
                (line((tick.x, bottom), (tick.x, bottom + if tick.label.is_some() { 5.0 } else { 3.0 }), "stroke"))
                @if let Some((middle, text)) = tick.label {
                    (label(middle, bottom + LINE + 1.0, "middle", "tick", text))
                }
            }
            (line((left, bottom), (right, bottom), "stroke"))
            (label(right, bottom + 2.0 * LINE + 1.0, "end", "axis-name", &self.x.title()))
            @for series in &self.series { (self.curve(series, &place)) }
            @if beside { (self.names(right, (top, bottom), &place)) }
            (explained)
        };
        (drawn, below + 6.0)
    }

    fn table(&self) -> Markup {
        // All x there are, by what they are called, in order.
        let mut rows: Vec<(f64, &str)> = Vec::new();
        let mut cells: BTreeMap<(usize, &str), f64> = BTreeMap::new();
        for (column, series) in self.series.iter().enumerate() {
            for point in series
                .points
                .iter()
                .filter(|point| point.mark != Mark::None)
            {
                if !rows.iter().any(|(_, at)| *at == point.at) {
                    rows.push((point.x, &point.at));
                }
                cells.insert((column, &point.at), point.y);
            }
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        html! {
            table {
                caption { (self.title) ", " (self.y.title()) }
                thead { tr {
                    th scope="col" { (self.x.name) }
                    @for series in &self.series { th scope="col" { (series.name) } }
                } }
                tbody {
                    @for (_, at) in &rows {
                        tr {
                            th scope="row" { (at) }
                            @for column in 0..self.series.len() {
                                td { @match cells.get(&(column, *at)) {
                                    Some(value) => (number::plain(*value)),
                                    None => "–",
                                } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Series are few.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn count(number: usize) -> f64 {
    number as f64
}
