// SPDX-License-Identifier: GPL-2.0

//! Race windows: moments between two steps in which another task can interfere. On a kernel with
//! CONFIG_FAULT_INJECTION the parameter `debug_windows` makes each last some milliseconds, so that a
//! test is certain to meet a race that is rare otherwise. On other kernels they take no time.

use super::bindings;

/// A moment between two steps. The numbers index the parameter.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Window {
    /// Memory of flows has waited for its grace period, and is about to be reclaimed.
    Reclaim = bindings::MXP_WINDOW_RECLAIM,
    /// The reclaiming work has said that it is done, and has not returned.
    Idle = bindings::MXP_WINDOW_IDLE,
    /// The number of a table's buckets was read, and none of them was swept.
    Sweep = bindings::MXP_WINDOW_SWEEP,
    /// A socket was closed, its address is free, and what belongs to it is about to go.
    Release = bindings::MXP_WINDOW_RELEASE,
    /// A file is read, and its reader has a reference to what it tells of.
    Show = bindings::MXP_WINDOW_SHOW,
}

impl Window {
    /// Sleeps for as long as the parameter says.
    pub(crate) fn pass(self) {
        // SAFETY: the number is one of C's. May sleep: windows are in tasks only.
        unsafe { bindings::mxp_window(self as u32) };
    }
}
