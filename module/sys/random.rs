// SPDX-License-Identifier: GPL-2.0

//! The kernel's random numbers.

use super::bindings;

/// 32 bits that cannot be guessed.
pub(crate) fn random() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { bindings::mxp_random() }
}

/// 64 bits that cannot be guessed, for a key.
pub(crate) fn random_word() -> u64 {
    let mut word = 0_u64;
    // SAFETY: as many bytes as are written.
    unsafe { bindings::mxp_random_bytes((&raw mut word).cast(), size_of_val(&word)) };
    word
}
