// SPDX-License-Identifier: GPL-2.0

//! What stands in for the kernel on the host: memory, grace periods and locks, for tests, fuzz
//! targets and benchmarks. So none of these needs `unsafe`.
//!
//! Memory is freed when a grace period ends, no sooner and no later, so that Miri and the
//! sanitizers see a use after free, and a leak.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{fence, AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use super::allocate::Allocate;
use super::cache_set::begin_epoch;
use super::link::{Heap, Link, Lock, Node, Rcu, ReadGuard, HEADS_ALIGN};

// For each thread, whether it is in a read-side section. As in the kernel, sections of different threads are
// not ordered with each other: an order that is only here would hide errors from the checkers.
static READERS: Mutex<Vec<Arc<AtomicBool>>> = Mutex::new(Vec::new());
static LIMBO: Mutex<Vec<Deferred>> = Mutex::new(Vec::new());
// Held while waiting for a grace period, until all is freed that any thread has put into limbo before.
static WAITING: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails while it holds a lock is no reason for others to fail.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// A reader of this lock keeps `Boxes` from beginning an epoch.
static STEADY: RwLock<()> = RwLock::new(());

/// Waits for all sections that exist now.
pub(super) fn wait() {
    fence(Ordering::SeqCst);
    // A thread whose first section comes later gets the lock after us, and sees what we see.
    let readers = lock(&READERS).clone();
    for inside in &readers {
        while inside.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// Until this is dropped, no other thread's grace period makes entries of caches void.
#[cfg(test)]
pub(super) fn steady() -> std::sync::RwLockReadGuard<'static, ()> {
    STEADY.read().unwrap_or_else(PoisonError::into_inner)
}

/// The host's heap.
#[derive(Debug)]
pub struct HostHeap;

impl Allocate for HostHeap {
    type Vec<T> = Vec<T>;
    type Shared<T> = Arc<T>;
    type Error = std::convert::Infallible;

    fn collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, Self::Error> {
        Ok(items.collect())
    }

    fn push<T>(items: &mut Vec<T>, item: T) -> Result<(), Self::Error> {
        items.push(item);
        Ok(())
    }

    fn share<T>(value: T) -> Result<Arc<T>, Self::Error> {
        Ok(Arc::new(value))
    }
}

struct Deferred {
    node: NonNull<()>,
    free: unsafe fn(NonNull<()>),
}

// SAFETY: only made by `Boxes::free_rcu`, of nodes that may be sent.
unsafe impl Send for Deferred {}

/// Frees a box.
///
/// # Safety
///
/// `node` is a box of an `N`, from `Boxes::alloc`, that is not used any more.
unsafe fn free<N>(node: NonNull<()>) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(node.cast::<N>().as_ptr()) });
}

struct Reader {
    depth: Cell<usize>,
    inside: Arc<AtomicBool>,
}

thread_local! {
    static READER: Reader = {
        let inside = Arc::new(AtomicBool::new(false));
        lock(&READERS).push(inside.clone());
        Reader { depth: Cell::new(0), inside }
    };
}

struct Section<'a>(&'a Reader);

impl<'a> Section<'a> {
    fn enter(reader: &'a Reader) -> Self {
        if reader.depth.replace(reader.depth.get() + 1) == 0 {
            reader.inside.store(true, Ordering::Relaxed);
            // Pairs with the fence in `wait`: either `wait` sees the store, or this thread sees
            // the buckets without what was unlinked before.
            fence(Ordering::SeqCst);
        }
        Self(reader)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let depth = self.0.depth.get() - 1;
        self.0.depth.set(depth);
        if depth == 0 {
            self.0.inside.store(false, Ordering::Release);
        }
    }
}

/// Read-side critical sections and grace periods, of the whole process.
pub struct Sections;

// SAFETY: `synchronize` waits for every thread that was in a section, to be seen outside of it.
unsafe impl Rcu for Sections {
    fn read<R>(read: impl FnOnce(&ReadGuard) -> R) -> R {
        READER.with(|reader| {
            let _section = Section::enter(reader);
            // SAFETY: `Boxes` frees nodes in `synchronize` only, which waits for this section.
            read(&unsafe { ReadGuard::new() })
        })
    }

    fn synchronize() {
        let _waiting = lock(&WAITING);
        let limbo = core::mem::take(&mut *lock(&LIMBO));
        wait();
        drop(STEADY.write().map(|_steady| begin_epoch()));
        wait();
        for Deferred { node, free } in limbo {
            // SAFETY: the contract of `Heap::free_rcu`: no reader that has started since could find it,
            // and those from before are gone.
            unsafe { free(node) };
        }
        // Those of threads that are gone.
        lock(&READERS).retain(|inside| Arc::strong_count(inside) > 1);
    }
}

/// Empty heads, aligned as a table demands.
pub struct Heads<K, T> {
    links: Vec<Link<K, T>>,
    first: usize,
    count: usize,
}

impl<K, T> Heads<K, T> {
    /// `count` heads.
    pub fn new(count: usize) -> Self {
        let room = HEADS_ALIGN / size_of::<Link<K, T>>();
        let links: Vec<_> = (0..count + room).map(|_| Link::null()).collect();
        let beyond = links.as_ptr().addr() % HEADS_ALIGN;
        let first = (HEADS_ALIGN - beyond) % HEADS_ALIGN / size_of::<Link<K, T>>();
        Self {
            links,
            first,
            count,
        }
    }
}

impl<K, T> core::ops::Deref for Heads<K, T> {
    type Target = [Link<K, T>];

    fn deref(&self) -> &[Link<K, T>] {
        &self.links[self.first..][..self.count]
    }
}

/// Boxes.
pub struct Boxes;

// SAFETY: a box is valid and exclusive; what is in limbo stays until the next grace period's end.
unsafe impl<K: Send + 'static, T: Send + 'static> Heap<Node<K, T>> for Boxes {
    fn alloc(&self) -> Option<NonNull<Node<K, T>>> {
        let memory = NonNull::from(Box::leak(Box::<Node<K, T>>::new_uninit())).cast();
        // SAFETY: new memory, of the right size and alignment.
        unsafe { Node::init(memory) };
        Some(memory)
    }

    unsafe fn free(&self, node: NonNull<Node<K, T>>) {
        // SAFETY: the caller's promise: from `alloc`, valid, once.
        unsafe { free::<Node<K, T>>(node.cast()) };
    }

    unsafe fn free_rcu(&self, node: NonNull<Node<K, T>>) {
        lock(&LIMBO).push(Deferred {
            node: node.cast(),
            free: free::<Node<K, T>>,
        });
    }
}

// SAFETY: a mutex.
unsafe impl Lock for Mutex<()> {
    fn with<R>(&self, function: impl FnOnce() -> R) -> R {
        let _held = lock(self);
        function()
    }
}
