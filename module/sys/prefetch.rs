// SPDX-License-Identifier: GPL-2.0

//! Cache lines that are asked for before they are needed.

use super::arch;

/// Asks for the cache line in which `value` begins; does not wait for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    arch::prefetch(value);
}
