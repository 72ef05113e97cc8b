// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's memory in slabs, by its own figures.

use std::fs;

use anyhow::{Context, Result};

/// Bytes of all pages that are in slabs. Other parts of the kernel, too, take some now and then.
pub fn slabs() -> Result<u64> {
    // Each CPU keeps a difference of its own until it is large enough.
    const REFRESH: &str = "/proc/sys/vm/stat_refresh";
    const MEMINFO: &str = "/proc/meminfo";
    fs::write(REFRESH, "1").with_context(|| format!("cannot write {REFRESH}"))?;
    let text = fs::read_to_string(MEMINFO).with_context(|| format!("cannot read {MEMINFO}"))?;
    parse(&text).with_context(|| format!("{MEMINFO} does not tell of slabs"))
}

fn parse(text: &str) -> Option<u64> {
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Slab:"))?
        .trim_start()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_found() {
        let text = "MemFree:   1 kB\nSlab:               6500 kB\nSReclaimable:  700 kB\n";
        assert_eq!(parse(text), Some(6500 * 1024));
        assert_eq!(parse(&text.replace("Slab:", "slab:")), None);
        assert_eq!(parse(&text.replace("6500 kB", "6500")), None);
    }
}
