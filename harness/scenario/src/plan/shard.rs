// SPDX-License-Identifier: MIT OR Apache-2.0

//! A part of a plan, for one of several machines.

use std::str::FromStr;

use anyhow::{bail, Context, Result};

/// The `index`-th of `count` parts, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether the cell with this place in the plan is in it: cells go round, so that long ones
    /// and short ones are spread.
    pub const fn has(self, place: usize) -> bool {
        place % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (index, count) = text
            .split_once('/')
            .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)))
            .with_context(|| format!("{text:?} is no shard: the second of five is 2/5"))?;
        if !(1..=count).contains(&index) {
            bail!("there is no shard {index} of {count}: they are counted from 1");
        }
        Ok(Self { index, count })
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_is_in_one_shard(place in 0_usize..10_000, count in 1_usize..50) {
            let shards = (1..=count).map(|index| Shard { index, count });
            prop_assert_eq!(shards.filter(|shard| shard.has(place)).count(), 1);
        }
    }

    #[test]
    fn shards_are_read_as_they_are_written() {
        assert_eq!("2/5".parse::<Shard>().unwrap().to_string(), "2/5");
        for bad in ["0/5", "6/5", "1", "a/b", "1/0", "-1/2", ""] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
