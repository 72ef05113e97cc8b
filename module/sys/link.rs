// SPDX-License-Identifier: GPL-2.0

//! A hash table that readers walk under RCU while one writer at a time changes it, and that is
//! resized meanwhile, as the kernel's rhashtable is.
//!
//! This file does not depend on the kernel: the host compiles it with the datapath, so that Miri and the
//! property tests run the code that runs in the kernel. Only the [`Heap`] differs.
//!
//! A [`Node`] is found by either of two keys, one for each direction (`tuplehash` of struct nf_conn). So
//! it is in two buckets: each of its two entries (`HashEntry`) is in one. The life of a node: [`Owned`] (only
//! its owner sees it), then published (readers see it, it has no owner), then [`Unlinked`] from both
//! buckets (readers that found it before may still look), then, a grace period later, the heap's again. Where
//! it waits for that is the heap's matter: `pool.rs` has a picture.
//!
//! Here is what readers see. What writers have, and how a table is resized, is in `link/editor.rs`.
//!
//! The order of memory: a node's keys and value are written before a link leads to it (Release in
//! `Link::set`), heads and links of an array before the view is stored (Release in `switch`). Readers
//! read both with [`FOLLOW`], and everything else at addresses that they compute from those.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::order::FOLLOW;

#[path = "link/editor.rs"]
mod editor;

pub use editor::{Editor, Owned, Unlinked};

/// Proof of being in an RCU read-side critical section.
pub struct ReadGuard(PhantomData<*mut ()>);

impl ReadGuard {
    /// Claims the proof.
    ///
    /// # Safety
    ///
    /// While the guard lives, no node that is given to [`Heap::free_rcu`] may be used again: the
    /// caller is in an RCU read-side critical section that outlives the guard.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// Read-side critical sections and grace periods.
///
/// # Safety
///
/// `read` runs its function in a section to which [`ReadGuard`]'s contract applies, and
/// `synchronize` returns only when all guards are gone that existed when it was called.
pub unsafe trait Rcu {
    /// Runs `read` in a read-side critical section.
    fn read<R>(read: impl FnOnce(&ReadGuard) -> R) -> R;
    /// Waits for a grace period.
    fn synchronize();
}

/// The memory of nodes.
///
/// # Safety
///
/// `alloc` returns memory for an `N` that is aligned and exclusively the caller's, but for readers
/// that may still look whether it is in a bucket (see [`Node::init`]). `free_rcu` leaves the node
/// intact as long as any [`ReadGuard`] that exists at the time of the call. Memory that was a node's
/// stays a node's until, in this order, all guards are gone that existed at the call of `free_rcu`,
/// [`begin_epoch`](super::cache_set::begin_epoch) is called, and all guards are gone that existed at that
/// call.
pub unsafe trait Heap<N> {
    /// Memory for a node, as [`Node::init`] makes it, or as [`Node::drop_value`] leaves it; `None` if there is
    /// none.
    fn alloc(&self) -> Option<NonNull<N>>;

    /// Takes memory back that no reader ever saw.
    ///
    /// # Safety
    ///
    /// `node` comes from `alloc` of this heap, is valid, and is not used again.
    unsafe fn free(&self, node: NonNull<N>);

    /// Takes memory back when all readers that may see the node are gone.
    ///
    /// # Safety
    ///
    /// As for `free`, but for readers; and no reader that starts later can find the node.
    unsafe fn free_rcu(&self, node: NonNull<N>);
}

/// One of a node's two places in the table, as struct nf_conntrack_tuple_hash is for connection tracking.
#[repr(C)]
struct HashEntry<K, T> {
    // The next entry in the bucket, for each array of buckets.
    next: [Link<K, T>; ARRAYS],
    key: K,
}

/// An object that is found by either of two keys, one for each direction.
#[repr(C)]
pub struct Node<K, T> {
    entries: [HashEntry<K, T>; 2],
    value: T,
}

impl<K, T> Node<K, T> {
    /// Makes memory fit to become a node: one that is in no bucket.
    ///
    /// A reader that does not know whether the node has gone reads its links before anything else. So from here
    /// on they are written by atomic stores only, until the memory is not that of nodes any more.
    ///
    /// # Safety
    ///
    /// `memory` is valid for writes, aligned, and exclusively the caller's.
    pub unsafe fn init(memory: NonNull<Self>) {
        // SAFETY: the caller answers for the memory.
        unsafe { memory.write_bytes(0, 1) };
        for direction in 0..2 {
            // SAFETY: a place within the memory, for which the caller answers.
            unsafe {
                let next = &raw mut (*memory.as_ptr()).entries[direction].next;
                next.write([Link::unhashed(), Link::unhashed()]);
            }
        }
    }

    /// Drops what is in a node and leaves memory for another.
    ///
    /// # Safety
    ///
    /// The node is exclusively the caller's, as for [`Heap::alloc`], and in no bucket.
    pub unsafe fn drop_value(node: NonNull<Self>) {
        const {
            assert!(!core::mem::needs_drop::<K>());
        }
        // SAFETY: by the caller's promise; the links are left alone.
        unsafe { (&raw mut (*node.as_ptr()).value).drop_in_place() };
    }

    /// Its key in direction 0 or 1.
    #[inline(always)]
    pub fn key(&self, direction: usize) -> &K {
        // The mask tells the compiler that the index is in bounds.
        &self.entries[direction & 1].key
    }
}

impl<K, T> Deref for Node<K, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

const ARRAYS: usize = 2;
/// In a pointer to a node: which direction's entry it leads to.
const DIRECTION: usize = 1;
/// In an entry's link: the entry is in no bucket of that array, as with hlist_unhashed().
const UNHASHED: usize = 2;

/// A link to nothing, or to an entry of a node.
///
/// # Invariants
///
/// The pointer, without its tags, is null or points to a published node, which lives at least as
/// long as any [`ReadGuard`] under which it is loaded.
#[repr(transparent)]
pub struct Link<K, T>(AtomicPtr<Node<K, T>>);

// SAFETY: a link gives shared references to nodes to any thread, and lets a node be freed on
// another thread than made it.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Link<K, T> {}
// SAFETY: as above; the pointer itself is atomic.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for Link<K, T> {}

/// What a link leads to.
pub struct Found<'g, K, T> {
    /// The node.
    pub node: &'g Node<K, T>,
    /// The direction, 0 or 1, whose key was found.
    pub direction: usize,
    // The same node by the pointer that links have, which is the heap's: memory may be given back through
    // that, and not through a pointer that was made of a shared reference.
    pointer: NonNull<Node<K, T>>,
}

impl<K, T> Link<K, T> {
    /// A link to nothing.
    pub const fn null() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    const fn unhashed() -> Self {
        Self(AtomicPtr::new(core::ptr::without_provenance_mut(UNHASHED)))
    }

    /// The entry to which it leads.
    #[inline(always)]
    pub fn load<'g>(&self, _guard: &'g ReadGuard) -> Option<Found<'g, K, T>> {
        let tagged = self.0.load(FOLLOW);
        let node = NonNull::new(tagged.map_addr(|address| address & !(DIRECTION | UNHASHED)))?;
        Some(Found {
            // SAFETY: by the type's invariant the node outlives the guard, and from publishing
            // on it is only ever shared.
            node: unsafe { node.as_ref() },
            direction: tagged.addr() & DIRECTION,
            pointer: node,
        })
    }

    fn is_unhashed(&self) -> bool {
        self.0.load(Ordering::Relaxed).addr() & UNHASHED != 0
    }

    fn set(&self, target: *mut Node<K, T>) {
        self.0.store(target, Ordering::Release);
    }

    // Where it leads, without the tag that concerns its own entry.
    fn target(&self) -> *mut Node<K, T> {
        let tagged = self.0.load(Ordering::Relaxed);
        tagged.map_addr(|address| address & !UNHASHED)
    }

    // Marks its entry as being in no bucket; readers that are at the entry still go on from it.
    fn set_unhashed(&self) {
        self.set(self.target().map_addr(|address| address | UNHASHED));
    }
}

impl<'g, K, T> Found<'g, K, T> {
    #[inline(always)]
    fn entry(&self) -> &'g HashEntry<K, T> {
        &self.node.entries[self.direction & 1]
    }

    /// The pointer for [`Self::recheck`].
    pub(super) fn tagged(&self) -> *mut Node<K, T> {
        let node = self.pointer.as_ptr();
        node.map_addr(|address| address | self.direction & DIRECTION)
    }

    /// What was found before, or the node that is in its memory now, if that is in a bucket.
    ///
    /// # Safety
    ///
    /// `tagged` is null, or from [`Self::tagged`] and its memory is a node's (see [`Node::init`])
    /// for as long as the guard.
    #[inline(always)]
    pub(super) unsafe fn recheck(_guard: &'g ReadGuard, tagged: *mut Node<K, T>) -> Option<Self> {
        let node = NonNull::new(tagged.map_addr(|address| address & !(DIRECTION | UNHASHED)))?;
        let direction = tagged.addr() & DIRECTION;
        // SAFETY: the caller's promise; these words are only written by atomic stores.
        let [one, other] = unsafe { &(*node.as_ptr()).entries[direction].next };
        // Pairs with Release in `set`: a node that is in a bucket is seen whole.
        let both = one.0.load(Ordering::Acquire).addr() & other.0.load(Ordering::Acquire).addr();
        if both & UNHASHED != 0 {
            return None;
        }
        Some(Self {
            // SAFETY: it is in a bucket: its memory is given back only after it was unlinked, and after this guard.
            node: unsafe { node.as_ref() },
            direction,
            pointer: node,
        })
    }

    /// The key that was found.
    #[inline(always)]
    pub fn key(&self) -> &'g K {
        &self.entry().key
    }
}

/// A lock, to exclude other writers.
///
/// # Safety
///
/// `with` of one value never runs two functions at the same time.
pub unsafe trait Lock {
    /// Runs `function` while the lock is held.
    fn with<R>(&self, function: impl FnOnce() -> R) -> R;
}

/// A power of two of buckets; two arrays of them while the table is resized. What readers read comes first, so
/// that it can share a cache line with what else most packets read.
#[repr(C)]
pub struct Buckets<K, T, S, L> {
    // A `View` of the array that readers use. The array stays until a grace period after another view was
    // stored. Stored only under `lock`.
    current: AtomicPtr<Link<K, T>>,
    // By parity. One of them is `None`, unless the table is being resized. Read and written only under
    // `lock`; the heads of an array do not move.
    arrays: UnsafeCell<[Option<S>; ARRAYS]>,
    resizing: AtomicBool,
    lock: L,
}

/// An array of heads as readers see it, in one word.
///
/// It is the array's address with tags in the bits that alignment leaves: the lowest six are the shift that
/// turns a hash into the number of its bucket, the next is the array's parity. The word is written and
/// read as a whole, so no reader sees the size of one array with the address of another, on any machine.
///
/// # Invariants
///
/// Without those bits, the pointer leads to an array of links, one for every number of a bucket that the
/// shift allows.
struct View<K, T>(*mut Link<K, T>);

/// The bits of a hash, the highest of which tell the bucket.
const HASH_BITS: u32 = u32::BITS;
const SHIFT: usize = (1 << 6) - 1;
const PARITY: u32 = SHIFT.count_ones();
const TAGS: usize = SHIFT | 1 << PARITY;

/// What an array of heads has to be aligned to.
///
/// kmalloc() aligns a size that is a power of two to that size (include/linux/slab.h), and vmalloc() aligns to
/// pages: so any table of 16 heads or more is aligned.
pub const HEADS_ALIGN: usize = TAGS + 1;

impl<K, T> View<K, T> {
    fn of(heads: &[Link<K, T>], parity: usize) -> Option<Self> {
        let first = heads.as_ptr().cast_mut();
        let bits = heads.len().checked_ilog2()?;
        let shift = HASH_BITS.checked_sub(bits)?;
        let fits = heads.len().is_power_of_two() && first.addr() & TAGS == 0;
        // INVARIANT: a hash, shifted so far, is less than that power of two.
        fits.then(|| Self(first.map_addr(|at| at | shift as usize | parity << PARITY)))
    }

    fn count(&self) -> usize {
        let bits = HASH_BITS.wrapping_sub((self.0.addr() & SHIFT) as u32);
        1_usize.wrapping_shl(bits)
    }

    #[inline(always)]
    fn parity(&self) -> usize {
        self.0.addr() >> PARITY & 1
    }

    #[inline(always)]
    fn bucket(&self, hash: usize) -> usize {
        // `wrapping_shr` uses the lowest six bits of the word only.
        u64::from(hash as u32).wrapping_shr(self.0.addr() as u32) as usize
    }

    /// The head of the bucket of `hash`.
    ///
    /// # Safety
    ///
    /// The array is there for as long as the result is used.
    #[inline(always)]
    unsafe fn head<'g>(&self, hash: usize) -> &'g Link<K, T> {
        let first = self.0.map_addr(|at| at & !TAGS);
        // SAFETY: by the type's invariant it is one of the array's links.
        unsafe { &*first.add(self.bucket(hash)) }
    }

    /// All heads.
    ///
    /// # Safety
    ///
    /// As for `head`.
    unsafe fn heads<'g>(&self) -> &'g [Link<K, T>] {
        let first = self.0.map_addr(|at| at & !TAGS);
        // SAFETY: by the type's invariant that many are there.
        unsafe { core::slice::from_raw_parts(first, self.count()) }
    }
}

// SAFETY: the arrays are only used under the lock, or shared under the conditions of the view's invariant;
// what they hold and the lock may be sent.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send, L: Send> Send for Buckets<K, T, S, L> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send + Sync, L: Sync> Sync for Buckets<K, T, S, L> {}

impl<K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Buckets<K, T, S, L> {
    /// How many of its first bytes [`Self::lookup`] reads.
    pub const HOT: usize = offset_of!(Self, current) + size_of::<AtomicPtr<Link<K, T>>>();

    /// Buckets from `heads`, which are empty; `None` if their number is not a power of two, or they are
    /// not aligned to [`HEADS_ALIGN`].
    pub fn new(heads: S, lock: L) -> Option<Self> {
        let View(current) = View::of(&heads, 0)?;
        Some(Self {
            current: AtomicPtr::new(current),
            arrays: UnsafeCell::new([Some(heads), None]),
            resizing: AtomicBool::new(false),
            lock,
        })
    }

    // The array as of now, for readers: it stays until the guard is gone.
    #[inline(always)]
    fn view(&self, _guard: &ReadGuard) -> View<K, T> {
        // INVARIANT: only views are stored.
        View(self.current.load(FOLLOW))
    }

    /// How many buckets there are.
    #[inline(always)]
    pub fn count(&self, guard: &ReadGuard) -> usize {
        self.view(guard).count()
    }

    /// The number of the bucket of `hash`. In a table twice as large, its entries are in the bucket with twice
    /// that number and in the next one.
    pub fn bucket_of(&self, guard: &ReadGuard, hash: usize) -> usize {
        self.view(guard).bucket(hash)
    }

    /// The entry with `key`, which is in the bucket of `hash`; its highest bits, of 32, tell the bucket.
    #[inline(always)]
    pub fn lookup<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        key: &K,
    ) -> Option<Found<'g, K, T>> {
        let view = self.view(guard);
        // SAFETY: the view was current under this guard.
        let mut found = unsafe { view.head(hash) }.load(guard)?;
        // The first on its own, so that the compiler puts the loop out of the way.
        if found.key() == key {
            return Some(found);
        }
        loop {
            found = found.entry().next[view.parity()].load(guard)?;
            if found.key() == key {
                return Some(found);
            }
        }
    }

    /// The head of the bucket of `hash`.
    #[inline(always)]
    pub fn head<'g>(&'g self, guard: &'g ReadGuard, hash: usize) -> &'g Link<K, T> {
        // SAFETY: the view is current under this guard.
        unsafe { self.view(guard).head(hash) }
    }

    /// The entries of a bucket, in turn; none if there is no such bucket. Without the lock, entries that are
    /// linked or unlinked meanwhile may be among them or not.
    pub fn entries<'g>(
        &'g self,
        guard: &'g ReadGuard,
        bucket: usize,
    ) -> impl Iterator<Item = Found<'g, K, T>> {
        let view = self.view(guard);
        // SAFETY: the view is current under this guard.
        let head = unsafe { view.heads() }.get(bucket);
        core::iter::successors(head.and_then(|head| head.load(guard)), move |found| {
            found.entry().next[view.parity()].load(guard)
        })
    }

    /// Runs `function` under the lock. It must not take the lock again.
    pub fn with_lock<R>(&self, function: impl FnOnce() -> R) -> R {
        self.lock.with(function)
    }
}

#[cfg(test)]
#[path = "link/tests.rs"]
pub(super) mod tests;
