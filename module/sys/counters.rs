// SPDX-License-Identifier: GPL-2.0

//! Counters: those that each CPU has for itself, and those that all share.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use super::{arch, bindings, percpu, zeroed};

/// `N` counters for each CPU.
#[repr(transparent)] // See arch/x86/latency.rs.
pub(crate) struct Counters<const N: usize>(NonNull<[u64; N]>);

// SAFETY: every access is to memory of one CPU, or a plain read of an aligned word.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// Counters that start at zero.
    pub(crate) fn new() -> Result<Self> {
        const LINE: usize = 64;
        // SAFETY: has no preconditions; gives zeroed memory or null.
        let base = unsafe { bindings::mxp_alloc_percpu(size_of::<[u64; N]>(), LINE, true) };
        Ok(Self(NonNull::new(base.cast()).ok_or(ENOMEM)?))
    }

    /// Adds to a counter of this CPU; an interrupt cannot split it.
    #[inline(always)]
    pub(crate) fn add(&self, index: usize, by: u64) {
        let counter = self
            .0
            .as_ptr()
            .cast::<u64>()
            .wrapping_add(if index < N { index } else { 0 });
        // SAFETY: the counter lies in this allocation.
        unsafe { arch::this_cpu_add(counter, by) };
    }

    /// Adds one to the counter `index`, and `by` to the one `DISTANCE` after it.
    #[inline(always)]
    pub(crate) fn add_pair<const DISTANCE: usize>(&self, index: usize, by: u64) {
        const {
            assert!(DISTANCE < N);
        }
        let index = if index < N - DISTANCE { index } else { 0 };
        // SAFETY: as in `add`, for two counters of this allocation.
        unsafe { arch::this_cpu_add_pair::<DISTANCE>(self.0.as_ptr().cast(), index, by) };
    }

    /// The same with an index that is known.
    #[inline(always)]
    pub(crate) fn add_pair_at<const INDEX: usize, const DISTANCE: usize>(&self, by: u64) {
        const {
            assert!(INDEX + DISTANCE < N);
        }
        // SAFETY: as in `add`, for two counters of this allocation.
        unsafe { arch::this_cpu_add_pair_at::<INDEX, DISTANCE>(self.0.as_ptr().cast(), by) };
    }

    /// What each CPU counted, in the order of [`percpu::cpus`]. Counts that are made meanwhile may be
    /// missing.
    pub(crate) fn by_cpu(&self, index: usize) -> impl Iterator<Item = u64> + '_ {
        percpu::cpus().map(move |cpu| {
            // SAFETY: the allocation is per-CPU and `cpu` possible.
            let base = unsafe { bindings::mxp_per_cpu_ptr(self.0.as_ptr().cast(), cpu) };
            let counter = base
                .cast::<u64>()
                .wrapping_add(if index < N { index } else { 0 });
            // SAFETY: an aligned word within the allocation; other CPUs write it whole.
            unsafe { core::ptr::read_volatile(counter) }
        })
    }

    /// The sum over all CPUs.
    pub(crate) fn sum(&self, index: usize) -> u64 {
        self.by_cpu(index).fold(0, u64::wrapping_add)
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; `&mut self` shows that the counters are not used any more.
        unsafe { bindings::mxp_free_percpu(self.0.as_ptr().cast()) };
    }
}

/// `N` counters that all CPUs write: each addition takes their cache line from the CPU that had it.
pub(crate) struct SharedCounters<const N: usize>(KBox<[AtomicU64; N]>);

impl<const N: usize> SharedCounters<N> {
    /// Counters that start at zero.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(zeroed::boxed()?))
    }

    /// Adds to a counter.
    #[inline(always)]
    pub(crate) fn add(&self, index: usize, by: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// What was counted.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.0
            .get(index)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}
