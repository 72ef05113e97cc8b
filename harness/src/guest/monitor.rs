// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the module tells of a namespace in /proc/net/mutex_proxy/.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::str::Split;

use anyhow::{bail, ensure, Context, Result};
use mutex_abi::histogram::{self, Scale};
use mutex_abi::monitor::{
    BATCH_TITLE, LATENCY_HOOKS, LATENCY_PRECISION, LATENCY_RANGE, LATENCY_TITLE, POOL_TITLE,
    STATS_TITLE,
};

use super::namespace::Namespace;

/// The directory, for the namespace of the thread that looks at it. /proc/net is that of the
/// process's first thread.
pub const DIRECTORY: &str = "/proc/thread-self/net/mutex_proxy";

/// Opens the file called `name` of `namespace`; `None` if there is no such file.
pub fn open(namespace: &Namespace, name: &str) -> Result<Option<File>> {
    let path = format!("{DIRECTORY}/{name}");
    namespace.run(|| match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot open {path} ({})", namespace.name()))
        }
    })
}

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

/// The lines after the first one, which must be `title`.
fn lines<'a>(text: &'a str, title: &str) -> Result<Split<'a, char>> {
    let text = text
        .strip_suffix('\n')
        .context("the text does not end with its last line")?;
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    ensure!(
        first == title,
        "the first line is {first:?}; expected {title:?}"
    );
    Ok(lines)
}

fn cpus(line: &str) -> Result<Vec<u32>> {
    let (name, numbers) = words(line)?;
    ensure!(name == "cpus", "expected the CPUs");
    ensure!(!numbers.is_empty(), "there is no CPU");
    ensure!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "the CPUs do not ascend"
    );
    numbers
        .into_iter()
        .map(|cpu| u32::try_from(cpu).context("no CPU has such a number"))
        .collect()
}

/// A name and the numbers after it.
fn words(line: &str) -> Result<(&str, Vec<u64>)> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    ensure!(
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
        "{name:?} is no name"
    );
    let numbers = words.map(number).collect::<Result<_>>()?;
    Ok((name, numbers))
}

fn number(word: &str) -> Result<u64> {
    // The standard library takes a plus sign, too.
    ensure!(
        word.bytes().all(|byte| byte.is_ascii_digit()),
        "{word:?} is no number"
    );
    word.parse()
        .with_context(|| format!("{word:?} is no number of 64 bits"))
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
