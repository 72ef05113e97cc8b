// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files of counters: `stats`, `pool` and `batch`.

use std::collections::BTreeSet;

use anyhow::{bail, ensure, Context, Result};
use mutex_abi::monitor::{BATCH_TITLE, POOL_TITLE, STATS_TITLE};

use super::text::{cpus, lines, words};

/// The text of the file `stats`, or of `pool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The CPUs that the machine can have, ascending.
    pub cpus: Vec<u32>,
    /// The counters, in the order of the file; each name occurs once.
    pub counters: Vec<Counter>,
}

/// A line of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Its value for the namespace.
    pub total: u64,
    /// What each of [`Stats::cpus`] counted, which makes up the total; `None` for what is no count.
    pub by_cpu: Option<Vec<u64>>,
}

impl Stats {
    /// Reads the text.
    ///
    /// # Errors
    /// If anything is not as `mutex_abi::monitor` tells, also if the text was cut short.
    pub fn parse(text: &str) -> Result<Self> {
        Self::with_title(text, STATS_TITLE)
    }

    /// Reads the text of the file `pool`.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn parse_pool(text: &str) -> Result<Self> {
        Self::with_title(text, POOL_TITLE)
    }

    /// Reads the text of the file `batch`, which is laid out alike.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn parse_batch(text: &str) -> Result<Self> {
        Self::with_title(text, BATCH_TITLE)
    }

    /// The total of the line called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn total(&self, name: &str) -> Result<u64> {
        let counter = self.counters.iter().find(|counter| counter.name == name);
        counter
            .map(|counter| counter.total)
            .with_context(|| format!("there is no line of {name}"))
    }

    fn with_title(text: &str, expected: &str) -> Result<Self> {
        let mut lines = lines(text, expected)?;
        let line = lines.next().context("there is no line of CPUs")?;
        let cpus = cpus(line).with_context(|| format!("line {line:?}"))?;
        let mut names = BTreeSet::new();
        let mut counters = Vec::new();
        for line in lines {
            let counter =
                Counter::parse(line, cpus.len()).with_context(|| format!("line {line:?}"))?;
            ensure!(
                names.insert(counter.name.clone()),
                "there are two lines of {}",
                counter.name
            );
            counters.push(counter);
        }
        Ok(Self { cpus, counters })
    }
}

impl Counter {
    fn parse(line: &str, cpus: usize) -> Result<Self> {
        let (name, numbers) = words(line)?;
        let Some((&total, by_cpu)) = numbers.split_first() else {
            bail!("there is no number");
        };
        ensure!(
            by_cpu.is_empty() || by_cpu.len() == cpus,
            "there are {} numbers of {cpus} CPUs",
            by_cpu.len()
        );
        let by_cpu = (!by_cpu.is_empty()).then(|| by_cpu.to_vec());
        if let Some(by_cpu) = &by_cpu {
            let sum = by_cpu.iter().copied().fold(0, u64::wrapping_add);
            ensure!(sum == total, "the CPUs' sum is {sum}");
        }
        Ok(Self {
            name: name.to_owned(),
            total,
            by_cpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "\
# mutex_proxy stats 1
cpus 0 1 3
packets_original 6 1 2 3
flows_current 7
malformed 0 0 0 0
";

    #[test]
    fn good_text_is_read() {
        let stats = Stats::parse(GOOD).unwrap();
        assert_eq!(stats.cpus, [0, 1, 3]);
        let counter = |name: &str, total, by_cpu| Counter {
            name: name.to_owned(),
            total,
            by_cpu,
        };
        assert_eq!(
            stats.counters,
            [
                counter("packets_original", 6, Some(vec![1, 2, 3])),
                counter("flows_current", 7, None),
                counter("malformed", 0, Some(vec![0, 0, 0])),
            ]
        );
    }

    #[test]
    fn totals_wrap() {
        let max = u64::MAX;
        let text = format!("{STATS_TITLE}\ncpus 0 1\nbytes 1 {max} 2\n");
        assert_eq!(Stats::parse(&text).unwrap().counters[0].total, 1);
    }

    #[test]
    fn text_cut_short_is_refused() {
        // Cut after a line, it is a shorter text of the same format.
        let lines: Vec<usize> = GOOD.match_indices('\n').map(|(at, _)| at + 1).collect();
        for length in 0..GOOD.len() {
            let is_whole = lines.iter().skip(1).any(|&end| end == length);
            let parsed = Stats::parse(&GOOD[..length]);
            assert_eq!(parsed.is_ok(), is_whole, "length {length}: {parsed:?}");
        }
    }

    #[test]
    fn damaged_text_is_refused() {
        for (from, to) in [
            ("stats 1", "stats 2"),
            ("# ", ""),
            ("cpus 0 1 3\n", ""),
            ("cpus 0 1 3", "cpus"),
            ("cpus 0 1 3", "cpus 0 3 1"),
            ("cpus 0 1 3", "cpus 0 1 1"),
            ("cpus 0 1 3", "cpus 0 1 4294967296"),
            ("cpus 0 1 3", "cpus 0 1"),
            ("6 1 2 3", "5 1 2 3"),
            ("6 1 2 3", "6 1 2 3 0"),
            ("6 1 2 3", "6 +1 2 3"),
            ("6 1 2 3", "6 1 2 x"),
            ("6 1 2 3", "6  1 2 3"),
            ("6 1 2 3", "6 1 2 3 "),
            ("current 7", "current -7"),
            ("current 7", "current"),
            ("current 7", "current "),
            ("current 7", "current 18446744073709551616"),
            ("flows_current", ""),
            ("flows_current", "Flows"),
            ("flows_current", "malformed"),
            ("malformed", "\nmalformed"),
            ("0 0 0 0\n", "0 0 0 0\n\n"),
        ] {
            assert!(GOOD.contains(from), "{from:?}");
            let damaged = GOOD.replacen(from, to, 1);
            let parsed = Stats::parse(&damaged);
            assert!(parsed.is_err(), "{damaged:?} gives {parsed:?}");
        }
    }

    // The text, written anew.
    fn text(stats: &Stats) -> String {
        let words = |numbers: &[u64]| -> String {
            numbers.iter().map(|number| format!(" {number}")).collect()
        };
        let cpus: Vec<u64> = stats.cpus.iter().copied().map(u64::from).collect();
        let mut text = format!("{STATS_TITLE}\ncpus{}\n", words(&cpus));
        for counter in &stats.counters {
            let by_cpu = counter.by_cpu.as_deref().unwrap_or_default();
            text += &format!("{} {}{}\n", counter.name, counter.total, words(by_cpu));
        }
        text
    }

    proptest! {
        #[test]
        fn damaged_text_is_refused_or_means_what_it_says(
            at: prop::sample::Index, length in 0_usize..4, new in "[ 0-9a-z_+\\-\nä]{0,3}",
        ) {
            let at = at.index(GOOD.len());
            let mut damaged = GOOD.to_owned();
            damaged.replace_range(at..GOOD.len().min(at + length), &new);
            if let Ok(stats) = Stats::parse(&damaged) {
                // Leading zeros are the only thing that can be said in two ways.
                let again = text(&stats);
                prop_assert_eq!(Stats::parse(&again).unwrap(), stats);
                prop_assert!(again == damaged || damaged.contains(" 0"));
            }
        }
    }
}
