// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which of several flows a packet is of.

use mutexlab_model::random::Random;
use mutexlab_model::traffic::Popularity;

/// Fixed, so that a cell is the same every time.
const SEED: u64 = 0x3c6e_f372_fe94_f82b;
/// Of the order of popularity, so that it is not that of age.
const ORDER_SEED: u64 = !SEED;

/// Flows at random, for ever, always the same sequence.
#[derive(Clone, Debug)]
pub struct Picks {
    random: Random,
    choice: Choice,
}

#[derive(Clone, Debug)]
enum Choice {
    // Each is as likely as any other of so many.
    Uniform(usize),
    Zipf {
        // The sum of 1/1 to 1/n for each n.
        sums: Vec<f64>,
        // The most popular flow, the next one, and so on.
        order: Vec<u32>,
    },
}

impl Picks {
    /// Of `count` flows, which is not 0.
    pub fn new(popularity: Popularity, count: u32) -> Self {
        Self {
            random: Random::new(SEED),
            choice: match popularity {
                Popularity::Uniform => Choice::Uniform(count as usize),
                Popularity::Zipf => Choice::Zipf {
                    sums: (1..=count)
                        .scan(0.0, |sum, rank| {
                            *sum += f64::from(rank).recip();
                            Some(*sum)
                        })
                        .collect(),
                    order: shuffled(count),
                },
            },
        }
    }
}

impl Iterator for Picks {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &self.choice {
            Choice::Uniform(count) => Some(self.random.below(*count) as u32),
            Choice::Zipf { sums, order } => {
                // As many bits as a float has, so that it is below 1.
                const BITS: u32 = 53;
                let unit = (self.random.next() >> (64 - BITS)) as f64 / (1_u64 << BITS) as f64;
                let wanted = unit * sums.last()?;
                let rank = sums.partition_point(|&sum| sum <= wanted);
                order.get(rank.min(order.len() - 1)).copied()
            }
        }
    }
}

/// All numbers below `count`, by Fisher and Yates.
fn shuffled(count: u32) -> Vec<u32> {
    let mut random = Random::new(ORDER_SEED);
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How often each flow is picked in `times`, most popular first.
    fn frequencies(popularity: Popularity, count: u32, times: usize) -> Vec<u32> {
        let mut found = vec![0; count as usize];
        for flow in Picks::new(popularity, count).take(times) {
            found[flow as usize] += 1;
        }
        if popularity == Popularity::Zipf {
            let order = shuffled(count);
            found = order.iter().map(|&flow| found[flow as usize]).collect();
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn frequencies_follow_the_law(count in 1_u32..3_000, zipf: bool) {
            const TIMES: usize = 60_000;
            let popularity = if zipf { Popularity::Zipf } else { Popularity::Uniform };
            let weight = |rank: usize| if zipf { (rank as f64 + 1.0).recip() } else { 1.0 };
            let whole: f64 = (0..count as usize).map(weight).sum();
            for (rank, &found) in frequencies(popularity, count, TIMES).iter().enumerate() {
                let share = weight(rank) / whole;
                let expected = share * TIMES as f64;
                // Six standard deviations, of a number of rare events at least.
                let deviation = (expected * (1.0 - share)).sqrt().max(1.5);
                let off = (f64::from(found) - expected).abs();
                prop_assert!(
                    off <= 6.0 * deviation + 1e-6,
                    "rank {} of {}: {} times instead of {}", rank, count, found, expected
                );
            }
        }

        #[test]
        fn the_order_is_a_permutation(count in 1_u32..5_000) {
            let mut order = shuffled(count);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..count));
        }
    }

    #[test]
    fn picks_are_the_same_every_time() {
        for popularity in [Popularity::Uniform, Popularity::Zipf] {
            let picks = || Picks::new(popularity, 100).take(1_000);
            assert!(picks().eq(picks()));
            assert!(Picks::new(popularity, 1).take(10).all(|flow| flow == 0));
        }
    }
}
