// SPDX-License-Identifier: MIT OR Apache-2.0

//! The number that is followed through history.

use anyhow::{bail, Context, Result};

use super::halving::Judged;
use crate::compare::bootstrap;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::{Kind, Unit};
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Filter;

/// A metric of a cell in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The number; a mean over boots.
    pub number: f64,
    /// Its unit.
    pub unit: Unit,
    /// Whether a repetition must give the same number.
    pub kind: Kind,
}

impl Value {
    /// The metric `name` of the cell `id`.
    ///
    /// # Errors
    /// If the run does not have it.
    pub fn of(run: &Run, id: &str, name: &str) -> Result<Self> {
        let cell = run.cells.get(id).with_context(|| format!("no cell {id}"))?;
        if let (verdict, Some(reason)) = cell.verdict()
            && verdict != Verdict::Ok
        {
            bail!("{id} ended as {verdict}: {reason}");
        }
        let mut definition = None;
        let mut numbers = Vec::new();
        for &(index, number) in cell.boots.values().flat_map(|boot| &boot.values) {
            if run.definitions[index].name == name {
                definition = Some(&run.definitions[index]);
                numbers.push(number);
            }
        }
        let definition = definition.with_context(|| format!("{id} has no metric {name:?}"))?;
        Ok(Self {
            number: bootstrap::mean(&numbers),
            unit: definition.unit,
            kind: definition.kind,
        })
    }

    /// Whether this is as `bad` and not as `good`: an exact number if it differs from the good one
    /// in the bad one's direction at all, any other if it is nearer to the bad one.
    pub fn judged(self, good: Self, bad: Self) -> Judged {
        let (number, good, from) = (self.number, good.number, good.kind);
        let towards = (number - good) * (bad.number - good).signum();
        let limit = match from {
            Kind::Exact => 0.0,
            Kind::Modelled | Kind::Repeatable | Kind::Sampled => (bad.number - good).abs() / 2.0,
        };
        if towards > limit {
            Judged::Bad
        } else {
            Judged::Good
        }
    }
}

/// The cell that `filter` chooses (any, if there is none) in which the metric differs most between
/// the two runs.
///
/// # Errors
/// If it differs in none.
pub fn most_different(
    good: &Run,
    bad: &Run,
    metric: &str,
    filter: Option<&Filter>,
) -> Result<String> {
    let mut most: Option<(f64, &str)> = None;
    let mut has_metric = false;
    for id in good.cells.keys() {
        if filter.is_some_and(|filter| !filter.admits(id)) {
            continue;
        }
        let (Ok(from), Ok(to)) = (Value::of(good, id, metric), Value::of(bad, id, metric)) else {
            continue;
        };
        has_metric = true;
        let relative = (to.number - from.number).abs() / from.number.abs().max(1.0);
        if relative > 0.0 && most.is_none_or(|(known, _)| relative > known) {
            most = Some((relative, id));
        }
    }
    match most {
        Some((_, id)) => Ok(id.to_owned()),
        None if has_metric => bail!("{metric} is the same in both commits: there is nothing to find"),
        None => bail!("no cell has the metric {metric:?} in both commits: `mutexlab compare --all` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_results::sample::{exact, run, sampled};

    fn value(number: f64, kind: Kind) -> Value {
        Value {
            number,
            unit: Unit::InstructionsPerPacket,
            kind,
        }
    }

    #[test]
    fn an_exact_number_is_bad_as_soon_as_it_moves_towards_bad() {
        let judged = |number: f64| {
            let of = |number| value(number, Kind::Exact);
            of(number).judged(of(100.0), of(110.0))
        };
        assert_eq!(judged(100.0), Judged::Good);
        assert_eq!(judged(101.0), Judged::Bad);
        assert_eq!(judged(120.0), Judged::Bad);
        assert_eq!(judged(99.0), Judged::Good);
    }

    #[test]
    fn a_sampled_number_is_bad_if_it_is_nearer_to_bad() {
        let judged = |number: f64| {
            let of = |number| value(number, Kind::Sampled);
            of(number).judged(of(100.0), of(50.0))
        };
        assert_eq!(judged(80.0), Judged::Good);
        assert_eq!(judged(70.0), Judged::Bad);
    }

    #[test]
    fn the_cell_that_changed_most_is_followed() {
        let good = run(&[
            ("a", &[&[exact("m", 100.0)]]),
            ("b", &[&[exact("m", 10.0)]]),
            ("c", &[&[sampled("n", 1.0)]]),
        ]);
        let bad = run(&[
            ("a", &[&[exact("m", 101.0)]]),
            ("b", &[&[exact("m", 11.0)]]),
            ("c", &[&[sampled("n", 1.0)]]),
        ]);
        let most = |metric, part: Option<&str>| {
            let filter = part.and_then(|part| part.parse().ok());
            most_different(&good, &bad, metric, filter.as_ref())
        };
        assert_eq!(most("m", None).unwrap(), "b");
        assert_eq!(most("m", Some("a")).unwrap(), "a");
        assert!(most("n", None)
            .unwrap_err()
            .to_string()
            .contains("the same"));
        assert!(most("x", None).unwrap_err().to_string().contains("no cell"));
    }
}
