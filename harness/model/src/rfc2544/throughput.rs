// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looks for the greatest rate at which a device loses no more than it may: throughput as in
//! RFC 2544, section 26.1 (no loss at all), and partial-drop rates. By itself it sends nothing: it says
//! which rate to try next, and is told what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is looked for, and how.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Goal {
    /// The least rate of interest, in packets a second.
    pub from: u32,
    /// The greatest.
    pub to: u32,
    /// How near the result is to the rate that is looked for, in packets a second.
    #[schemars(range(min = 1))]
    pub resolution: u32,
    /// Packets in a million that may be lost.
    pub loss_ppm: u32,
    /// How many trials at the result must have been good.
    #[schemars(range(min = 1))]
    pub repeats: u32,
    /// How long a trial takes, in milliseconds of the guest's time.
    #[schemars(range(min = 1))]
    pub trial_ms: u32,
}

impl Goal {
    /// Packets of a trial at `rate`.
    pub fn packets(&self, rate: u32) -> u32 {
        let packets = u64::from(rate) * u64::from(self.trial_ms) / 1_000;
        u32::try_from(packets).unwrap_or(u32::MAX).max(1)
    }

    /// Whether no more was lost in a trial than may be.
    pub fn accepts(&self, trial: &Trial) -> bool {
        let lost = u128::from(trial.lost) * 1_000_000;
        trial.in_time && lost <= u128::from(trial.sent) * u128::from(self.loss_ppm)
    }
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Searched {
    /// What was looked for.
    pub goal: Goal,
    /// The greatest good rate; `None` if even the least was too much.
    pub rate: Option<u32>,
    /// All trials, in order.
    pub trials: Vec<Trial>,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Trial {
    /// The rate that was tried, in packets a second.
    pub rate: u32,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Whether they were sent when they should have been: else the rate was never offered.
    pub in_time: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try this rate.
    Try(u32),
    /// The search has ended with the greatest good rate; `None` if even the least is too much.
    Done(Option<u32>),
}

/// A search by bisection. Bad trials count for ever; a rate is believed to be good when it was so in as
/// many trials as the goal wants.
#[derive(Clone, Debug)]
pub struct Search {
    goal: Goal,
    // Rates with good trials and how many, ascending; all are below `bad`.
    good: Vec<(u32, u32)>,
    // The least rate with a bad trial.
    bad: Option<u32>,
}

impl Search {
    /// One that knows nothing yet.
    pub fn new(goal: Goal) -> Self {
        Self {
            goal: Goal {
                to: goal.to.max(goal.from),
                resolution: goal.resolution.max(1),
                repeats: goal.repeats.max(1),
                ..goal
            },
            good: Vec::new(),
            bad: None,
        }
    }

    /// What to do next.
    pub fn next(&self) -> Step {
        let Goal {
            from,
            to,
            resolution,
            repeats,
            ..
        } = self.goal;
        let Some(bad) = self.bad else {
            // The greatest first: if it is good there is nothing to look for.
            return match self.good.last() {
                Some(&(rate, times)) if times >= repeats => Step::Done(Some(rate)),
                _ => Step::Try(to),
            };
        };
        let Some(&(good, times)) = self.good.last() else {
            return if bad <= from {
                Step::Done(None)
            } else {
                Step::Try(from)
            };
        };
        if bad - good > resolution {
            return Step::Try(good + (bad - good) / 2);
        }
        if times < repeats {
            Step::Try(good)
        } else {
            Step::Done(Some(good))
        }
    }

    /// Takes note of a trial of the rate that was to be tried.
    pub fn take(&mut self, trial: &Trial) {
        let rate = trial.rate;
        if !self.goal.accepts(trial) {
            self.bad = Some(self.bad.map_or(rate, |bad| bad.min(rate)));
            self.good.retain(|&(good, _)| good < rate);
            return;
        }
        match self.good.binary_search_by_key(&rate, |&(rate, _)| rate) {
            Ok(index) => self.good[index].1 += 1,
            Err(index) => self.good.insert(index, (rate, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    /// Runs a search on a device; gives the result and how many trials there were.
    fn run(goal: Goal, mut device: impl FnMut(u32) -> Trial) -> (Option<u32>, u32) {
        let mut search = Search::new(goal);
        for trials in 0..10_000 {
            match search.next() {
                Step::Done(rate) => return (rate, trials),
                Step::Try(rate) => search.take(&device(rate)),
            }
        }
        panic!("the search does not end");
    }

    /// A device that passes `capacity` packets a second on, for a second.
    fn ideal(capacity: u32) -> impl FnMut(u32) -> Trial {
        move |rate| Trial {
            rate,
            sent: rate.into(),
            lost: rate.saturating_sub(capacity).into(),
            in_time: true,
        }
    }

    fn goal() -> impl Strategy<Value = Goal> {
        (1_u32..1_000_000, 0_u32..2_000_000, 1_u32..5_000, 1_u32..5).prop_map(
            |(from, span, resolution, repeats)| Goal {
                from,
                to: from + span,
                resolution,
                loss_ppm: 0,
                repeats,
                trial_ms: 1_000,
            },
        )
    }

    proptest! {
        #[test]
        fn the_rate_without_loss_is_the_capacity(goal in goal(), capacity in 1_u32..4_000_000) {
            let (rate, trials) = run(goal, ideal(capacity));
            prop_assert!(trials <= 2 * u32::BITS + goal.repeats);
            match rate {
                None => prop_assert!(capacity < goal.from),
                Some(rate) => {
                    prop_assert!(rate <= capacity && (goal.from..=goal.to).contains(&rate));
                    prop_assert!(rate == goal.to || capacity - rate <= goal.resolution);
                }
            }
        }

        #[test]
        fn a_partial_drop_rate_loses_what_it_may(
            goal in goal(),
            capacity in 1_000_u32..4_000_000,
            loss_ppm in 1_u32..100_000,
        ) {
            let goal = Goal { loss_ppm, ..goal };
            // What is lost at a rate is 1 - capacity / rate.
            let greatest = f64::from(capacity) / (1.0 - f64::from(loss_ppm) / 1e6);
            match run(goal, ideal(capacity)).0 {
                None => prop_assert!(f64::from(goal.from) > greatest - 1.0),
                Some(rate) => {
                    let rate = f64::from(rate);
                    prop_assert!(rate <= greatest + 1.0);
                    let near = greatest - rate <= f64::from(goal.resolution) + 1.0;
                    prop_assert!(rate == f64::from(goal.to) || near);
                }
            }
        }

        #[test]
        fn noise_never_makes_the_result_better(
            goal in goal(),
            capacity in 1_u32..4_000_000,
            seed: u64,
            one_in in 2_usize..30,
        ) {
            let mut random = Random::new(seed);
            let mut device = ideal(capacity);
            // Now and then a packet is lost, or late, that need not be.
            let (rate, _) = run(goal, |rate| {
                let trial = device(rate);
                match random.below(2 * one_in) {
                    0 => Trial { lost: trial.lost.max(1), ..trial },
                    1 => Trial { in_time: false, ..trial },
                    _ => trial,
                }
            });
            prop_assert!(rate.is_none_or(|rate| rate <= capacity));
        }

        #[test]
        fn luck_has_to_hold_as_often_as_is_wanted(capacity in 10_000_u32..90_000, seed: u64) {
            let goal = Goal {
                from: 1_000,
                to: 100_000,
                resolution: 100,
                loss_ppm: 0,
                // So often that no run of this test will see it hold.
                repeats: 60,
                trial_ms: 1_000,
            };
            let mut random = Random::new(seed);
            let mut device = ideal(capacity);
            // Every other trial above the capacity happens to lose nothing.
            let (rate, _) = run(goal, |rate| {
                let trial = device(rate);
                Trial { lost: if random.one_in(2) { 0 } else { trial.lost }, ..trial }
            });
            prop_assert!(rate.is_some_and(|rate| rate <= capacity));
            prop_assert!(rate.is_some_and(|rate| capacity - rate <= goal.resolution));
        }
    }
}
