// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chains of the module's flow tables.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use mutex_abi::monitor::HASH_TITLE;

use super::monitor;
use super::namespace::Namespace;
use super::protocol::Family;

/// The table grows in steps a fraction of the parameter `gc_interval` apart.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(250);

/// How many chains the table of `family` in a namespace with a context has.
pub fn count(namespace: &Namespace, family: Family) -> Result<u64> {
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

/// Waits until that table has a chain for each of `flows`.
pub fn wait_for(namespace: &Namespace, family: Family, flows: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let chains = count(namespace, family)?;
        if chains >= flows.into() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the flow table of {flows} flows still has {chains} chains after {PATIENCE:?}"
        );
        thread::sleep(POLL);
    }
}

fn parse(text: &str, family: Family) -> Option<u64> {
    let mut lines = text.lines();
    let name = match family {
        Family::V4 => "v4_chains",
        Family::V6 => "v6_chains",
    };
    if lines.next() != Some(HASH_TITLE) {
        return None;
    }
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_read_by_ip_version() {
        let text = "# mutex_proxy hash 1\nv4_flows 3\nv4_chains 1024\n\
                    v4_chains_of_length 1018 6\nv6_flows 0\nv6_chains 16\n";
        assert_eq!(parse(text, Family::V4), Some(1024));
        assert_eq!(parse(text, Family::V6), Some(16));
        for (from, to) in [
            ("hash 1", "hash 2"),
            ("v4_chains 1024\n", ""),
            ("1024", "many"),
        ] {
            assert_eq!(parse(&text.replacen(from, to, 1), Family::V4), None, "{to}");
        }
    }
}
