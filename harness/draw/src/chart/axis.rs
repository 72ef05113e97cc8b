// SPDX-License-Identifier: MIT OR Apache-2.0

//! An axis: a scale, its ticks, what it shows and in which unit.

use maud::{html, Markup};

use super::scale::Scale;
use super::ticks::{self, Ticks};
use super::{inside, label, line, number, text, FONT, LINE};

/// The height of what stands below a field with a [grid](Axis::grid).
pub const BELOW: f64 = 2.0 * LINE + 8.0;

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What is shown along it.
    pub name: String,
    /// Its unit; empty for what has none, such as commits.
    pub unit: String,
    /// How values lie.
    pub scale: Scale,
    /// Values with labels, in order.
    pub ticks: Vec<(f64, String)>,
    /// The tick whose label must not be left out where there is no room for all.
    pub anchor: usize,
}

impl Axis {
    /// A linear axis that covers the values, and zero if it is not far: a plot whose axis begins
    /// elsewhere makes small things look large.
    pub fn linear(name: &str, unit: &str, values: impl Iterator<Item = f64>, zero: Zero) -> Self {
        let (mut low, mut high) = range(values);
        if zero == Zero::Shown {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        let ticks = ticks::linear(low, high, 6);
        let anchor = ticks.values.iter().position(|&value| value == 0.0);
        Self {
            anchor: anchor.unwrap_or(0),
            ..Self::covered(name, unit, &ticks, |low, high| Scale::Linear { low, high })
        }
    }

    /// A logarithmic axis with ticks at powers of `base`. Values must be positive.
    pub fn log(name: &str, unit: &str, values: impl Iterator<Item = f64>, base: f64) -> Self {
        let (low, high) = range(values);
        let ticks = ticks::powers(low, high, base);
        Self::covered(name, unit, &ticks, |low, high| Scale::Log { low, high })
    }

    /// An axis from the first of the ticks to the last.
    fn covered(
        name: &str,
        unit: &str,
        ticks: &Ticks,
        scale: impl FnOnce(f64, f64) -> Scale,
    ) -> Self {
        let first = ticks.values.first().copied().unwrap_or(0.0);
        let last = ticks.values.last().copied().unwrap_or(first);
        let labelled = |&value: &f64| (value, number::tick(value, ticks.decimals));
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            scale: scale(first, last),
            ticks: ticks.values.iter().map(labelled).collect(),
            anchor: 0,
        }
    }

    /// Percentiles of so many samples: from 0, where the least lies, to the nine that they still
    /// resolve, and behind it the maximum, at the value 1.
    pub fn percentiles(samples: u64) -> Self {
        let mut resolved = 1;
        while 10_u64.pow(resolved + 1) <= samples && resolved < 6 {
            resolved += 1;
        }
        let mut ticks = vec![(0.5, "50".to_owned())];
        let mut label = "90".to_owned();
        for nines in 1..=resolved {
            let part = 1.0 - 10_f64.powi(-i32::try_from(nines).unwrap_or(1));
            ticks.push((part, label));
            label = match nines {
                1 => "99".to_owned(),
                2 => "99.9".to_owned(),
                nines => format!("99.{}", "9".repeat(usize::try_from(nines).unwrap_or(1) - 1)),
            };
        }
        ticks.push((1.0, "max".to_owned()));
        Self {
            name: "percentile".to_owned(),
            unit: "% of packets".to_owned(),
            scale: Scale::Nines {
                nines: f64::from(resolved) + 0.8,
            },
            anchor: ticks.len() - 1,
            ticks,
        }
    }

    /// Things in order, evenly spaced, at 0, 1, 2…; the last is the most important.
    pub fn ordinal(name: &str, labels: &[String]) -> Self {
        let mut at = 0.0_f64;
        let ticks = labels
            .iter()
            .map(|label| {
                let tick = (at, label.clone());
                at += 1.0;
                tick
            })
            .collect();
        Self {
            name: name.to_owned(),
            unit: String::new(),
            scale: Scale::Linear {
                low: -0.2,
                high: (at - 0.8).max(0.2),
            },
            anchor: labels.len().saturating_sub(1),
            ticks,
        }
    }

    /// The ticks from left to right, where `x` is the place of a value: labels stay inside of a drawing
    /// of `width` and `gap` apart from each other, and those that cannot are left out.
    pub fn across(&self, x: impl Fn(f64) -> f64, gap: f64, width: f64) -> Vec<Tick<'_>> {
        let places: Vec<(f64, f64)> = self
            .ticks
            .iter()
            .map(|(value, label)| (x(*value), text::width(label, FONT)))
            .collect();
        let shown = ticks::thin(&places, gap, self.anchor);
        self.ticks
            .iter()
            .zip(places)
            .zip(shown)
            .map(|(((value, label), (x, wide)), shown)| Tick {
                value: *value,
                x,
                label: shown.then(|| (inside(x, wide, width), label.as_str())),
            })
            .collect()
    }

    /// Lines from `top` to `bottom` at the ticks, and below them, in a height of [`BELOW`], labels and
    /// what is shown.
    pub fn grid(&self, x: impl Fn(f64) -> f64, (top, bottom): (f64, f64), width: f64) -> Markup {
        html! {
            @for tick in self.across(x, 10.0, width) {
                (line((tick.x, top), (tick.x, bottom), if tick.value == 0.0 { "zero" } else { "grid" }))
                @if let Some((middle, text)) = tick.label {
                    (label(middle, bottom + LINE - 2.0, "middle", "tick", text))
                }
            }
            (label(width - 2.0, bottom + 2.0 * LINE, "end", "axis-name", &self.title()))
        }
    }

    /// What is shown, with the unit.
    pub fn title(&self) -> String {
        if self.unit.is_empty() {
            self.name.clone()
        } else {
            format!("{} [{}]", self.name, self.unit)
        }
    }
}

/// A tick of a horizontal axis in a drawing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick<'a> {
    /// Its value.
    pub value: f64,
    /// Its place.
    pub x: f64,
    /// The label and its middle, if there is room for it.
    pub label: Option<(f64, &'a str)>,
}

/// Whether a linear axis goes to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// It does.
    Shown,
    /// It covers the values only, which the plot's text must say.
    Apart,
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low <= high {
        (low, high)
    } else {
        (0.0, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_go_as_far_as_samples_do() {
        let labels = |samples| {
            let axis = Axis::percentiles(samples);
            axis.ticks
                .into_iter()
                .map(|(_, label)| label)
                .collect::<Vec<_>>()
        };
        assert_eq!(labels(5), ["50", "90", "max"]);
        assert_eq!(labels(1000), ["50", "90", "99", "99.9", "max"]);
        assert_eq!(
            labels(100_000),
            ["50", "90", "99", "99.9", "99.99", "99.999", "max"]
        );
    }

    #[test]
    fn an_axis_without_values_is_an_axis() {
        let axis = Axis::linear("cost", "ns", std::iter::empty(), Zero::Apart);
        assert!(axis.ticks.len() >= 2);
        assert_eq!(axis.title(), "cost [ns]");
    }
}
