// SPDX-License-Identifier: MIT OR Apache-2.0

//! What differs between two analyses, by symbol and by object.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{ensure, Result};
use mutexlab_lens_recording::recording::Costs;
use schemars::JsonSchema;
use serde::Serialize;

use super::analysis::{Analysis, Function};
use super::cycles::WEIGHTS;
use super::functions::{rows, View};
use super::text::function_name;
use mutexlab_draw::table::{decimals, Align, Table};
use mutexlab_results::metric::{MIN_EFFECT, MIN_MODELLED};

/// A number for each packet, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pair {
    /// In A.
    pub a: f64,
    /// In B.
    pub b: f64,
}

impl Pair {
    /// By how much it rose.
    pub fn change(self) -> f64 {
        self.b - self.a
    }

    /// Whether a modelled number is another: by the same measure as `compare` has.
    fn is_other(self) -> bool {
        let change = self.change().abs();
        change >= MIN_MODELLED && change >= MIN_EFFECT * self.a.abs().max(self.b.abs())
    }
}

/// One thing that has changed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Change {
    /// The function or object.
    pub name: String,
    /// What of it; one of `MEASURES` or `LINES`.
    pub what: &'static str,
    /// The numbers.
    pub numbers: Pair,
}

type Measure = fn(&Costs) -> u64;

/// What is told of functions: instructions, which are exact, and what is modelled.
const MEASURES: [(&str, Measure); 5] = [
    (INSTRUCTIONS, |costs| costs.instructions),
    ("L1D misses", |costs| costs.l1d_misses),
    ("last-level misses", |costs| costs.last_misses),
    ("transfers", |costs| costs.transfers),
    ("cycles", |costs| WEIGHTS.cycles(costs)),
];
const INSTRUCTIONS: &str = "instructions";
/// What is told of objects.
const LINES: &str = "lines used";

/// All that differs within the spans of packets.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Difference {
    /// The cell, as B calls it.
    pub cell: String,
    /// The whole: each of `MEASURES`, changed or not.
    pub whole: Vec<Change>,
    /// Functions, by their own costs; the greatest change of instructions comes first.
    pub functions: Vec<Change>,
    /// Objects, by the lines that packets use of them.
    pub objects: Vec<Change>,
}

impl Difference {
    /// Compares `b` with `a`.
    ///
    /// # Errors
    /// If their caches differ, or one has no packets: then nothing can be said.
    pub fn of(a: &Analysis, b: &Analysis) -> Result<Self> {
        ensure!(
            a.caches == b.caches,
            "other caches were modelled: A {:?}, B {:?}",
            a.caches,
            b.caches
        );
        ensure!(
            a.packets > 0 && b.packets > 0,
            "one of the two has seen no packet"
        );
        let pair = |count_a, count_b| Pair {
            a: a.per_packet(count_a),
            b: b.per_packet(count_b),
        };
        let whole = MEASURES.map(|(what, measure)| Change {
            name: "all".to_owned(),
            what,
            numbers: pair(measure(&a.span()), measure(&b.span())),
        });
        let mut costs: BTreeMap<&Function, [Costs; 2]> = BTreeMap::new();
        for (side, analysis) in [a, b].into_iter().enumerate() {
            for row in rows(analysis, View::Spans) {
                costs.entry(row.function).or_default()[side] += row.own;
            }
        }
        let mut functions = Vec::new();
        for (what, measure) in MEASURES {
            let changes = costs.iter().map(|(function, [a, b])| Change {
                name: function_name(function),
                what,
                numbers: pair(measure(a), measure(b)),
            });
            let mut changes: Vec<Change> = changes
                .filter(|change| match what {
                    INSTRUCTIONS => change.numbers.change() != 0.0,
                    _ => change.numbers.is_other(),
                })
                .collect();
            order(&mut changes);
            functions.append(&mut changes);
        }
        let mut lines: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for (side, analysis) in [a, b].into_iter().enumerate() {
            for object in &analysis.objects {
                lines.entry(&object.identity.name).or_default()[side] += object.used;
            }
        }
        let objects = lines.into_iter().map(|(name, [a, b])| Change {
            name: name.to_owned(),
            what: LINES,
            numbers: pair(a, b),
        });
        let mut objects: Vec<Change> = objects
            .filter(|change| change.numbers.change() != 0.0)
            .collect();
        order(&mut objects);
        Ok(Self {
            cell: b.cell.clone(),
            whole: whole.to_vec(),
            functions,
            objects,
        })
    }

    /// As tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", table("a packet, in its spans", &self.whole));
        for (heading, changes) in [
            ("function, by itself", &self.functions),
            ("object", &self.objects),
        ] {
            let _ = match changes.is_empty() {
                true => writeln!(
                    text,
                    "  No {} has changed.\n",
                    heading.trim_end_matches(", by itself")
                ),
                false => writeln!(text, "{}", table(heading, changes)),
            };
        }
        text.push_str(
            "Instructions and lines used are counted; misses, transfers and cycles are modelled, and have changed \
             if they did so by 1 %.\n",
        );
        text
    }
}

/// The greatest change first.
fn order(changes: &mut [Change]) {
    changes.sort_by(|a, b| {
        let size = |change: &Change| change.numbers.change().abs();
        size(b)
            .total_cmp(&size(a))
            .then_with(|| a.name.cmp(&b.name))
    });
}

fn table(heading: &str, changes: &[Change]) -> Table {
    let mut table = Table::new(&[
        (heading, Align::Left),
        ("", Align::Left),
        ("A", Align::Right),
        ("B", Align::Right),
        ("change", Align::Right),
    ]);
    for Change {
        name,
        what,
        numbers,
    } in changes
    {
        let change = numbers.change();
        let sign = if change > 0.0 { "+" } else { "" };
        table.row([
            name.as_str().into(),
            (*what).into(),
            decimals(numbers.a, 2).into(),
            decimals(numbers.b, 2).into(),
            match change {
                0.0 => "".into(),
                _ => format!("{sign}{}", decimals(change, 2)).into(),
            },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::example;

    #[test]
    fn the_same_has_not_changed() {
        let analysis = example(|_| ());
        let difference = Difference::of(&analysis, &analysis).unwrap();
        assert!(difference.functions.is_empty() && difference.objects.is_empty());
        assert!(difference
            .whole
            .iter()
            .all(|change| change.numbers.change() == 0.0));
        assert!(difference.text().contains("No function has changed."));
    }

    #[test]
    fn what_changed_is_named() {
        let before = example(|_| ());
        let after = example(|recording| {
            // proxy::find takes three more for each of ten packets, and one in a hundred misses.
            recording.code[4].costs.instructions += 30;
            recording.instructions[0] += 30;
            recording.code[4].costs.last_misses += 1;
            recording.lines.pop();
        });
        let difference = Difference::of(&before, &after).unwrap();
        let instructions = &difference.functions[0];
        assert_eq!(instructions.name, "proxy::find [mutex_proxy]");
        assert_eq!(
            (instructions.what, instructions.numbers.change()),
            (INSTRUCTIONS, 3.0)
        );
        let misses = difference
            .functions
            .iter()
            .find(|change| change.what == "last-level misses");
        assert_eq!(misses.unwrap().numbers, Pair { a: 0.0, b: 0.1 });
        assert_eq!(difference.objects.len(), 1);
        assert_eq!(difference.objects[0].name, "jiffies");
        assert_eq!(difference.objects[0].numbers.change(), -1.0);
    }

    #[test]
    fn other_caches_cannot_be_compared() {
        let mut other = example(|_| ());
        other.caches.l2.ways *= 2;
        assert!(Difference::of(&example(|_| ()), &other).is_err());
    }
}
