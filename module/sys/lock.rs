// SPDX-License-Identifier: GPL-2.0

//! Spinlocks that softirqs take, too.

use core::cell::UnsafeCell;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::bindings;
use super::counters::Counters;
use crate::datapath::link::Lock;

/// What a lock is for; one may be taken while those of earlier ranks are held.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Rank {
    Table = bindings::MXP_RANK_TABLE,
    Magazine = bindings::MXP_RANK_MAGAZINE,
    Depot = bindings::MXP_RANK_DEPOT,
}

/// What is counted of locks. The numbers index [`LockCounters`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum LockCounter {
    /// A lock was taken.
    Acquisitions,
    /// It was not free, and its taker had to wait.
    Contentions,
}

/// How often locks were taken, on each CPU.
pub(crate) type LockCounters = Counters<{ LockCounter::Contentions as usize + 1 }>;

// In a box, since a lock must not move.
struct Raw(KBox<UnsafeCell<bindings::mxp_spinlock>>);

impl Raw {
    fn new(rank: Rank, flags: Flags) -> Result<Self> {
        // SAFETY: all bytes zero is a value of this C struct; it is initialised below.
        let zeroed = unsafe { core::mem::zeroed() };
        let lock = KBox::new(UnsafeCell::new(zeroed), flags)?;
        // SAFETY: the memory is the lock's alone and stays where it is.
        unsafe { bindings::mxp_spin_init(lock.get(), rank as u32) };
        Ok(Self(lock))
    }

    // `function` is told whether another CPU held the lock.
    #[inline(always)]
    fn with<R>(&self, function: impl FnOnce(bool) -> R) -> R {
        // SAFETY: initialised in `new`.
        let how = unsafe { bindings::mxp_spin_lock(self.0.get()) };
        let result = function(how & bindings::MXP_WAITED != 0);
        // SAFETY: taken above.
        unsafe { bindings::mxp_spin_unlock(self.0.get(), how) };
        result
    }
}

/// The spinlock of a table; BH is disabled while it is held.
pub(crate) struct SpinLock {
    lock: Raw,
    counts: Arc<LockCounters>,
}

// SAFETY: a lock may be taken from everywhere.
unsafe impl Send for SpinLock {}
// SAFETY: as above.
unsafe impl Sync for SpinLock {}

impl SpinLock {
    /// A lock whose use `counts` counts.
    pub(crate) fn new(counts: Arc<LockCounters>) -> Result<Self> {
        Ok(Self {
            // Charged to the task that opens the namespace's first context.
            lock: Raw::new(Rank::Table, GFP_KERNEL_ACCOUNT)?,
            counts,
        })
    }
}

// SAFETY: a spinlock has one holder at a time.
unsafe impl Lock for SpinLock {
    fn with<R>(&self, function: impl FnOnce() -> R) -> R {
        self.lock.with(|waited| {
            self.counts.add(LockCounter::Acquisitions as usize, 1);
            if waited {
                self.counts.add(LockCounter::Contentions as usize, 1);
            }
            function()
        })
    }
}

/// A value that is used under a spinlock, with BH disabled.
pub(crate) struct Locked<T> {
    lock: Raw,
    value: UnsafeCell<T>,
}

// SAFETY: the value is used under the lock only.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// What a CPU has of a pool; may be used while a table is locked.
    pub(crate) fn of_cpu(value: T) -> Result<Self> {
        Self::new(Rank::Magazine, value)
    }

    /// What a NUMA node has of a pool; may be used while what a CPU has is.
    pub(crate) fn of_node(value: T) -> Result<Self> {
        Self::new(Rank::Depot, value)
    }

    fn new(rank: Rank, value: T) -> Result<Self> {
        Ok(Self {
            // Pools are the module's: charged to no control group.
            lock: Raw::new(rank, GFP_KERNEL)?,
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `function` with the value. It must not use another value of the same rank.
    pub(crate) fn with<R>(&self, function: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the lock is held: there is no other reference to the value.
        self.lock
            .with(|_| function(unsafe { &mut *self.value.get() }))
    }
}
