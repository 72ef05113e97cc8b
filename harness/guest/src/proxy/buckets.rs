// SPDX-License-Identifier: MIT OR Apache-2.0

//! The buckets of the module's flow tables.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use mutex_abi::monitor::HASH_TITLE;

use super::monitor;
use crate::net::namespace::Namespace;
use mutexlab_model::measured::Buckets;
use mutexlab_model::traffic::Family;

/// The table grows in steps a fraction of the parameter `gc_interval` apart.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(250);
/// Several steps: a table that could grow by now would have.
const SETTLED: Duration = Duration::from_secs(3);
/// With so many buckets for each flow no version of the module makes a table larger.
const ENOUGH: u64 = 2;

/// How many buckets the table of `family` in a namespace with a context has.
pub fn count(namespace: &Namespace, family: Family) -> Result<u64> {
    Ok(lengths(namespace, family)?.buckets)
}

/// How long its buckets are.
pub fn lengths(namespace: &Namespace, family: Family) -> Result<Buckets> {
    let mut file = monitor::open(namespace, "hash")?
        .with_context(|| format!("there is no file in {}", namespace.name()))?;
    let mut text = String::new();
    file.read_to_string(&mut text).context("cannot read")?;
    parse(&text, family).with_context(|| {
        format!(
            "the flow table's file in {} says {text:?}",
            namespace.name()
        )
    })
}

/// Waits until that table has a bucket for each of `flows` at least, and does not grow any more.
pub fn wait_for(namespace: &Namespace, family: Family, flows: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let flows = u64::from(flows);
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let buckets = count(namespace, family)?;
        if buckets != last {
            (last, since) = (buckets, Instant::now());
        }
        if buckets >= flows * ENOUGH || buckets >= flows && since.elapsed() >= SETTLED {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the flow table of {flows} flows still has {buckets} buckets after {PATIENCE:?}"
        );
        thread::sleep(POLL);
    }
}

fn parse(text: &str, family: Family) -> Option<Buckets> {
    if text.lines().next() != Some(HASH_TITLE) {
        return None;
    }
    let words = |name: &str| {
        let prefix = match family {
            Family::V4 => "v4_",
            Family::V6 => "v6_",
        };
        text.lines().find_map(|line| {
            let mut words = line.strip_prefix(prefix)?.split(' ');
            (words.next() == Some(name)).then_some(words)
        })
    };
    let number = |name| words(name)?.next()?.parse().ok();
    Some(Buckets {
        buckets: number("buckets")?,
        entries: number("entries")?,
        empty: number("buckets_of_length")?,
        longest: number("longest_bucket")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read_by_ip_version() {
        let of = |name: &str, flows: u64, buckets: u64| {
            format!(
                "{name}_flows {flows}\n{name}_buckets {buckets}\n{name}_entries {}\n\
                 {name}_collisions 0\n{name}_longest_bucket 1\n\
                 {name}_buckets_of_length {} {} 0\n",
                2 * flows,
                buckets - 2 * flows,
                2 * flows
            )
        };
        let text = format!("{HASH_TITLE}\n{}{}", of("v4", 3, 1024), of("v6", 0, 16));
        let expected = Buckets {
            buckets: 1024,
            entries: 6,
            empty: 1018,
            longest: 1,
        };
        assert_eq!(parse(&text, Family::V4), Some(expected));
        assert_eq!(
            parse(&text, Family::V6).map(|buckets| buckets.buckets),
            Some(16)
        );
        for (from, to) in [
            ("hash 2", "hash 1"),
            ("v4_buckets 1024\n", ""),
            ("1024", "many"),
        ] {
            assert_eq!(parse(&text.replacen(from, to, 1), Family::V4), None, "{to}");
        }
    }
}
