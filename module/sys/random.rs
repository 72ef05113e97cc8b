// SPDX-License-Identifier: GPL-2.0

//! The kernel's random numbers.

use super::bindings;

/// 32 bits that nobody can guess.
pub(crate) fn random() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { bindings::mxp_random() }
}
