// SPDX-License-Identifier: GPL-2.0

//! Prefetches cache lines.

use super::arch;

/// Prefetches the cache line in which `value` begins.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    arch::prefetch(value);
}
