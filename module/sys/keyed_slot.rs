// SPDX-License-Identifier: GPL-2.0

//! A pointer together with the word that says for whom it is. Any thread reads both without a lock, and never
//! takes what was put there for another word.
//!
//! A seqlock of one word: the writer makes the word busy, exchanges the pointer, and stores the new
//! word; a reader reads the word before the pointer and after it. This file does not depend on the kernel: the
//! host compiles it with the datapath, so that Miri runs its tests under weak memory ordering.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The word of a slot that is being written. No caller may use it.
const BUSY: u64 = u64::MAX;

/// A pointer, or none yet, and its word. What the pointer points to is the caller's to keep alive.
///
/// # Invariants
///
/// Only the thread that made the word `BUSY` writes, until it has stored another word.
#[repr(C)]
pub struct KeyedSlot<T> {
    value: AtomicPtr<T>,
    word: AtomicU64,
}

/// Another writer was faster: nothing was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What a writer saw before it made what it wants to write.
pub struct Turn<'s, T> {
    slot: &'s KeyedSlot<T>,
    word: u64,
}

impl<T> Default for KeyedSlot<T> {
    fn default() -> Self {
        Self {
            value: AtomicPtr::new(ptr::null_mut()),
            word: AtomicU64::new(0),
        }
    }
}

impl<T> KeyedSlot<T> {
    /// The pointer, if `is_mine` says so of its word. A slot whose word is used a second time while a reader is
    /// between two loads may give it what lay between: words with a version do not come again so soon.
    #[inline(always)]
    pub fn get(&self, is_mine: impl Fn(u64) -> bool) -> Option<NonNull<T>> {
        // Each Acquire pairs with the Release of the store that it sees: after a pointer that is newer than
        // the word was loaded, the word is another one.
        let word = self.word.load(Ordering::Acquire);
        if !is_mine(word) {
            return None;
        }
        let value = NonNull::new(self.value.load(Ordering::Acquire))?;
        (self.word.load(Ordering::Relaxed) == word).then_some(value)
    }

    /// Begins to write; `None` while another thread writes.
    #[inline]
    pub fn turn(&self) -> Option<Turn<'_, T>> {
        let word = self.word.load(Ordering::Relaxed);
        (word != BUSY).then_some(Turn { slot: self, word })
    }

    /// Takes the pointer out of a slot that nobody else uses any more; null if it has none.
    pub fn take(&mut self) -> *mut T {
        core::mem::replace(self.value.get_mut(), ptr::null_mut())
    }
}

impl<T> Turn<'_, T> {
    /// The word that the slot had.
    pub fn word(&self) -> u64 {
        self.word
    }

    /// Puts `value` for `word` into the slot, and returns what was there; null if nothing was.
    #[inline]
    pub fn replace(self, word: u64, value: *mut T) -> Result<*mut T, Lost> {
        let Self { slot, word: old } = self;
        slot.word
            .compare_exchange(old, BUSY, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| Lost)?;
        // A reader that finds the new pointer sees `BUSY` or a later word.
        let before = slot.value.swap(value, Ordering::AcqRel);
        slot.word.store(word, Ordering::Release);
        Ok(before)
    }
}

#[cfg(test)]
#[path = "keyed_slot/tests.rs"]
mod tests;
