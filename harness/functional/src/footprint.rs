// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's own memory, which is locked and so taken from what is measured.

use anyhow::{ensure, Context, Result};
use mutexlab_guest::kernel::locked;

/// KiB that may be locked.
const MOST: u64 = 12 << 10;

/// The agent is small as it begins; what a test or a cell maps later is its own.
pub fn agent_is_small() -> Result<()> {
    let locked = locked::at_first().context("nothing is locked: pages would be waited for")?;
    ensure!(locked > 0, "nothing is locked, though it was asked for");
    ensure!(locked <= MOST, "{locked} KiB are locked, more than {MOST}");
    Ok(())
}
