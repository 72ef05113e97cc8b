// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Log-linear histograms after HdrHistogram: exact below a power of two, of constant relative
//! precision above, mergeable by adding buckets.
//!
//! With `P` bits of precision, values below `2^P` have a bucket each; every further power of two
//! is split into `2^(P-1)` buckets, so that a bucket's width is at most `2^(1-P)` of its lowest
//! value. Values of `2^R` and more share the last bucket.

/// The buckets of a histogram of `P` bits of precision over `R` bits of range.
pub struct Scale<const P: u32, const R: u32>;

impl<const P: u32, const R: u32> Scale<P, R> {
    const HALF: usize = 1 << (P - 1);

    /// How many buckets there are.
    pub const BUCKETS: usize = (1 << P) + (R - P) as usize * Self::HALF;

    /// The bucket of `value`; always below [`Self::BUCKETS`].
    #[inline]
    pub const fn index(value: u64) -> usize {
        let bits = u64::BITS - value.leading_zeros();
        if bits <= P {
            return value as usize;
        }
        if bits > R {
            return Self::BUCKETS - 1;
        }
        let shift = bits - P;
        // The value's top P bits, of which the first is set: between HALF and 2 * HALF.
        shift as usize * Self::HALF + (value >> shift) as usize
    }

    /// The lowest value of bucket `index`.
    pub const fn lowest(index: usize) -> u64 {
        if index < 2 * Self::HALF {
            return index as u64;
        }
        let shift = index / Self::HALF - 1;
        ((index - shift * Self::HALF) as u64) << shift
    }

    /// The highest value of bucket `index`, as if the range had no end.
    pub const fn highest(index: usize) -> u64 {
        Self::lowest(index + 1) - 1
    }
}

/// The buckets of [`Scale<P, 32>`](Scale), each at a place that a few instructions find: there are
/// `2^P` places for each number of leading zeros that 32 bits can have, in the order of the value's
/// top `P` bits from its first set bit on. Half of the places stay empty, since that bit is set.
pub struct Octaves<const P: u32>;

impl<const P: u32> Octaves<P> {
    /// How many places there are; the last is that of zero.
    pub const COUNT: usize = (32 << P) + 1;

    /// The place of the bucket of `value`; always below [`Self::COUNT`].
    #[inline]
    pub const fn index(value: u32) -> usize {
        let zeros = value.leading_zeros();
        // For zero, `wrapping_shl` shifts by 0 instead of 32, and the result is still zero.
        let top = value.wrapping_shl(zeros) >> (32 - P);
        ((zeros << P) + top) as usize
    }
}

/// The value at or below which `percent` of the samples lie, by the nearest-rank definition:
/// the smallest bucket such that at least `ceil(percent/100 * total)` samples are in it or below.
///
/// `buckets` are pairs of value and count, in ascending order of value. `None` if there is no
/// sample. `per_mille_of_percent` is the percentile in thousandths: 99,900 for p99.9.
pub fn percentile(
    buckets: impl Iterator<Item = (u64, u64)> + Clone,
    per_mille_of_percent: u32,
) -> Option<u64> {
    let total: u64 = buckets.clone().map(|(_, count)| count).sum();
    let scaled = u128::from(total) * u128::from(per_mille_of_percent);
    let rank = scaled.div_ceil(100_000).max(1);
    let mut seen = 0_u128;
    buckets
        .into_iter()
        .find(|&(_, count)| {
            seen += u128::from(count);
            seen >= rank
        })
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Probe = Scale<12, 32>;

    #[test]
    fn small_values_are_exact() {
        for value in 0..4096 {
            assert_eq!(Probe::lowest(Probe::index(value)), value);
        }
    }

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        for index in 0..Probe::BUCKETS - 1 {
            assert_eq!(Probe::index(Probe::lowest(index)), index);
            assert_eq!(Probe::index(Probe::highest(index)), index);
            assert_eq!(Probe::highest(index) + 1, Probe::lowest(index + 1));
        }
        assert_eq!(Probe::index(u64::MAX), Probe::BUCKETS - 1);
    }

    fn search<const P: u32, const R: u32>(value: u64) -> usize {
        let buckets = 0..Scale::<P, R>::BUCKETS;
        let begins_below = |&bucket: &usize| Scale::<P, R>::lowest(bucket) <= value;
        buckets.rev().find(begins_below).unwrap_or_default()
    }

    // Every bucket has one place, and every place is of one bucket or of none.
    fn places_are_of_buckets<const P: u32>() {
        let mut bucket_at = vec![None; Octaves::<P>::COUNT];
        for bucket in 0..Scale::<P, 32>::BUCKETS {
            let place = Octaves::<P>::index(Scale::<P, 32>::lowest(bucket) as u32);
            assert_eq!(bucket_at[place].replace(bucket), None, "{bucket}");
            let highest = Scale::<P, 32>::highest(bucket) as u32;
            assert_eq!(Octaves::<P>::index(highest), place, "{bucket}");
        }
    }

    #[test]
    fn octaves_have_the_same_buckets() {
        places_are_of_buckets::<2>();
        places_are_of_buckets::<5>();
        places_are_of_buckets::<6>();
        assert_eq!(Octaves::<5>::index(0), Octaves::<5>::COUNT - 1);
        assert_eq!(Scale::<5, 32>::lowest(Scale::<5, 32>::BUCKETS), 1 << 32);
    }

    proptest! {
        #[test]
        fn buckets_are_those_that_a_search_finds(value in any::<u32>(), shift in 0_u32..32) {
            let value = value >> shift;
            let bucket = search::<5, 32>(value.into());
            prop_assert_eq!(Scale::<5, 32>::index(value.into()), bucket);
            let lowest = Scale::<5, 32>::lowest(bucket) as u32;
            prop_assert_eq!(Octaves::<5>::index(value), Octaves::<5>::index(lowest));
        }

        #[test]
        fn precision_holds(value in 0_u64..1 << 32) {
            let index = Probe::index(value);
            let (low, high) = (Probe::lowest(index), Probe::highest(index));
            prop_assert!(low <= value && value <= high);
            prop_assert!((high - low) * (1 << 11) <= low);
        }

        // The definition: the last bucket that begins at or below the value.
        #[test]
        fn index_agrees_with_a_search(bits in 0_u32..64, low: u64) {
            let value = low >> bits;
            prop_assert_eq!(Probe::index(value), search::<12, 32>(value));
            prop_assert_eq!(Scale::<7, 24>::index(value), search::<7, 24>(value));
            prop_assert_eq!(Scale::<1, 5>::index(value), search::<1, 5>(value));
        }

        #[test]
        fn percentile_agrees_with_a_sorted_list(
            buckets in prop::collection::btree_map(any::<u64>(), 0_u64..40, 1..60),
            percent in 1_u32..=100_000,
        ) {
            let each = buckets.iter().flat_map(|(&value, &count)| (0..count).map(move |_| value));
            let sorted: Vec<u64> = each.collect();
            let rank = (sorted.len() as u64 * u64::from(percent)).div_ceil(100_000) as usize;
            let buckets = buckets.iter().map(|(&value, &count)| (value, count));
            let expected = sorted.get(rank.max(1) - 1).copied();
            prop_assert_eq!(percentile(buckets, percent), expected);
        }
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(percentile(core::iter::empty(), 50_000), None);
    }
}
