// SPDX-License-Identifier: GPL-2.0

//! Which member a client's connections go to, by nothing but the addresses of both: weighted rendezvous hashing (Thaler and Ravishankar,
//! "Using Name-Based Mappings to Increase Hit Rates", 1998; weights as in Schindelhauer and Schomaker, "Weighted Distributed
//! Hash Tables", 2005).
//!
//! Each member draws a number for the client, and the least one of them is taken. So who comes takes clients from all others as its weight
//! says, and who goes leaves to the others its own clients alone. There is no key: the same on every machine and after every boot.

use core::cmp::Ordering;

use super::super::tuple::Address;

/// What a member drew for a client: the less of it the better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    // Distributed exponentially, in units of 2^-24.
    drawn: u64,
    weight: u64,
}

impl Draw {
    /// That of the member at `address` and `port`, which has this weight, for `client`.
    pub(super) fn of<A: Address>(client: A, address: A, port: u16, weight: u8) -> Self {
        let words = [address, client].map(|one| {
            let bytes = u128::from_be_bytes(one.to_bytes());
            [(bytes >> 64) as u64, bytes as u64]
        });
        let hash = words
            .iter()
            .flatten()
            .fold(u64::from(port), |hash, word| mix(hash ^ word));
        Self {
            drawn: minus_log2(hash),
            weight: weight.into(),
        }
    }

    /// By what was drawn for each part of the weight.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let [one, two] = [(self, other), (other, self)]
            .map(|(draw, other)| draw.drawn.wrapping_mul(other.weight));
        one.cmp(&two)
    }
}

// The last steps of splitmix64 (Steele et al., OOPSLA 2014).
fn mix(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

const FRACTION_BITS: u32 = 24;

// The logarithm of `number` over 2^64, without its sign, in units of 2^-24: more than zero.
fn minus_log2(number: u64) -> u64 {
    let number = number | 1;
    let zeros = number.leading_zeros();
    // From 2^31 on, for numbers from 1 to 2, of which each square gives a bit of the logarithm.
    let mut rest = number.wrapping_shl(zeros) >> 32;
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        rest = rest.wrapping_mul(rest) >> 31;
        let bit = rest >> 32;
        fraction = fraction << 1 | bit;
        rest = rest.wrapping_shr(bit as u32);
    }
    (u64::from(zeros).wrapping_add(1) << FRACTION_BITS).wrapping_sub(fraction)
}

#[cfg(test)]
mod tests {
    use super::super::super::tuple::V4;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_logarithm_is_right(number: u64, bits in 0..64_u32) {
            let number = number >> bits;
            let expected = 64.0 - ((number | 1) as f64).log2();
            let got = minus_log2(number) as f64 / f64::from(1 << FRACTION_BITS);
            prop_assert!((got - expected).abs() < 1e-6, "{} and {}", got, expected);
            prop_assert!(minus_log2(number) > 0);
        }
    }

    /// The members' numbers, by their weights, that clients go to.
    fn takers(members: &[(u8, u8)], clients: u32) -> Vec<u8> {
        let draw = |client: u32, number: u8, weight| {
            let address = V4(u32::from_be_bytes([10, 0, 0, number]).to_be());
            Draw::of(V4(client.to_be()), address, 80, weight)
        };
        (0..clients)
            .map(|client| {
                let draws = members
                    .iter()
                    .map(|&(number, weight)| (draw(client, number, weight), number));
                draws.min_by(|(a, _), (b, _)| a.compare(b)).unwrap().1
            })
            .collect()
    }

    #[test]
    fn members_have_clients_as_their_weights_say() {
        const CLIENTS: u32 = 40_000;
        let members = [(1, 1), (2, 2), (3, 5), (4, 12)];
        let takers = takers(&members, CLIENTS);
        for (number, weight) in members {
            let count = takers.iter().filter(|one| **one == number).count();
            let expected = f64::from(CLIENTS) * f64::from(weight) / 20.0;
            let error = (count as f64 - expected).abs();
            // Five standard deviations.
            assert!(error < 5.0 * expected.sqrt(), "{number}: {count}");
        }
    }

    #[test]
    fn only_clients_of_who_goes_or_comes_are_moved() {
        let all = [(1, 1), (2, 3), (3, 3), (4, 200)];
        let before = takers(&all, 5000);
        for gone in 0..all.len() {
            let mut left = all.to_vec();
            let (number, _) = left.remove(gone);
            for (old, new) in before.iter().zip(takers(&left, 5000)) {
                assert!(*old == number || *old == new);
            }
        }
        // Who gets a greater weight takes, and gives to none.
        let heavier = takers(&[(1, 1), (2, 9), (3, 3), (4, 200)], 5000);
        assert!(before
            .iter()
            .zip(&heavier)
            .all(|(old, new)| old == new || *new == 2));
        assert!(before != heavier);
    }

    // Who goes on with connections by another machine, or after an update, relies on it.
    #[test]
    fn it_is_the_same_everywhere() {
        let members = [(1, 1), (2, 1), (3, 2)];
        assert_eq!(takers(&members, 16), EVERYWHERE);
    }

    // As a program of a few lines in another language has them.
    const EVERYWHERE: [u8; 16] = [3, 1, 3, 2, 3, 3, 1, 3, 3, 2, 1, 2, 1, 2, 2, 3];
}
