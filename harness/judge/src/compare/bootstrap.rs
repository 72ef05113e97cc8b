// SPDX-License-Identifier: MIT OR Apache-2.0

//! How sure a difference of two means is, by resampling boots.
//!
//! The percentile bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993,
//! chapter 13) with each side's deviations stretched by √(n/(n − 1)): from few boots the plain one
//! gives intervals that are too narrow by that factor (Hesterberg, "What Teachers Should Know About
//! the Bootstrap", The American Statistician 69:4, 2015, section 3.2). It makes no assumption about
//! how boots are spread, but it cannot make up for too few of them.

use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_model::random::Random;

/// The fewest boots on each side that anything is concluded from.
pub const MIN_BOOTS: usize = 3;
/// How often a true difference lies in the interval, about.
pub const CONFIDENCE: f64 = 0.99;
/// Half a percent of them, the least and the greatest, lie outside of the interval.
const RESAMPLES: usize = 2_000;
const OUTSIDE: usize = 10;

/// An interval of differences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether all of it is on one side of zero.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Where the difference of means, `b` less `a`, lies with [`CONFIDENCE`]; each number is one boot's.
/// The same numbers give the same interval, in whatever order they are. `None` if there are fewer
/// than [`MIN_BOOTS`] on a side.
pub fn difference(a: &[f64], b: &[f64]) -> Option<Interval> {
    if a.len().min(b.len()) < MIN_BOOTS {
        return None;
    }
    let (from, to) = (resampled_means(a), resampled_means(b));
    let mut differences: Vec<f64> = to.iter().zip(&from).map(|(to, from)| to - from).collect();
    let (_, &mut low, _) = differences.select_nth_unstable_by(OUTSIDE, f64::total_cmp);
    let (_, &mut high, _) =
        differences.select_nth_unstable_by(RESAMPLES - 1 - OUTSIDE, f64::total_cmp);
    Some(Interval { low, high })
}

/// The mean; exactly the number if all are the same.
pub fn mean(values: &[f64]) -> f64 {
    let first = values.first().copied().unwrap_or(f64::NAN);
    let above: f64 = values.iter().map(|value| value - first).sum();
    first + above / float(values.len())
}

fn resampled_means(boots: &[f64]) -> Vec<f64> {
    let mut boots = boots.to_vec();
    boots.sort_unstable_by(f64::total_cmp);
    let count = float(boots.len());
    let mean = mean(&boots);
    let stretch = (count / (count - 1.0)).sqrt() / count;
    let deviations: Vec<f64> = boots.iter().map(|boot| (boot - mean) * stretch).collect();
    // The seed is made of the numbers: both sides drawing alike would hide their differences, and
    // with a seed for each side the interval would depend on which is called A.
    let seed = boots.iter().fold(0, |seed: u64, boot| {
        Random::new(seed ^ boot.to_bits()).next()
    });
    let mut draws = Draws::new(seed, deviations.len());
    let mut resample = || -> f64 {
        let drawn = deviations.iter().map(|_| deviations[draws.next()]);
        drawn.sum()
    };
    (0..RESAMPLES).map(|_| mean + resample()).collect()
}

/// Indices below a limit, two of each random number: most of the time of comparing goes here.
struct Draws {
    random: Random,
    limit: u64,
    left: Option<u64>,
}

impl Draws {
    fn new(seed: u64, limit: usize) -> Self {
        Self {
            random: Random::new(seed),
            limit: limit as u64,
            left: None,
        }
    }

    /// Multiplied and shifted instead of divided (Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019); boots are so few that all are as good as equally likely.
    #[allow(clippy::cast_possible_truncation)] // It is below the limit.
    fn next(&mut self) -> usize {
        let half = self.left.take().unwrap_or_else(|| {
            let number = self.random.next();
            self.left = Some(number >> 32);
            number & 0xffff_ffff
        });
        ((half * self.limit) >> 32) as usize
    }
}

/// Boots are few.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn draws_reach_all_equally() {
        let mut draws = Draws::new(1, 7);
        let mut seen = [0; 7];
        (0..7_000).for_each(|_| seen[draws.next()] += 1);
        assert!(
            seen.iter().all(|count| (850..1_150).contains(count)),
            "{seen:?}"
        );
    }

    fn boots() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-1e9..1e9_f64, MIN_BOOTS..20)
    }

    proptest! {
        #[test]
        fn it_is_the_same_every_time_in_any_order(a in boots(), mut b in boots(), turn in 0_usize..20) {
            let first = difference(&a, &b);
            let turn = turn % b.len();
            b.rotate_left(turn);
            prop_assert_eq!(first, difference(&a, &b));
        }

        #[test]
        fn it_is_symmetric(a in boots(), b in boots()) {
            let there = difference(&a, &b).unwrap();
            let back = difference(&b, &a).unwrap();
            prop_assert_eq!((there.low, there.high), (-back.high, -back.low));
        }

        #[test]
        fn the_same_boots_differ_by_nothing(a in boots()) {
            prop_assert_eq!(difference(&a, &a), Some(Interval { low: 0.0, high: 0.0 }));
        }

        #[test]
        fn a_large_shift_is_seen(a in boots(), shift in 1e11..1e12_f64) {
            let b: Vec<f64> = a.iter().map(|value| value + shift).collect();
            let interval = difference(&a, &b).unwrap();
            prop_assert!(interval.low > 0.0 && interval.low <= interval.high);
            prop_assert!(interval.low < shift * 1.1 && interval.high > shift * 0.9);
        }
    }

    #[test]
    fn two_boots_tell_nothing() {
        assert_eq!(difference(&[1.0, 2.0], &[5.0, 5.0, 5.0]), None);
        assert_eq!(difference(&[], &[]), None);
    }

    #[test]
    fn equal_numbers_have_their_mean() {
        assert_eq!(mean(&[0.1, 0.1, 0.1]), 0.1);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }

    /// Both sides from the same source: how often a difference is seen that is not there.
    #[test]
    fn false_alarms_are_rare() {
        let mut random = Random::new(7);
        // A sum of uniform numbers is nearly normal.
        let mut draw = || -> f64 { (0..12).map(|_| float(random.below(1_000))).sum() };
        let mut side = |boots: usize| -> Vec<f64> { (0..boots).map(|_| draw()).collect() };
        let mut alarms = |boots: usize| {
            (0..1_000)
                .filter(|_| {
                    let interval = difference(&side(boots), &side(boots)).unwrap();
                    interval.excludes_zero()
                })
                .count()
        };
        let (few, many) = (alarms(5), alarms(20));
        assert!(few < 50, "{few} of 1000 with 5 boots");
        assert!(many < 25, "{many} of 1000 with 20 boots");
    }
}
