// SPDX-License-Identifier: GPL-2.0

//! What stands in for the kernel on the host: memory, grace periods and locks, for tests, fuzz
//! targets and benchmarks, none of which then needs `unsafe`.
//!
//! Memory is given back when a grace period ends and no sooner or later, so that Miri and the
//! sanitizers see what is used too long and what is never given back.

use core::ptr::NonNull;
use std::sync::{Mutex, PoisonError, RwLock};

use super::link::{Heap, Lock, Node, Rcu, ReadGuard};
use super::recent::begin_epoch;

// Readers share it, and who waits for them takes it alone.
static SECTIONS: RwLock<()> = RwLock::new(());
static RETIRED: Mutex<Vec<Retired>> = Mutex::new(Vec::new());
// Who waits does so until all is freed that was retired before, also by others.
static WAITING: Mutex<()> = Mutex::new(());

// Who shares it keeps `Boxes` from beginning an epoch.
static STEADY: RwLock<()> = RwLock::new(());

/// Waits for all sections that there are.
pub(super) fn wait() {
    drop(SECTIONS.write().unwrap_or_else(PoisonError::into_inner));
}

/// Until it is dropped, what is kept in a cache is not made void by what others free.
#[cfg(test)]
pub(super) fn steady() -> std::sync::RwLockReadGuard<'static, ()> {
    STEADY.read().unwrap_or_else(PoisonError::into_inner)
}

struct Retired {
    node: NonNull<()>,
    free: unsafe fn(NonNull<()>),
}

// SAFETY: only made by `Boxes::retire`, of what may be sent.
unsafe impl Send for Retired {}

/// Frees a box.
///
/// # Safety
///
/// `node` is a box of an `N`, from `Boxes::take`, that nobody uses any more.
unsafe fn free<N>(node: NonNull<()>) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(node.cast::<N>().as_ptr()) });
}

/// Grace periods of the whole process. Sections must not be nested: a thread that waits for them
/// keeps new ones out.
pub struct Sections;

// SAFETY: `synchronize` gets the lock when every reader that held it has given it back.
unsafe impl Rcu for Sections {
    fn read<R>(read: impl FnOnce(&ReadGuard) -> R) -> R {
        let _section = SECTIONS.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: what `Boxes` is given to retire it frees in `synchronize`, which waits for the
        // lock that is held here.
        read(&unsafe { ReadGuard::new() })
    }

    fn synchronize() {
        let _waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let retired = {
            let mut retired = RETIRED.lock().unwrap_or_else(PoisonError::into_inner);
            core::mem::take(&mut *retired)
        };
        wait();
        drop(STEADY.write().map(|_steady| begin_epoch()));
        wait();
        for Retired { node, free } in retired {
            // SAFETY: the contract of `Heap::retire`: no reader that started since could find it,
            // and those before are gone.
            unsafe { free(node) };
        }
    }
}

/// Boxes.
pub struct Boxes;

// SAFETY: a box is valid and exclusive; what is retired stays until the next grace period's end.
unsafe impl<K: Send + 'static, T: Send + 'static> Heap<Node<K, T>> for Boxes {
    fn take(&self) -> Option<NonNull<Node<K, T>>> {
        let memory = NonNull::from(Box::leak(Box::<Node<K, T>>::new_uninit())).cast();
        // SAFETY: new memory, of the right size and alignment.
        unsafe { Node::blank(memory) };
        Some(memory)
    }

    unsafe fn give_back(&self, node: NonNull<Node<K, T>>) {
        // SAFETY: the caller's promise: from `take`, valid, once.
        unsafe { free::<Node<K, T>>(node.cast()) };
    }

    unsafe fn retire(&self, node: NonNull<Node<K, T>>) {
        let mut retired = RETIRED.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(Retired {
            node: node.cast(),
            free: free::<Node<K, T>>,
        });
    }
}

// SAFETY: a mutex.
unsafe impl Lock for Mutex<()> {
    fn with<R>(&self, function: impl FnOnce() -> R) -> R {
        let _held = self.lock().unwrap_or_else(PoisonError::into_inner);
        function()
    }
}
