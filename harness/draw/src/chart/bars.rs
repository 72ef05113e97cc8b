// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bars from left to right, in groups that share an axis, each with its name and number.

use maud::{html, Markup};

use super::axis::{self, Axis};
use super::{label, mark, number, px, text, Plot, FONT, LINE};

/// The height of a bar.
const BAR: f64 = 13.0;
/// Where the first group begins.
const TOP: f64 = 4.0;
/// From one bar to the next.
const ROW: f64 = 19.0;

/// Bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What is shown.
    pub title: String,
    /// What is seen.
    pub description: String,
    /// The axis of all groups.
    pub axis: Axis,
    /// The groups.
    pub groups: Vec<Group>,
}

/// Bars that are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they are of.
    pub name: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// How it is filled.
    pub style: usize,
    /// Its length; none if there is no number.
    pub value: Option<f64>,
    /// What stands behind the number, such as what it is beside another.
    pub note: String,
}

impl Bar {
    fn text(&self) -> String {
        let value = self
            .value
            .map_or_else(|| "no number".to_owned(), number::plain);
        if self.note.is_empty() {
            value
        } else {
            format!("{value} ({})", self.note)
        }
    }
}

impl Plot for Bars {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn draw(&self, width: f64) -> (Markup, f64) {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let widest = |texts: &mut dyn Iterator<Item = String>| {
            texts
                .map(|text| text::width(&text, FONT))
                .fold(0.0, f64::max)
        };
        let names = widest(&mut bars().map(|bar| bar.name.clone())).min(width * 0.4);
        let left = names + 10.0;
        let right = (width - widest(&mut bars().map(Bar::text)) - 10.0).max(left + 40.0);
        let x = |value: f64| left + self.axis.scale.place(value) * (right - left);
        let zero = x(0.0);
        let mut y = TOP;
        let mut drawn = Vec::new();
        for group in &self.groups {
            y += LINE;
            drawn.push(label(0.0, y - 3.0, "start", "group", &group.name));
            for bar in &group.bars {
                let end = bar.value.map_or(zero, x);
                let (from, to) = (zero.min(end), zero.max(end));
                let middle = y + ROW / 2.0;
                drawn.push(html! {
                    (label(names + 2.0, middle + 4.0, "end", "name", &text::fit(&bar.name, FONT, names)))
                    rect class={ "bar " (mark::class(bar.style)) } x=(px(from)) y=(px(middle - BAR / 2.0))
                        width=(px((to - from).max(1.0))) height=(px(BAR)) {}
                    (label(to + 6.0, middle + 4.0, "start", "value", &bar.text()))
                });
                y += ROW;
            }
            y += 6.0;
        }
        let body = html! {
            (self.axis.grid(x, (TOP, y), width))
            @for part in drawn { (part) }
        };
        (body, y + axis::BELOW)
    }

    fn table(&self) -> Markup {
        let mut names: Vec<&str> = Vec::new();
        for bar in self.groups.iter().flat_map(|group| &group.bars) {
            if !names.contains(&bar.name.as_str()) {
                names.push(&bar.name);
            }
        }
        html! {
            table {
                caption { (self.title) ", " (self.axis.title()) }
                thead { tr {
                    td {}
                    @for name in &names { th scope="col" { (name) } }
                } }
                tbody {
                    @for group in &self.groups {
                        tr {
                            th scope="row" { (group.name) }
                            @for name in &names {
                                td { @match group.bars.iter().find(|bar| bar.name == *name) {
                                    Some(bar) => (bar.text()),
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
