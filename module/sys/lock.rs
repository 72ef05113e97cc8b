// SPDX-License-Identifier: GPL-2.0

//! A spinlock against softirqs, too.

use core::cell::UnsafeCell;

use kernel::prelude::*;

use super::bindings;
use crate::datapath::link::Lock;

/// A spinlock; softirqs are off while it is held.
// In a box, since a lock must not move.
pub(crate) struct SpinLock(KBox<UnsafeCell<bindings::mxp_spinlock>>);

// SAFETY: a lock may be taken from everywhere.
unsafe impl Send for SpinLock {}
// SAFETY: as above.
unsafe impl Sync for SpinLock {}

impl SpinLock {
    /// A lock that nobody holds.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: all bytes zero is a value of this C struct; it is initialised below.
        let zeroed = unsafe { core::mem::zeroed() };
        let lock = KBox::new(UnsafeCell::new(zeroed), GFP_KERNEL)?;
        // SAFETY: the memory is the lock's alone and stays where it is.
        unsafe { bindings::mxp_spin_init(lock.get()) };
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
