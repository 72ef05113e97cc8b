// SPDX-License-Identifier: GPL-2.0

//! Tells the lens, if it looks on, where packets are; see [`crate::abi::marks`].

use core::arch::asm;

use crate::abi::marks::Mark;

macro_rules! mark {
    ($mark:expr) => {
        // SAFETY: an instruction that does nothing. Without `nomem`, so that no access to memory moves
        // to its other side.
        unsafe {
            asm!(
                ".byte 0x0f, 0x1f, 0x84, 0x00",
                ".long {displacement}",
                displacement = const $mark.displacement(),
                options(nostack, preserves_flags),
            );
        }
    };
}

/// A packet begins its way through the hooks.
#[inline(always)]
pub(crate) fn packet_in() {
    mark!(Mark::PacketIn);
}

/// A span of a packet begins.
#[inline(always)]
pub(crate) fn span_begin() {
    mark!(Mark::SpanBegin);
}

/// That span ends.
#[inline(always)]
pub(crate) fn span_end() {
    mark!(Mark::SpanEnd);
}

/// The packet's way is over.
#[inline(always)]
pub(crate) fn packet_out() {
    mark!(Mark::PacketOut);
}
