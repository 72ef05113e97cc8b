// SPDX-License-Identifier: GPL-2.0

//! For any machine, by functions of `arch.c`.

use core::ffi::c_void;

use super::super::bindings;
use super::super::counters::Counters;
use super::super::hooks::{untimed, Hook};
use super::super::latency::Histogram;
use super::super::static_key::StaticKey;
use crate::abi::histogram::Octaves;
use crate::abi::marks::Mark;
use crate::abi::monitor::LATENCY_PRECISION;

/// Adds to a counter of this CPU.
///
/// # Safety
///
/// `counter` is a per-CPU pointer to an aligned word that is only counted in.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_add(counter: *mut u64, by: u64) {
    // SAFETY: the caller's promise.
    unsafe { bindings::mxp_this_cpu_add(counter.cast(), by) };
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
    let first = counters.wrapping_add(index);
    // SAFETY: the caller's promise.
    unsafe {
        this_cpu_add(first, 1);
        this_cpu_add(first.wrapping_add(DISTANCE), by);
    }
}

/// The same with an index that is known.
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
    unsafe { this_cpu_add_pair::<DISTANCE>(counters, INDEX, by) };
}

/// Loads a pointer of this CPU, to be followed.
///
/// # Safety
///
/// `base` is a per-CPU pointer to an aligned pointer, which others write whole.
#[inline(always)]
pub(in super::super) unsafe fn this_cpu_load<T>(base: *const u8) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe { bindings::mxp_this_cpu_load(base.cast()) }.cast()
}

/// Prefetches the cache line in which `value` begins.
#[inline(always)]
pub(in super::super) fn prefetch<T>(value: &T) {
    // SAFETY: changes nothing that a program sees, whatever the address.
    unsafe { bindings::mxp_prefetch(core::ptr::from_ref(value).cast()) };
}

/// This CPU's clock, in nanoseconds.
#[inline(always)]
pub(in super::super) fn ticks() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bindings::local_clock() }
}

/// A thousand million a second.
pub(in super::super) fn ticks_khz() -> u32 {
    1_000_000
}

/// Does something `count` times.
#[inline(always)]
pub(in super::super) fn execute(count: u16) {
    for step in 0..count {
        core::hint::black_box(step);
    }
}

/// A mark for the lens, which sees guests of x86-64 only.
pub(in super::super) trait Place {
    /// Which.
    #[allow(dead_code)]
    const MARK: Mark;
}

/// Does nothing.
#[inline(always)]
pub(in super::super) fn mark<P: Place>() {}

/// Calls the hook, and records how long that took on the CPU on which it ended.
///
/// # Safety
///
/// As for [`untimed`]. `H::LATENCY` is there.
#[inline(always)]
pub(in super::super) unsafe fn time<H: Hook>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    let before = ticks();
    // SAFETY: the caller's promise.
    let verdict = unsafe { untimed::<H>(target, skb, state) };
    // The low words do: a hook takes less than 2^32 nanoseconds.
    let took = ticks().wrapping_sub(before) as u32;
    if let Some(within) = &H::LATENCY {
        // SAFETY: by `Within`'s invariant there is one, so many bytes after the target's beginning.
        let histogram: &Histogram = unsafe { &*target.byte_add(within.offset()).cast() };
        Counters::add(histogram, Octaves::<LATENCY_PRECISION>::index(took), 1);
    }
    verdict
}

/// Whether a key is on.
pub(crate) fn is_enabled(key: *const StaticKey) -> bool {
    // SAFETY: keys are statics of C, of which this is one: `StaticKey` is not made in Rust.
    unsafe { bindings::mxp_static_key_enabled(key.cast()) }
}

// Each module uses its own share of sys/.
#[allow(unused_macros)]
/// Whether a [`StaticKey`], given by its path, is on.
macro_rules! is_on {
    ($key:path) => {
        $crate::sys::arch::is_enabled(&raw const $key)
    };
}

#[allow(unused_imports)]
pub(crate) use is_on;
