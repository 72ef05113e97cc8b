// SPDX-License-Identifier: MIT OR Apache-2.0

//! This process kept in memory, as nothing is that the guest swaps or drops.

use std::fs;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::sys::mman::{mlockall, MlockAllFlags};

/// What was locked when that began, in KiB.
static AT_FIRST: OnceLock<u64> = OnceLock::new();

/// Keeps all of this process in memory, with what it will map: a page that has to come from the host while a packet is on
/// its way would be measured with it.
///
/// # Errors
/// If it may not, or there is no such memory.
pub fn keep() -> Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .context("cannot keep this program in memory")?;
    let path = "/proc/self/status";
    let status = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let locked = locked(&status).with_context(|| format!("{path} has no VmLck"))?;
    // Only the first time is the beginning.
    AT_FIRST.set(locked).ok();
    Ok(())
}

/// What [`keep`] locked at first, in KiB: the program, its libraries, heap and stacks. None if it was not called.
pub fn at_first() -> Option<u64> {
    AT_FIRST.get().copied()
}

/// VmLck of proc_pid_status(5), in KiB.
fn locked(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmLck:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_memory_is_found() {
        let status = "Name:\tx\nVmPeak:\t 1 kB\nVmLck:\t   5120 kB\n";
        assert_eq!(locked(status), Some(5120));
        assert_eq!(locked("Name:\tx\n"), None);
    }
}
