// SPDX-License-Identifier: GPL-2.0

//! Clocks.

use super::{arch, bindings};

/// Jiffies a second.
pub(crate) const HZ: u32 = bindings::HZ;

/// The lower 32 bits of the kernel's tick counter: enough for idle times up to `2^31` ticks, 248 days at
/// 100 Hz.
#[inline(always)]
pub(crate) fn jiffies() -> u32 {
    // SAFETY: an aligned word that only the timer interrupt writes; a volatile read, as in C.
    unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) as u32 }
}

/// The finest clock there is, for measurements: on x86 the time-stamp counter.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    arch::ticks()
}

/// How fast that clock is: thousands of ticks a second; 0 if the kernel has not found out.
pub(crate) fn ticks_khz() -> u32 {
    arch::ticks_khz()
}

/// This CPU's clock, in nanoseconds; where the time-stamp counter cannot be used, it advances tick by tick.
#[inline(always)]
pub(crate) fn clock() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bindings::local_clock() }
}

/// Changes whenever this CPU begins to receive packets: with every softirq round that has NET_RX_SOFTIRQ.
#[inline(always)]
pub(crate) fn net_rx_round() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { bindings::mxp_net_rx_count() }
}

/// Changes whenever this CPU takes an interrupt.
#[inline(always)]
pub(crate) fn interrupts() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bindings::mxp_interrupts() }
}
