// SPDX-License-Identifier: GPL-2.0

//! The current task.

use super::bindings;

/// Lets other tasks run, if they are due: cond_resched(). May sleep.
pub(crate) fn pause() {
    // SAFETY: has no preconditions but being allowed to sleep, as documented.
    unsafe { bindings::mxp_cond_resched() };
}

/// Whether the caller may administer the network of the whole machine.
pub(crate) fn is_machine_admin() -> bool {
    // SAFETY: called for a task in a system call.
    unsafe { bindings::mxp_machine_admin() }
}
