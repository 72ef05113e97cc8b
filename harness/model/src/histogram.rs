// SPDX-License-Identifier: MIT OR Apache-2.0

//! Histograms of many values in little space: HdrHistogram of four significant digits.
//!
//! Values below 32,768 are exact; above, a bucket is at most 1/16,384 of its value wide. As text a
//! histogram is what <http://hdrhistogram.org> and its tools understand: HdrHistogram's format V2,
//! compressed, as base64.

mod encoding;

use std::borrow::Cow;
use std::io::Cursor;

use base64::prelude::{Engine, BASE64_STANDARD};
use hdrhistogram::serialization::Deserializer;
use mutex_abi::histogram::percentile;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};

/// Significant decimal digits.
const DIGITS: u8 = 4;
/// The greatest value, about 18 minutes of nanoseconds; greater ones count as it.
const MAX: u64 = 1 << 40;

/// One that has room for all values, as it is read.
type Dense = hdrhistogram::Histogram<u64>;

/// Takes values as they come, and leaves counting them for later.
#[derive(Clone, Debug)]
pub struct Recorder {
    values: Vec<u64>,
}

impl Recorder {
    /// One that has no value. Recording so many allocates nothing, and touches no memory for the first time.
    pub fn with_capacity(values: usize) -> Self {
        let mut values = vec![u64::MAX; values];
        values.clear();
        Self { values }
    }

    /// Takes a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.values.push(value);
    }

    /// What was recorded.
    pub fn histogram(&self) -> Histogram {
        Histogram::from_pairs(self.values.iter().map(|&value| (value, 1)))
    }
}

/// How often which values occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    // Lowest value of a bucket, and how many are in it, never 0; ascending.
    buckets: Vec<(u64, u64)>,
}

impl Histogram {
    /// One of pairs of a value and how often it occurred.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut buckets: Vec<(u64, u64)> = pairs
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(value, count)| (encoding::lowest(value.min(MAX)), count))
            .collect();
        buckets.sort_unstable();
        buckets.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        Self { buckets }
    }

    fn of(dense: &Dense) -> Self {
        let recorded = dense.iter_recorded();
        Self::from_pairs(recorded.map(|bucket| {
            let count = bucket.count_since_last_iteration();
            (bucket.value_iterated_to(), count)
        }))
    }

    /// Adds what another has.
    pub fn merge(&mut self, other: &Self) {
        *self = Self::from_pairs(self.pairs().chain(other.pairs()));
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|&(_, count)| count).sum()
    }

    /// Pairs of the lowest value of a bucket and how many are in it, ascending.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + Clone + '_ {
        self.buckets.iter().copied()
    }

    /// The value at or below which so many thousandths of a percent of the values lie, by nearest
    /// rank; `None` if there is no value.
    pub fn percentile(&self, thousandths: u32) -> Option<u64> {
        percentile(self.pairs(), thousandths)
    }

    /// The mean of the buckets' lowest values; `None` if there is no value.
    pub fn mean(&self) -> Option<f64> {
        let sum: u128 = self
            .pairs()
            .map(|(value, count)| u128::from(value) * u128::from(count))
            .sum();
        // Sums of nanoseconds stay far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        (self.count() > 0).then(|| sum as f64 / self.count() as f64)
    }

    /// The lowest value of the highest bucket that has one.
    pub fn max(&self) -> Option<u64> {
        self.buckets.last().map(|&(value, _)| value)
    }
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = encoding::encode(&self.buckets).map_err(S::Error::custom)?;
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD
            .decode(&*text)
            .map_err(|error| D::Error::custom(format!("a histogram is no base64: {error}")))?;
        let read: Dense = Deserializer::new()
            .deserialize(&mut Cursor::new(bytes))
            .map_err(|error| D::Error::custom(format!("a histogram is damaged: {error}")))?;
        Ok(Self::of(&read))
    }
}

impl JsonSchema for Histogram {
    fn schema_name() -> Cow<'static, str> {
        "Histogram".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "HdrHistogram, format V2, compressed, base64. Exact below 32768.",
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^HIST[A-Za-z0-9+/]+=*$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        Histogram::from_pairs(values.iter().map(|&value| (value, 1)))
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        // Of all sizes, and often the same.
        prop::collection::vec(
            (0_u64..MAX, 0_u32..40).prop_map(|(value, bits)| value >> bits),
            0..60,
        )
    }

    fn merged(one: &Histogram, other: &Histogram) -> Histogram {
        let mut merged = one.clone();
        merged.merge(other);
        merged
    }

    proptest! {
        #[test]
        fn merge_is_associative_and_commutative(a in values(), b in values(), c in values()) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        }

        #[test]
        fn merged_is_as_if_recorded_in_one(a in values(), b in values()) {
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged(&of(&a), &of(&b)), of(&both));
        }

        #[test]
        fn percentiles_agree_with_a_sorted_list(mut values in values(), percent in 1_u32..=100_000) {
            let histogram = of(&values);
            values.sort_unstable();
            let rank = (values.len() as u64 * u64::from(percent)).div_ceil(100_000).max(1);
            let expected = values.get(rank as usize - 1).copied();
            let found = histogram.percentile(percent);
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!(found <= expected && expected - found <= expected / 16_384);
                prop_assert!(expected >= 32_768 || found == expected);
            }
        }

        #[test]
        fn recorded_is_as_if_of_pairs(values in values()) {
            let mut recorder = Recorder::with_capacity(values.len() / 2);
            values.iter().for_each(|&value| recorder.record(value));
            prop_assert_eq!(recorder.histogram(), of(&values));
        }

        #[test]
        fn text_loses_nothing(values in values()) {
            let histogram = of(&values);
            let text = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
        }
    }

    #[test]
    fn little_space_for_few_values() {
        let histogram = Histogram::from_pairs([(176, 1_000), (2_685, 1)]);
        let text = serde_json::to_string(&histogram).unwrap();
        assert!(text.starts_with("\"HIST"), "{text}");
        assert!(text.len() < 100, "{}", text.len());
    }

    #[test]
    fn damage_is_noticed() {
        let text = serde_json::to_string(&of(&[1, 2, 3])).unwrap();
        for bad in ["\"\"", "\"?\"", "\"HIST\"", &text.replace("HIST", "HISS")] {
            assert!(serde_json::from_str::<Histogram>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_too_great_counts_as_the_greatest() {
        let histogram = of(&[u64::MAX]);
        assert_eq!(histogram.count(), 1);
        assert_eq!(histogram.max(), Some(MAX));
        let mut recorder = Recorder::with_capacity(0);
        recorder.record(u64::MAX);
        assert_eq!(recorder.histogram().count(), 1);
        assert_eq!(of(&[]).max(), None);
        assert_eq!(of(&[1, 2]).mean(), Some(1.5));
    }
}
