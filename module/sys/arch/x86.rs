// SPDX-License-Identifier: GPL-2.0

//! For x86-64. A per-CPU pointer is an offset from the CPU's base in %gs, and one instruction is not split by an
//! interrupt: so `this_cpu_add()` and `this_cpu_read()` are one instruction each, as in the kernel.

use core::arch::asm;

use super::super::bindings;
use crate::abi::marks::Mark;

mod latency;
mod static_key;

pub(in super::super) use latency::time;
pub(crate) use static_key::is_on;

/// Adds to a counter of this CPU.
///
/// # Safety
///
/// `counter` is a per-CPU pointer to an aligned word that is only counted in.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_add(counter: *mut u64, by: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "add qword ptr gs:[{counter}], {by}",
            counter = in(reg) counter,
            by = in(reg) by,
            options(nostack),
        );
    }
}

/// Adds one to the counter `index`, and `by` to the one `DISTANCE` after it.
///
/// # Safety
///
/// As for `this_cpu_add`, for both.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_add_pair<const DISTANCE: usize>(
    counters: *mut u64,
    index: usize,
    by: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "inc qword ptr gs:[{counters} + {index} * 8]",
            "add qword ptr gs:[{counters} + {index} * 8 + {distance}], {by}",
            counters = in(reg) counters,
            index = in(reg) index,
            distance = const DISTANCE * size_of::<u64>(),
            by = in(reg) by,
            options(nostack),
        );
    }
}

/// The same with an index that is known: it takes no register.
///
/// # Safety
///
/// As for `this_cpu_add_pair`.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_add_pair_at<const INDEX: usize, const DISTANCE: usize>(
    counters: *mut u64,
    by: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "inc qword ptr gs:[{counters} + {first}]",
            "add qword ptr gs:[{counters} + {second}], {by}",
            counters = in(reg) counters,
            first = const INDEX * size_of::<u64>(),
            second = const (INDEX + DISTANCE) * size_of::<u64>(),
            by = in(reg) by,
            options(nostack),
        );
    }
}

/// Loads a pointer of this CPU, to be followed.
///
/// # Safety
///
/// `base` is a per-CPU pointer to an aligned pointer, which others write whole.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_load<T>(base: *const u8) -> *mut T {
    let pointer;
    // SAFETY: the caller's promise. On x86 every load is an acquire; and the compiler cannot move reads through
    // the pointer before the instruction from which they have their address.
    unsafe {
        asm!(
            "mov {pointer}, qword ptr gs:[{base}]",
            base = in(reg) base,
            pointer = lateout(reg) pointer,
            options(nostack, preserves_flags, readonly),
        );
    }
    pointer
}

/// Prefetches the cache line in which `value` begins.
// Not core's function: that belongs to SSE, without which the kernel is compiled, so that it would
// not be inlined.
#[inline(always)]
pub(in super::super) fn prefetch<T>(value: &T) {
    // SAFETY: part of every x86-64; changes nothing that a program sees, whatever the address.
    unsafe {
        asm!(
            "prefetcht0 [{value}]",
            value = in(reg) core::ptr::from_ref(value),
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// The time-stamp counter. The fence keeps what comes before out of what is measured.
#[inline(always)]
pub(in super::super) fn ticks() -> u64 {
    // SAFETY: both instructions are part of every x86-64.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// How fast the time-stamp counter is: thousands of ticks a second; 0 if the kernel has not found out.
pub(in super::super) fn ticks_khz() -> u32 {
    // SAFETY: an aligned word that the kernel writes whole, at boot and when it knows better.
    unsafe { core::ptr::read_volatile(&raw const bindings::tsc_khz) }
}

/// Executes `count` instructions, and as many around them whatever the count.
#[inline(always)]
pub(in super::super) fn execute(count: u16) {
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

/// A mark for the lens.
pub(in super::super) trait Place {
    /// Which.
    const MARK: Mark;
}

/// Executes the mark, which the lens sees.
#[inline(always)]
pub(in super::super) fn mark<P: Place>() {
    // SAFETY: an instruction that does nothing. Without `nomem`, so that no access to memory moves
    // to its other side.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x84, 0x00",
            ".long {displacement}",
            displacement = const P::MARK.displacement(),
            options(nostack, preserves_flags),
        );
    }
}
