// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's own memory, which is locked and so taken from what is measured.

use std::fs;

use anyhow::{ensure, Context, Result};

/// KiB that may be locked.
const MOST: u64 = 12 << 10;

/// The agent's program, libraries, heap and stacks are small.
pub fn agent_is_small() -> Result<()> {
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let locked = locked(&status).with_context(|| format!("{path} has no VmLck"))?;
    ensure!(locked > 0, "nothing is locked: pages would be waited for");
    ensure!(locked <= MOST, "{locked} KiB are locked, more than {MOST}");
    Ok(())
}

/// VmLck of proc_pid_status(5), in KiB.
fn locked(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_memory_is_found() {
        assert_eq!(
            locked("Name:\tx\nVmPeak:\t 1 kB\nVmLck:\t   5120 kB\n"),
            Some(5120)
        );
        assert_eq!(locked("Name:\tx\n"), None);
    }
}
