// SPDX-License-Identifier: GPL-2.0

//! Cache lines that are asked for before they are needed.

use core::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};

/// Asks for the cache line in which `value` begins; does not wait for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    // SAFETY: part of every x86-64; changes nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(value).cast()) };
}
