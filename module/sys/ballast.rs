// SPDX-License-Identifier: GPL-2.0

//! Work of known cost.

use core::arch::asm;

/// Executes `count` instructions, and as many around them whatever the count.
#[inline(always)]
pub(crate) fn execute(count: u16) {
    // An instruction that jumps to itself until %rcx is zero: unlike a jump into a row of NOPs this
    // needs no indirect jump, which kernels with mitigations would have to replace.
    // SAFETY: ends, since %rcx is not zero at first; touches nothing but that.
    unsafe {
        asm!(
            "2: loop 2b",
            inout("rcx") u64::from(count).wrapping_add(1) => _,
            options(nomem, nostack, preserves_flags),
        );
    }
}
