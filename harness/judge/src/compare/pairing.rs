// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which metric of one run is which of another.

use std::collections::BTreeMap;

use mutexlab_results::metric::HOOK_MEAN;
use mutexlab_results::slim::{Cell, Definition};

/// Which metric of A is which of B.
pub struct Pairing<'a> {
    a: Vec<Half<'a>>,
    b: Vec<Half<'a>>,
    places: BTreeMap<&'a str, usize>,
}

/// A metric of a cell, boot by boot.
pub struct Series<'a> {
    index: usize,
    /// What it is.
    pub definition: &'a Definition,
    /// The numbers.
    pub values: Vec<f64>,
}

/// The metrics of a cell that were asked for, by the places of their names. One that is sampled in
/// any boot is sampled; else one that is modelled in any is modelled.
fn series<'a>(halves: &[Half<'a>], cell: &Cell) -> BTreeMap<usize, Series<'a>> {
    let mut found: BTreeMap<usize, Series<'a>> = BTreeMap::new();
    for boot in cell.boots.values() {
        for &(index, value) in &boot.values {
            let Half {
                definition,
                place: Some(place),
                ..
            } = halves[index]
            else {
                continue;
            };
            let series = found.entry(place).or_insert_with(|| Series {
                index,
                definition,
                values: Vec::new(),
            });
            if definition.kind > series.definition.kind {
                series.definition = definition;
            }
            series.values.push(value);
        }
    }
    found
}

struct Half<'a> {
    definition: &'a Definition,
    /// The place of its name; none if it was not asked for.
    place: Option<usize>,
    /// Whether it stood alone in a cell.
    alone: bool,
}

impl<'a> Pairing<'a> {
    /// Of the metrics with `part` in their names.
    pub fn of(a: &'a [Definition], b: &'a [Definition], part: Option<&str>) -> Self {
        let mut places: BTreeMap<&str, usize> = [(HOOK_MEAN, 0)].into();
        for definition in a.iter().chain(b) {
            let next = places.len();
            places.entry(&definition.name).or_insert(next);
        }
        let halves = |definitions: &'a [Definition]| {
            let half = |definition: &'a Definition| Half {
                definition,
                place: part
                    .is_none_or(|part| definition.name.contains(part))
                    .then(|| places[definition.name.as_str()]),
                alone: false,
            };
            definitions.iter().map(half).collect()
        };
        Self {
            a: halves(a),
            b: halves(b),
            places,
        }
    }

    /// In which order metrics are told.
    pub fn place(&self, metric: &str) -> usize {
        self.places.get(metric).copied().unwrap_or(usize::MAX)
    }

    /// The metrics that both have, with their values in the cell's boots.
    pub fn pairs(&mut self, a: &Cell, b: &Cell) -> Vec<(Series<'a>, Series<'a>)> {
        let mut theirs = series(&self.b, b);
        let mut pairs = Vec::new();
        for (place, ours) in series(&self.a, a) {
            match theirs.remove(&place) {
                Some(theirs) => pairs.push((ours, theirs)),
                None => self.a[ours.index].alone = true,
            }
        }
        for alone in theirs.into_values() {
            self.b[alone.index].alone = true;
        }
        pairs
    }

    /// The metrics that stood alone, of A and of B.
    pub fn unpaired(&self) -> (Vec<&'a str>, Vec<&'a str>) {
        let alone = |halves: &[Half<'a>]| {
            let alone = halves.iter().filter(|half| half.alone);
            alone.map(|half| half.definition.name.as_str()).collect()
        };
        (alone(&self.a), alone(&self.b))
    }
}
