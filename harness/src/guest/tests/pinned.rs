// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a test runs.

use anyhow::{Context as _, Result};
use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// Keeps this thread on one CPU, and so what it sends over links that are virtual: what is received
/// by two CPUs has no order, and takes memory from two stores.
pub struct Pinned(CpuSet);

impl Pinned {
    /// From now on, and until it is dropped.
    pub fn to(cpu: usize) -> Result<Self> {
        let this = Pid::from_raw(0);
        let all = sched_getaffinity(this)?;
        let mut one = CpuSet::new();
        one.set(cpu)?;
        sched_setaffinity(this, &one).with_context(|| format!("cannot stay on CPU {cpu}"))?;
        Ok(Self(all))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where a thread runs is no matter of the tests that come after.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}
