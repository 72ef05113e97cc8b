// SPDX-License-Identifier: GPL-2.0

//! Sorting on a stack as small as the kernel's: that of `core` keeps some dozens of elements in each of its frames, and calls itself.

/// Sorts by a key, in place and by a bounded number of steps, `n log n`: heapsort. Elements of the same key come in any order.
pub fn sort_by_key<T, K: Ord>(all: &mut [T], key: impl Fn(&T) -> K) {
    let length = all.len();
    for root in (0..length / 2).rev() {
        sift_down(all, root, length, &key);
    }
    for end in (1..length).rev() {
        all.swap(0, end);
        sift_down(all, 0, end, &key);
    }
}

// Moves what is at `root` down until nothing below it, as far as `end`, is greater.
fn sift_down<T, K: Ord>(all: &mut [T], mut root: usize, end: usize, key: &impl Fn(&T) -> K) {
    let at = |all: &[T], place: usize| {
        let one = all.get(..end).and_then(|heap| heap.get(place));
        one.map(key)
    };
    loop {
        let left = root.wrapping_mul(2).wrapping_add(1);
        let right = left.wrapping_add(1);
        // What is not there is less than anything.
        let greater = if at(all, right) > at(all, left) {
            right
        } else {
            left
        };
        if at(all, greater) <= at(all, root) {
            return;
        }
        all.swap(root, greater);
        root = greater;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_as_the_standard_library_does(mut all in prop::collection::vec((0_u8..30, any::<u8>()), 0..100)) {
            let mut expected = all.clone();
            sort_by_key(&mut all, |&(key, _)| key);
            prop_assert!(all.is_sorted_by_key(|&(key, _)| key));
            sort_by_key(&mut all, |&both| both);
            expected.sort();
            prop_assert_eq!(all, expected);
        }
    }
}
