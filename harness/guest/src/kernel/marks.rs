// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tells the lens, if it looks on, what is measured; see [`mutex_abi::marks`].

use core::arch::asm;

use mutex_abi::marks::Mark;

macro_rules! mark {
    ($mark:expr) => {
        // SAFETY: An instruction that does nothing. Without `nomem`, so that no access to memory moves
        // to its other side.
        unsafe {
            asm!(
                ".byte 0x0f, 0x1f, 0x84, 0x00",
                ".long {displacement}",
                displacement = const $mark.displacement(),
                options(nostack, preserves_flags)
            );
        }
    };
}

/// What comes is about to be measured: from now on the lens fills its caches and follows calls, but
/// counts nothing. It needs some instructions until it is ready.
#[inline(always)]
pub fn prepare() {
    mark!(Mark::Prepare);
}

/// What comes does not belong to what is measured, in the middle of which it is.
#[inline(always)]
pub fn pause() {
    mark!(Mark::Pause);
}

/// That is over.
#[inline(always)]
pub fn resume() {
    mark!(Mark::Resume);
}

/// What `measured` does is measured.
#[inline(always)]
pub fn window<T>(measured: impl FnOnce() -> T) -> T {
    mark!(Mark::Open);
    let result = measured();
    mark!(Mark::Close);
    result
}
