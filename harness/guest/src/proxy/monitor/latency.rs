// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file of times: `latency`.

use std::collections::BTreeMap;
use std::iter::Peekable;

use anyhow::{bail, ensure, Context, Result};
use mutex_abi::histogram::{self, Scale};
use mutex_abi::monitor::{LATENCY_HOOKS, LATENCY_PRECISION, LATENCY_RANGE, LATENCY_TITLE};

use super::text::{cpus, lines, number, words};

/// The text of the file `latency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// How many thousands of ticks a second has; 0 if the kernel does not know.
    pub tsc_khz: u64,
    /// The CPUs that the machine can have, ascending.
    pub cpus: Vec<u32>,
    /// The hooks, in the order of [`LATENCY_HOOKS`].
    pub hooks: Vec<Hook>,
}

/// What the file `latency` says of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its times, of all CPUs.
    pub total: Histogram,
    /// Its times on each of [`Latency::cpus`], which make up the total.
    pub by_cpu: Vec<Histogram>,
}

/// Times, by the lowest one in their bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<u64, u64>);

impl Latency {
    /// Reads the text.
    ///
    /// # Errors
    /// If anything is not as `mutex_abi::monitor` tells, also if the text was cut short.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = lines(text, LATENCY_TITLE)?.peekable();
        let mut next = |what| lines.next().with_context(|| format!("there is no {what}"));
        let unit = next("unit")?;
        ensure!(unit == "unit ticks", "the unit is {unit:?}");
        let single = |line, expected| match words(line)? {
            (name, numbers) if name == expected && numbers.len() == 1 => Ok(numbers[0]),
            _ => bail!("line {line:?}: expected {expected} and a number"),
        };
        let tsc_khz = single(next("frequency")?, "tsc_khz")?;
        let precision = single(next("precision")?, "precision")?;
        ensure!(
            precision == u64::from(LATENCY_PRECISION),
            "the precision is {precision}"
        );
        let line = next("line of CPUs")?;
        let cpus = cpus(line).with_context(|| format!("line {line:?}"))?;
        let mut hooks = Vec::new();
        for name in LATENCY_HOOKS {
            let hook = Hook::parse(name, &cpus, &mut lines);
            hooks.push(hook.with_context(|| name.to_owned())?);
        }
        match lines.next() {
            Some(line) => bail!("line {line:?} is one too many"),
            None => Ok(Self {
                tsc_khz,
                cpus,
                hooks,
            }),
        }
    }
}

impl Hook {
    fn parse<'a>(
        name: &str,
        cpus: &[u32],
        lines: &mut Peekable<impl Iterator<Item = &'a str>>,
    ) -> Result<Self> {
        let mut take = |name: &str| {
            let is_it = |line: &&str| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(' '))
            };
            let line = lines.next_if(is_it)?;
            let histogram = Histogram::parse(&line[name.len() + 1..]);
            Some(histogram.with_context(|| format!("line {line:?}")))
        };
        let total = take(name).context("its line is missing")??;
        let mut by_cpu = Vec::new();
        let mut sum = Histogram::default();
        for cpu in cpus {
            let histogram = take(&format!("{name}_cpu {cpu}")).transpose()?;
            // A CPU has a line if it has recorded something.
            ensure!(
                histogram.as_ref().is_none_or(|one| one.count() != 0),
                "the line of CPU {cpu} says nothing"
            );
            let histogram = histogram.unwrap_or_default();
            sum.add(&histogram);
            by_cpu.push(histogram);
        }
        ensure!(sum == total, "it says {total:?}, but its CPUs {sum:?}");
        Ok(Self { total, by_cpu })
    }
}

impl Histogram {
    fn parse(words: &str) -> Result<Self> {
        type Buckets = Scale<LATENCY_PRECISION, LATENCY_RANGE>;
        let mut words = words.split(' ');
        let count = number(words.next().unwrap_or_default())?;
        let mut buckets = BTreeMap::new();
        for word in words {
            let (lowest, count) = word.split_once(':').context("a bucket without a colon")?;
            let (lowest, count) = (number(lowest)?, number(count)?);
            ensure!(
                Buckets::lowest(Buckets::index(lowest)) == lowest,
                "no bucket begins at {lowest}"
            );
            ensure!(count != 0, "the bucket of {lowest} is empty");
            ensure!(
                buckets
                    .last_key_value()
                    .is_none_or(|(&last, _)| last < lowest),
                "the buckets do not ascend at {lowest}"
            );
            buckets.insert(lowest, count);
        }
        let histogram = Self(buckets);
        let sum = histogram.count();
        ensure!(sum == count, "the buckets' sum is {sum}");
        Ok(histogram)
    }

    fn add(&mut self, other: &Self) {
        for (&lowest, count) in &other.0 {
            let sum = self.0.entry(lowest).or_default();
            *sum = sum.wrapping_add(*count);
        }
    }

    /// How many times were recorded.
    pub fn count(&self) -> u64 {
        self.0.values().copied().fold(0, u64::wrapping_add)
    }

    /// The lowest value of the bucket in which a percentile is, given in thousandths of a percent;
    /// `None` if nothing was recorded.
    pub fn percentile(&self, per_mille_of_percent: u32) -> Option<u64> {
        let buckets = self.0.iter().map(|(&lowest, &count)| (lowest, count));
        histogram::percentile(buckets, per_mille_of_percent)
    }

    /// What was recorded since `earlier`.
    ///
    /// # Errors
    /// If less was recorded in any bucket.
    pub fn since(&self, earlier: &Self) -> Result<Self> {
        let mut since = self.0.clone();
        for (lowest, before) in &earlier.0 {
            let now = since.remove(lowest).unwrap_or_default();
            let Some(added) = now.checked_sub(*before) else {
                bail!("bucket {lowest} had {before} and has {now}");
            };
            if added != 0 {
                since.insert(*lowest, added);
            }
        }
        Ok(Self(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: &str = "\
# mutex_proxy latency 1
unit ticks
tsc_khz 2100000
precision 5
cpus 0 1 3
v4_pre_routing 6 7:1 160:3 168:2
v4_pre_routing_cpu 0 4 7:1 160:1 168:2
v4_pre_routing_cpu 3 2 160:2
v6_pre_routing 0
v4_local_out 1 64:1
v4_local_out_cpu 1 1 64:1
v6_local_out 0
";

    #[test]
    fn times_are_read() {
        let latency = Latency::parse(TIMES).unwrap();
        assert_eq!(
            (latency.tsc_khz, &latency.cpus[..]),
            (2_100_000, &[0, 1, 3][..])
        );
        let [hook, other, ..] = &latency.hooks[..] else {
            panic!("{latency:?}");
        };
        assert_eq!(
            hook.total,
            Histogram(BTreeMap::from([(7, 1), (160, 3), (168, 2)]))
        );
        let counts: Vec<u64> = hook.by_cpu.iter().map(Histogram::count).collect();
        assert_eq!(counts, [4, 0, 2]);
        assert_eq!(hook.total.percentile(50_000), Some(160));
        assert_eq!(hook.total.percentile(99_000), Some(168));
        assert_eq!(other.total.percentile(50_000), None);
        let since = hook.total.since(&hook.by_cpu[0]).unwrap();
        assert_eq!(since, hook.by_cpu[2]);
        assert!(hook.by_cpu[0].since(&hook.total).is_err());
    }

    #[test]
    fn damaged_times_are_refused() {
        for (from, to) in [
            ("latency 1", "latency 2"),
            ("unit ticks\n", ""),
            ("unit ticks", "unit ns"),
            ("tsc_khz 2100000", "tsc_khz"),
            ("precision 5", "precision 6"),
            ("cpus 0 1 3\n", ""),
            ("cpus 0 1 3", "cpus 0 1"),
            ("routing 6", "routing 5"),
            ("routing 6", "routing +6"),
            ("7:1 160:3", "160:3 7:1"),
            ("160:3 168:2", "160:2 168:3"),
            ("160:3", "161:3"),
            ("160:3", "160"),
            ("160:3", "160:"),
            ("168:2\n", "168:2 200:0\n"),
            ("168:2\n", "168:2 \n"),
            ("cpu 3 2", "cpu 2 2"),
            ("v4_pre_routing_cpu 3 2 160:2\n", ""),
            ("v6_pre_routing 0\n", ""),
            (
                "v6_pre_routing 0\n",
                "v6_pre_routing 0\nv6_pre_routing_cpu 1 0\n",
            ),
            ("v6_local_out 0\n", ""),
            ("v6_local_out 0\n", "v6_local_out 0\nv7_local_out 0\n"),
            ("v6_local_out 0\n", "v6_local_out 0"),
        ] {
            assert!(TIMES.contains(from), "{from:?}");
            let damaged = TIMES.replacen(from, to, 1);
            let parsed = Latency::parse(&damaged);
            assert!(parsed.is_err(), "{damaged:?} gives {parsed:?}");
        }
    }
}
