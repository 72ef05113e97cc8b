// SPDX-License-Identifier: GPL-2.0

//! A fault on purpose: one counter for all CPUs, written in the fast path. It is only in a build that
//! `mutexlab test` makes to see whether the lens finds it (`--cfg shared_counter`).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Packets of established flows, whichever CPU handled them.
static PACKETS: AtomicU64 = AtomicU64::new(0);

/// Counts one.
#[inline(always)]
pub(crate) fn count() {
    PACKETS.fetch_add(1, Relaxed);
}
