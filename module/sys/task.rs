// SPDX-License-Identifier: GPL-2.0

//! The task that runs.

use super::bindings;

/// Lets others use the CPU, if they should. May sleep.
pub(crate) fn pause() {
    // SAFETY: has no preconditions but being allowed to sleep, as documented.
    unsafe { bindings::mxp_cond_resched() };
}
