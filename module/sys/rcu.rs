// SPDX-License-Identifier: GPL-2.0

//! Read-copy-update: read-side sections, and pointers that are replaced as a whole.

use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;

use super::bindings;
use crate::datapath::link::{self, ReadGuard};

/// Runs `read` in a read-side critical section.
pub(crate) fn read<R>(read: impl FnOnce(&ReadGuard) -> R) -> R {
    // SAFETY: has no preconditions; it is unlocked below.
    unsafe { bindings::mxp_rcu_read_lock() };
    // SAFETY: the section lasts until after `read`, which only borrows the guard.
    let result = read(unsafe { &ReadGuard::new() });
    // SAFETY: locked above, on this task.
    unsafe { bindings::mxp_rcu_read_unlock() };
    result
}

/// Waits until all read-side critical sections that exist now are over. Sleeps.
pub(crate) fn synchronize() {
    // SAFETY: has no preconditions but being allowed to sleep, as documented.
    unsafe { bindings::synchronize_rcu() };
}

/// The kernel's read-copy-update.
pub(crate) struct Kernel;

// SAFETY: synchronize_rcu() waits for all sections of rcu_read_lock() that exist when it is called.
unsafe impl link::Rcu for Kernel {
    fn read<R>(function: impl FnOnce(&ReadGuard) -> R) -> R {
        read(function)
    }

    fn synchronize() {
        synchronize();
    }
}

/// A value that readers see whole, the old or the new, while it is replaced.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`, and is freed only a grace period after it was replaced.
pub(crate) struct Rcu<T>(AtomicPtr<T>);

impl<T: Send + Sync> Rcu<T> {
    /// Starts with `value`.
    pub(crate) fn new(value: KBox<T>) -> Self {
        Self(AtomicPtr::new(KBox::into_raw(value)))
    }

    /// The value as of now.
    #[inline(always)]
    pub(crate) fn load<'g>(&'g self, _guard: &'g ReadGuard) -> &'g T {
        // SAFETY: by the invariant the pointer is valid, and stays so for the guard's section.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }

    /// Replaces the value, and waits until no reader has the old one. Sleeps.
    pub(crate) fn replace(&self, value: KBox<T>) {
        let old = self.0.swap(KBox::into_raw(value), Ordering::AcqRel);
        synchronize();
        // SAFETY: `old` came from `KBox::into_raw`; no reader that could have loaded it is left.
        drop(unsafe { KBox::from_raw(old) });
    }
}

impl<T> Drop for Rcu<T> {
    fn drop(&mut self) {
        // SAFETY: from `KBox::into_raw`; `&mut self` shows that no reader borrows `self`.
        drop(unsafe { KBox::from_raw(*self.0.get_mut()) });
    }
}
