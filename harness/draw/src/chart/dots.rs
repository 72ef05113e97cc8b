// SPDX-License-Identifier: MIT OR Apache-2.0

//! Marks in rows: what each of several things changes, for several kinds of traffic.

use maud::{html, Markup};

use super::axis::{self, Axis};
use super::{label, legend, line, mark, number, text, Plot, FONT, LINE};

/// The height of a row beyond its lanes.
const ROW: f64 = 18.0;
/// Each style has a lane of its own, so that marks do not hide each other.
const LANE: f64 = 6.0;

/// Rows of marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Dots {
    /// What is shown.
    pub title: String,
    /// What is seen.
    pub description: String,
    /// The axis of all rows.
    pub axis: Axis,
    /// What the marks of a style are of: the legend.
    pub names: Vec<String>,
    /// The rows; each has a place for each name.
    pub rows: Vec<Row>,
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was changed.
    pub name: String,
    /// By style: what came of it.
    pub marks: Vec<Option<Mark>>,
}

/// A mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where it lies.
    pub value: f64,
    /// What the table says behind the number.
    pub note: String,
}

impl Row {
    /// From its least to its greatest value.
    pub fn range(&self) -> String {
        let values = self.marks.iter().flatten().map(|mark| mark.value);
        number::range(values).unwrap_or_else(|| "–".to_owned())
    }
}

impl Dots {
    fn entries(&self) -> Vec<(usize, String)> {
        self.names.iter().cloned().enumerate().collect()
    }
}

impl Plot for Dots {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn draw(&self, width: f64) -> (Markup, f64) {
        let widest = self
            .rows
            .iter()
            .map(|row| text::width(&row.name, FONT))
            .fold(0.0, f64::max);
        let ranges: Vec<String> = self.rows.iter().map(Row::range).collect();
        let beside = ranges
            .iter()
            .map(|range| text::width(range, FONT))
            .fold(0.0, f64::max);
        // Where there is no room beside a row, its name and its range stand above it.
        let above = widest + beside > width * 0.4;
        let left = if above { 12.0 } else { widest + 18.0 };
        let right = width - if above { 14.0 } else { beside + 22.0 };
        let lanes = ROW + count(self.names.len()) * LANE;
        let row_height = if above { lanes + LINE } else { lanes };
        let x = |value: f64| left + self.axis.scale.place(value) * (right - left);
        let (legend, top) = legend::draw(&self.entries(), 2.0, 0.0, width - 4.0, false);
        let top = top + 6.0;
        let mut bottom = top;
        let mut drawn = Vec::new();
        for (row, range) in self.rows.iter().zip(&ranges) {
            let middle = bottom + row_height - lanes / 2.0;
            let first = middle - LANE * count(self.names.len().saturating_sub(1)) / 2.0;
            drawn.push(html! {
                @if above {
                    (label(2.0, bottom + LINE, "start", "group", &text::fit(&row.name, FONT, width - beside - 12.0)))
                    (label(width - 2.0, bottom + LINE, "end", "value", range))
                } @else {
                    (label(left - 14.0, middle + 4.0, "end", "group", &row.name))
                    (label(width - 2.0, middle + 4.0, "end", "value", range))
                }
                (line((left, bottom + row_height), (right, bottom + row_height), "grid"))
                @for (style, found) in row.marks.iter().enumerate() {
                    @if let Some(found) = found {
                        @let note = format!("{}, {}: {} {} {}", row.name, self.names.get(style).map_or("", String::as_str),
                            number::signed(found.value), self.axis.unit, found.note);
                        (mark::marker(style, x(found.value), first + LANE * count(style), false, Some(&note)))
                    }
                }
            });
            bottom += row_height;
        }
        let body = html! {
            (legend)
            (self.axis.grid(x, (top, bottom), width))
            @for part in drawn { (part) }
        };
        (body, bottom + axis::BELOW)
    }

    fn table(&self) -> Markup {
        html! {
            table {
                caption { (self.title) ", " (self.axis.title()) }
                thead { tr {
                    td {}
                    @for name in &self.names { th scope="col" { (name) } }
                } }
                tbody {
                    @for row in &self.rows {
                        tr {
                            th scope="row" { (row.name) }
                            @for found in &row.marks {
                                td { @match found {
                                    Some(mark) => { (number::signed(mark.value)) " " small { (mark.note) } },
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

/// Styles are few.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn count(number: usize) -> f64 {
    number as f64
}
