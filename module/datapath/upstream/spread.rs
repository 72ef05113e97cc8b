// SPDX-License-Identifier: GPL-2.0

//! Turns of members that differ in their weights.

/// Which of `total` places turn number `turn` is at. All places come equally often, and those that are neighbours, as one member's
/// are, at turns that are spread as evenly as can be: the multiples of the golden ratio, modulo one (Knuth, The Art of Computer
/// Programming, 6.4). No state but the turn's number is needed, and it may wrap.
pub(super) fn place(turn: u32, total: u32) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let fraction = turn.wrapping_mul(GOLDEN);
    (u64::from(fraction).wrapping_mul(total.into()) >> u32::BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_member_has_its_share_of_any_turns(first: u32, turns in 1..20_000_u32, before in 0..500_u32, weight in 1..256_u32, behind in 0..500_u32) {
            let total = before + weight + behind;
            let its = before..before + weight;
            let hits = (0..turns).filter(|turn| its.contains(&place(first.wrapping_add(*turn), total))).count();
            let expected = f64::from(turns) * f64::from(weight) / f64::from(total);
            prop_assert!((hits as f64 - expected).abs() < 5.0, "{} of {}", hits, expected);
        }

        #[test]
        fn a_member_s_turns_are_spread(first: u32, weight in 1..256_u32, others in 1..256_u32) {
            let total = weight + others;
            let (mut run, mut longest) = (0, 0);
            for turn in 0..8 * total {
                let is_its = place(first.wrapping_add(turn), total) < weight;
                run = if is_its { run + 1 } else { 0 };
                longest = longest.max(run);
            }
            // The least that can be is the weight over the others', rounded up; without spreading it would be the weight.
            prop_assert!(longest <= 3 * weight.div_ceil(others), "a run of {}", longest);
        }
    }

    #[test]
    fn places_are_within() {
        for total in [1, 2, 3, 65_280, u32::MAX] {
            for turn in [0, 1, 2, u32::MAX] {
                assert!(place(turn, total) < total);
            }
        }
        assert_eq!(place(1, 0), 0);
    }
}
