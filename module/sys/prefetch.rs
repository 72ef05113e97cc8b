// SPDX-License-Identifier: GPL-2.0

//! Cache lines that are asked for before they are needed.

use core::arch::asm;

/// Asks for the cache line in which `value` begins; does not wait for it.
// Not core's function: that belongs to SSE, without which the kernel is compiled, so that it would
// not be inlined.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    // SAFETY: part of every x86-64; changes nothing that a program sees, whatever the address.
    unsafe {
        asm!(
            "prefetcht0 [{value}]",
            value = in(reg) core::ptr::from_ref(value),
            options(nostack, preserves_flags, readonly),
        );
    }
}
