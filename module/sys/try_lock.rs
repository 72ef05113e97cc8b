// SPDX-License-Identifier: GPL-2.0

//! A lock that is tried and never waited for.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value for one user at a time; others are told that it is in use.
#[derive(Default)]
pub(crate) struct TryLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: only one `Held` exists at a time, so the value has one user, on whatever CPU.
unsafe impl<T: Send> Sync for TryLock<T> {}

impl<T> TryLock<T> {
    /// The value, unless it is in use.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        if self.held.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Held(self))
    }
}

/// The right to use the value of a [`TryLock`], until it is dropped.
pub(crate) struct Held<'l, T>(&'l TryLock<T>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `held` was false when this was made, and is true until it is dropped.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; `self` is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
    }
}
