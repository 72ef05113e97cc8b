// SPDX-License-Identifier: MIT OR Apache-2.0

//! Labels beside the lines that they name, moved apart where they would lie on each other.

/// Places for labels that want to be at `wanted`, at least `distance` apart, within `low` and
/// `high` as far as there is room. They keep their order, and are moved as little as may be:
/// those that would touch become a block around the middle of what they want.
pub fn spread(wanted: &[f64], distance: f64, low: f64, high: f64) -> Vec<f64> {
    struct Block {
        /// Where the first of it lies.
        start: f64,
        /// Of what each wants less its distance from the first: the mean is the best start.
        sum: f64,
        members: Vec<usize>,
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    let want = |index: usize| wanted.get(index).copied().unwrap_or(low);
    order.sort_by(|&a, &b| want(a).total_cmp(&want(b)).then(a.cmp(&b)));
    let room = |members: usize| distance * length(members.saturating_sub(1));
    let place = |block: &Block| {
        let best = block.sum / length(block.members.len());
        best.min(high - room(block.members.len())).max(low)
    };
    let mut blocks: Vec<Block> = Vec::new();
    for index in order {
        let mut block = Block {
            start: 0.0,
            sum: want(index),
            members: vec![index],
        };
        block.start = place(&block);
        while let Some(last) =
            blocks.pop_if(|last| last.start + room(last.members.len()) + distance > block.start)
        {
            let before = length(last.members.len());
            block.sum = last.sum + block.sum - before * distance * length(block.members.len());
            block.members.splice(0..0, last.members);
            block.start = place(&block);
        }
        blocks.push(block);
    }
    let mut places = vec![low; wanted.len()];
    for block in blocks {
        let mut at = block.start;
        for member in block.members {
            if let Some(place) = places.get_mut(member) {
                *place = at;
            }
            at += distance;
        }
    }
    places
}

/// Labels are few.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn length(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_has_room_stays() {
        assert_eq!(spread(&[90.0, 10.0], 14.0, 0.0, 100.0), [90.0, 10.0]);
    }

    #[test]
    fn who_has_none_moves_a_little() {
        assert_eq!(spread(&[50.0, 50.0], 10.0, 0.0, 100.0), [45.0, 55.0]);
        assert_eq!(
            spread(&[0.0, 0.0, 2.0], 10.0, 0.0, 100.0),
            [0.0, 10.0, 20.0]
        );
        assert_eq!(spread(&[99.0, 100.0], 10.0, 0.0, 100.0), [90.0, 100.0]);
    }

    proptest! {
        #[test]
        fn labels_never_touch_and_stay_inside(wanted in prop::collection::vec(0.0..300.0_f64, 0..16)) {
            let places = spread(&wanted, 15.0, 0.0, 300.0);
            prop_assert_eq!(places.len(), wanted.len());
            let mut sorted = places.clone();
            sorted.sort_by(f64::total_cmp);
            for pair in sorted.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 15.0 - 1e-6, "{:?}", sorted);
            }
            for &place in &places {
                prop_assert!((-1e-6..=300.0 + 1e-6).contains(&place), "{:?}", places);
            }
            for (a, &wanted_a) in wanted.iter().enumerate() {
                for (b, &wanted_b) in wanted.iter().enumerate() {
                    prop_assert!(wanted_a >= wanted_b || places[a] < places[b]);
                }
            }
        }
    }
}
