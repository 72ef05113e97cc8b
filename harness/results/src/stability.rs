// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a time that was measured in several boots is steady enough to say anything.

use std::collections::BTreeMap;

use super::record::{CellRecord, Results};
use crate::metric::{HOOK_MEAN, PATH_MEAN};
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::verdict::Verdict;

/// Fewer boots than this have no spread that could be told.
const MIN_BOOTS: usize = 3;
/// A cell is noisy if its boots spread by more than this part of their median.
const MAX_SPREAD: f64 = 0.05;
/// From this modified z-score on a boot is an outlier: Iglewicz and Hoaglin, "How to Detect and
/// Handle Outliers" (1993), take 3.5.
const OUTLIER: f64 = 3.5;
/// Makes the median absolute deviation of a normal distribution its standard deviation.
const NORMAL: f64 = 1.4826;

/// How the boots of a cell agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The median over boots.
    pub median: f64,
    /// The robust standard deviation, a part of the median.
    pub relative: f64,
    /// Boots that are unlike the others, by index.
    pub outliers: Vec<usize>,
}

impl Spread {
    /// That of a number from each boot; `None` if there are too few.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.len() < MIN_BOOTS {
            return None;
        }
        let center = median(values)?;
        let deviations: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
        let deviation = NORMAL * median(&deviations)?;
        let is_outlier = |value: f64| (value - center).abs() > OUTLIER * deviation;
        Some(Self {
            median: center,
            relative: if center == 0.0 {
                0.0
            } else {
                deviation / center.abs()
            },
            outliers: values
                .iter()
                .enumerate()
                // With most boots equal anything else would be one.
                .filter(|&(_, &value)| deviation > 0.0 && is_outlier(value))
                .map(|(index, _)| index)
                .collect(),
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) {
        f64::midpoint(*sorted.get(middle - 1)?, upper)
    } else {
        upper
    })
}

/// The time that a cell is about.
pub fn headline(subject: &Subject) -> &'static str {
    if *subject == Subject::NONE {
        PATH_MEAN
    } else {
        HOOK_MEAN
    }
}

/// The good cells' headlines by id, in the order of boots.
fn by_cell(cells: &[CellRecord]) -> BTreeMap<&str, Vec<(u32, f64)>> {
    let mut values: BTreeMap<&str, Vec<(u32, f64)>> = BTreeMap::new();
    for cell in cells {
        let usable = matches!(cell.verdict, Verdict::Ok | Verdict::Noisy);
        if let (true, Some(value)) = (usable, cell.metric(headline(&cell.subject))) {
            values
                .entry(&cell.id)
                .or_default()
                .push((cell.repetition, value));
        }
    }
    for values in values.values_mut() {
        values.sort_by_key(|&(repetition, _)| repetition);
    }
    values
}

/// Gives cells of real time that are not steady the verdict [`Verdict::Noisy`].
pub fn judge(results: &mut Results) {
    if results.mode != Mode::Wall {
        return;
    }
    let noisy: BTreeMap<String, String> = by_cell(&results.cells)
        .into_iter()
        .filter_map(|(id, boots)| {
            let values: Vec<f64> = boots.iter().map(|&(_, value)| value).collect();
            let spread = Spread::of(&values)?;
            (spread.relative > MAX_SPREAD).then(|| {
                let reason = format!(
                    "{} boots spread by {:.0} % around {:.0} ns; {:.0} % is the most that says \
                     anything",
                    values.len(),
                    100.0 * spread.relative,
                    spread.median,
                    100.0 * MAX_SPREAD
                );
                (id.to_owned(), reason)
            })
        })
        .collect();
    for cell in &mut results.cells {
        if let (Verdict::Ok, Some(reason)) = (cell.verdict, noisy.get(&cell.id)) {
            cell.verdict = Verdict::Noisy;
            cell.reason = Some(reason.clone());
        }
    }
}

/// What a person should know before they believe times, and what to do about it.
pub fn advice(results: &Results) -> Vec<String> {
    if results.mode != Mode::Wall {
        return Vec::new();
    }
    let mut advice = Vec::new();
    let cells = by_cell(&results.cells);
    let few = cells.values().filter(|boots| boots.len() < MIN_BOOTS);
    if few.count() > 0 {
        advice.push(format!(
            "fewer than {MIN_BOOTS} boots have no spread that could be told: set `boots` to 10 or \
             so in the scenario"
        ));
    }
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for (id, boots) in cells {
        let values: Vec<f64> = boots.iter().map(|&(_, value)| value).collect();
        for index in Spread::of(&values)
            .into_iter()
            .flat_map(|spread| spread.outliers)
        {
            let list = if index == 0 { &mut first } else { &mut others };
            list.push(format!("{id} in boot {}", boots[index].0));
        }
    }
    if !first.is_empty() {
        advice.push(format!(
            "the first boot is unlike the others ({}): caches of the host were cold; run again, or \
             leave it out",
            first.join(", ")
        ));
    }
    if !others.is_empty() {
        advice.push(format!(
            "outliers ({}): something else ran on this machine; close other programs, fix the \
             CPUs' frequency, or repeat more boots",
            others.join(", ")
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steady_and_unsteady_are_told_apart() {
        let steady = Spread::of(&[100.0, 101.0, 99.0, 100.5, 100.0]).unwrap();
        assert!(steady.relative < 0.02, "{steady:?}");
        assert!(steady.outliers.is_empty());
        let unsteady = Spread::of(&[100.0, 130.0, 80.0, 110.0, 95.0]).unwrap();
        assert!(unsteady.relative > MAX_SPREAD, "{unsteady:?}");
        assert_eq!(Spread::of(&[1.0, 2.0]), None);
    }

    #[test]
    fn one_bad_boot_is_an_outlier_and_not_noise() {
        let spread = Spread::of(&[200.0, 101.0, 99.0, 100.5, 100.0, 100.2]).unwrap();
        assert_eq!(spread.outliers, [0]);
        assert!(spread.relative < MAX_SPREAD);
        assert!(Spread::of(&[5.0, 5.0, 5.0, 6.0])
            .unwrap()
            .outliers
            .is_empty());
    }

    proptest! {
        #[test]
        fn spread_does_not_depend_on_order_or_unit(
            mut values in prop::collection::vec(1.0_f64..1e6, 3..20),
        ) {
            let one = Spread::of(&values).unwrap();
            let thousand: Vec<f64> = values.iter().map(|value| value * 1024.0).collect();
            let other = Spread::of(&thousand).unwrap();
            prop_assert!((one.relative - other.relative).abs() < 1e-9);
            prop_assert_eq!(&one.outliers, &other.outliers);
            values.reverse();
            let reversed = Spread::of(&values).unwrap();
            prop_assert_eq!((one.median, one.relative), (reversed.median, reversed.relative));
        }
    }
}
