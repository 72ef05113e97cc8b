// SPDX-License-Identifier: GPL-2.0

//! A spinlock against softirqs, too.

use core::cell::UnsafeCell;

use kernel::prelude::*;

use super::bindings;
use crate::datapath::link::Lock;

/// What a lock is for; one may be taken while those of earlier ranks are held.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Rank {
    /// A table of flows.
    Table = bindings::MXP_RANK_TABLE,
    /// What a CPU has of a pool.
    Local = bindings::MXP_RANK_LOCAL,
    /// What a node has of a pool.
    Depot = bindings::MXP_RANK_DEPOT,
}

/// A spinlock; softirqs are off while it is held.
// In a box, since a lock must not move.
pub(crate) struct SpinLock(KBox<UnsafeCell<bindings::mxp_spinlock>>);

// SAFETY: a lock may be taken from everywhere.
unsafe impl Send for SpinLock {}
// SAFETY: as above.
unsafe impl Sync for SpinLock {}

impl SpinLock {
    /// A lock that nobody holds.
    pub(crate) fn new(rank: Rank) -> Result<Self> {
        // SAFETY: all bytes zero is a value of this C struct; it is initialised below.
        let zeroed = unsafe { core::mem::zeroed() };
        let lock = KBox::new(UnsafeCell::new(zeroed), GFP_KERNEL)?;
        // SAFETY: the memory is the lock's alone and stays where it is.
        unsafe { bindings::mxp_spin_init(lock.get(), rank as u32) };
        Ok(Self(lock))
    }
}

// SAFETY: a spinlock has one holder at a time.
unsafe impl Lock for SpinLock {
    fn with<R>(&self, function: impl FnOnce() -> R) -> R {
        // SAFETY: initialised in `new`.
        unsafe { bindings::mxp_spin_lock_bh(self.0.get()) };
        let result = function();
        // SAFETY: taken above.
        unsafe { bindings::mxp_spin_unlock_bh(self.0.get()) };
        result
    }
}

/// A value that is used under a spinlock.
pub(crate) struct Locked<T> {
    lock: SpinLock,
    value: UnsafeCell<T>,
}

// SAFETY: whoever uses the value has the lock.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// A value and its lock.
    pub(crate) fn new(rank: Rank, value: T) -> Result<Self> {
        Ok(Self {
            lock: SpinLock::new(rank)?,
            value: UnsafeCell::new(value),
        })
    }

    /// Runs `function` with the value. It must not do so itself with a lock of this or an earlier
    /// rank.
    pub(crate) fn with<R>(&self, function: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the lock is held: nobody else has a reference to the value.
        self.lock
            .with(|| function(unsafe { &mut *self.value.get() }))
    }
}
