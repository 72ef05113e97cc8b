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
//! # How a table is resized
//!
//! An array of heads, with its size and its parity, is one word for readers: the `View` in
//! `Buckets::current`. They read it once, then walk from a head along `next[parity]` of each entry. There are
//! two arrays only while the table is resized, of different parity, and so an entry has two links.
//!
//! ```text
//!            writers (each step under the lock)        readers see, by the view they read
//!            ──────────────────────────────────        ───────────────────────────────────────────
//!            current = old, no other array             old, along next[old]; next[new] is UNHASHED
//! begin      the other array = new, all heads null     as before: the new array is not read yet
//! rehash     each old bucket, STEP in one go:          as before
//!              next[new] of its entries, new heads
//!            meanwhile publish() links entries in
//!              both arrays, and unlink() takes
//!              them from both
//! switch     current = new (Release)                   old, along next[old], or new, along next[new]:
//! grace      publish() and unlink() still work on        both complete
//! period       both arrays
//! take_old   the old array is the caller's again       only new: readers of the old view are gone
//! forget     each new bucket: next[old] = UNHASHED     as before: next[old] is not read
//!            the next resize may begin
//! ```
//!
//! So a reader sees each node that is in the table for the whole of its section, once, whichever view
//! it read. It may overlook a node that is published at the same time: to be certain, look again under the
//! lock.
//!
//! The order of memory: a node's keys and value are written before a link leads to it (Release in
//! `Link::set`), heads and links of an array before the view is stored (Release in `switch`). Readers
//! read both with [`FOLLOW`], and everything else at addresses that they compute from those.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::{offset_of, ManuallyDrop};
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::order::FOLLOW;

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

/// A node that only its owner can see.
pub struct Owned<'h, K, T, H: Heap<Node<K, T>>> {
    node: NonNull<Node<K, T>>,
    heap: &'h H,
}

impl<'h, K, T, H: Heap<Node<K, T>>> Owned<'h, K, T, H> {
    /// Makes a node in memory of `heap`; `None` if there is none.
    pub fn new(heap: &'h H, keys: [K; 2], value: T) -> Option<Self> {
        Self::made_by(heap, || (keys, value))
    }

    /// As `new`, of what `make` makes: in the node's memory, without a copy.
    #[inline(always)]
    pub fn made_by(heap: &'h H, make: impl FnOnce() -> ([K; 2], T)) -> Option<Self> {
        let node = heap.alloc()?;
        let ([first, second], value) = make();
        // SAFETY: by the contract of `alloc` the memory is valid for a node and exclusively ours but
        // for the links, which are there already.
        unsafe {
            let node = node.as_ptr();
            (&raw mut (*node).entries[0].key).write(first);
            (&raw mut (*node).entries[1].key).write(second);
            (&raw mut (*node).value).write(value);
        }
        Some(Self { node, heap })
    }
}

impl<K, T, H: Heap<Node<K, T>>> Deref for Owned<'_, K, T, H> {
    type Target = Node<K, T>;

    fn deref(&self) -> &Node<K, T> {
        // SAFETY: written in `made_by`; given back in `drop` only.
        unsafe { self.node.as_ref() }
    }
}

impl<K, T, H: Heap<Node<K, T>>> Drop for Owned<'_, K, T, H> {
    fn drop(&mut self) {
        // SAFETY: the node was never published, or `Editor::publish` would have forgotten `self`.
        unsafe { self.heap.free(self.node) }
    }
}

/// A node that no new reader can find; dropping it gives it back after a grace period.
pub struct Unlinked<'h, K, T, H: Heap<Node<K, T>>> {
    node: NonNull<Node<K, T>>,
    heap: &'h H,
}

impl<K, T, H: Heap<Node<K, T>>> Drop for Unlinked<'_, K, T, H> {
    fn drop(&mut self) {
        // SAFETY: `Editor::unlink` took both links to the node away before it made `self`; it makes only one
        // for each node, since it finds a node in both its buckets only once.
        unsafe { self.heap.free_rcu(self.node) }
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

/// How many buckets are rehashed under the lock at once: so long may a writer have to wait.
const STEP: usize = 64;

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

    /// Runs `edit` under the lock, with the right to change the buckets.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Editor<'_, K, T, S, L>) -> R) -> R {
        self.lock.with(|| edit(&mut Editor { buckets: self }))
    }

    /// Replaces the buckets by those of `heads`, which are empty, while readers and writers go
    /// on; `hash` is the hash of a key. Sleeps, and runs `pause` now and then. Gives back the heads
    /// that are not needed any more: `heads` itself if the table is being resized already, or if
    /// [`Self::new`] would not take them.
    pub fn resize<R: Rcu>(
        &self,
        heads: S,
        hash: impl Fn(&K) -> usize,
        pause: impl Fn(),
    ) -> Option<S> {
        if View::of(&heads, 0).is_none() || self.resizing.swap(true, Ordering::Acquire) {
            return Some(heads);
        }
        self.edit(|editor| editor.begin(heads));
        self.in_steps::<R>(&pause, |editor, guard, bucket| {
            editor.rehash(guard, bucket, &hash);
        });
        self.edit(|editor| editor.switch());
        // New readers do not come to the old buckets any more; those that are there are waited for.
        R::synchronize();
        let old = self.edit(|editor| editor.take_old());
        self.in_steps::<R>(&pause, |editor, guard, bucket| editor.forget(guard, bucket));
        // Release: the next resize sees what was done here.
        self.resizing.store(false, Ordering::Release);
        old
    }

    fn in_steps<R: Rcu>(
        &self,
        pause: &impl Fn(),
        mut step: impl FnMut(&mut Editor<'_, K, T, S, L>, &ReadGuard, usize),
    ) {
        let count = R::read(|guard| self.count(guard));
        for start in (0..count).step_by(STEP) {
            R::read(|guard| {
                self.edit(|editor| {
                    for bucket in start..count.min(start.wrapping_add(STEP)) {
                        step(editor, guard, bucket);
                    }
                });
            });
            pause();
        }
    }
}

/// The right to change buckets.
pub struct Editor<'c, K, T, S, L> {
    buckets: &'c Buckets<K, T, S, L>,
}

impl<'c, K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Editor<'c, K, T, S, L> {
    // The parity of the array that readers use.
    fn current(&self) -> usize {
        // Under the lock it does not change.
        View(self.buckets.current.load(Ordering::Relaxed)).parity()
    }

    // The array of a parity, if there is one.
    fn view(&self, parity: usize) -> Option<View<K, T>> {
        // SAFETY: the lock is held, and this editor borrows the arrays nowhere else at the same time.
        let arrays = unsafe { &*self.buckets.arrays.get() };
        View::of(arrays[parity & 1].as_deref()?, parity & 1)
    }

    fn head(&self, array: usize, hash: usize) -> Option<&'c Link<K, T>> {
        // SAFETY: the lock is held: only this editor takes arrays away, in `take_old`, and none of its
        // functions keeps a head over a call of that.
        self.view(array).map(|view| unsafe { view.head(hash) })
    }

    // Puts both entries at the front of their buckets of an array, which is there.
    #[inline(always)]
    fn link_both(&self, view: &View<K, T>, node: NonNull<Node<K, T>>, hashes: [usize; 2]) {
        for (direction, hash) in hashes.into_iter().enumerate() {
            // SAFETY: the lock is held: only this editor takes arrays away.
            let head = unsafe { view.head(hash) };
            // SAFETY: the node is the caller's or published; only this editor could unlink it, so it is not
            // given back meanwhile.
            let entry = unsafe { &node.as_ref().entries[direction & 1] };
            entry.next[view.parity()].set(head.target());
            head.set(
                node.as_ptr()
                    .map_addr(|address| address | direction & DIRECTION),
            );
        }
    }

    // Puts an entry at the end of its bucket of an array.
    fn link_last(
        &self,
        guard: &ReadGuard,
        array: usize,
        hash: usize,
        node: NonNull<Node<K, T>>,
        direction: usize,
    ) {
        let Some(mut link) = self.head(array, hash) else {
            return;
        };
        while let Some(found) = link.load(guard) {
            link = &found.entry().next[array & 1];
        }
        // SAFETY: as for `link`.
        let entry = unsafe { &node.as_ref().entries[direction & 1] };
        entry.next[array & 1].set(core::ptr::null_mut());
        link.set(
            node.as_ptr()
                .map_addr(|address| address | direction & DIRECTION),
        );
    }

    /// Puts the node in the buckets of its keys' hashes.
    pub fn publish<'g, H: Heap<Node<K, T>>>(
        &mut self,
        _guard: &'g ReadGuard,
        node: Owned<'_, K, T, H>,
        hashes: [usize; 2],
    ) -> &'g Node<K, T> {
        let node = ManuallyDrop::new(node).node;
        // INVARIANT: only views are stored. Under the lock it does not change.
        let view = View(self.buckets.current.load(Ordering::Relaxed));
        // In the other array only while there is one.
        if let Some(other) = self.view(view.parity() ^ 1) {
            self.link_both(&other, node, hashes);
        }
        self.link_both(&view, node, hashes);
        // SAFETY: it is published: it is given back only after it was unlinked, and after this guard.
        unsafe { node.as_ref() }
    }

    /// Takes the node out of its buckets; `None`, and nothing changed, if it is not in them.
    pub fn unlink<'h, H: Heap<Node<K, T>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &'h H,
        node: &Node<K, T>,
        hashes: [usize; 2],
    ) -> Option<Unlinked<'h, K, T, H>> {
        let current = self.current();
        let [first, second] = hashes;
        self.link_to(guard, current, second, node, 1)?;
        let pointer = self.link_to(guard, current, first, node, 0)?.target();
        for array in [current, current ^ 1] {
            for (direction, hash) in hashes.into_iter().enumerate() {
                let next = &node.entries[direction & 1].next[array & 1];
                // In the other array only while the table is resized, and maybe not yet.
                if let Some(link) = self.link_to(guard, array, hash, node, direction) {
                    link.set(next.target());
                }
                // In any case: a node that is unhashed in both arrays is known to be gone.
                next.set_unhashed();
            }
        }
        // Direction 0: the pointer has no bit set.
        let node = NonNull::new(pointer)?;
        Some(Unlinked { node, heap })
    }

    // The link in a bucket that leads to the entry `direction` of `node`.
    fn link_to<'g>(
        &self,
        guard: &'g ReadGuard,
        array: usize,
        hash: usize,
        node: &Node<K, T>,
        direction: usize,
    ) -> Option<&'g Link<K, T>>
    where
        'c: 'g,
    {
        let mut link: &'g Link<K, T> = self.head(array, hash)?;
        loop {
            let found = link.load(guard)?;
            if core::ptr::eq(found.node, node) && found.direction == direction {
                return Some(link);
            }
            link = &found.entry().next[array & 1];
        }
    }

    /// Calls `see` for every entry of a bucket, in turn. `see` may unlink what it is given.
    pub fn walk(
        &mut self,
        guard: &ReadGuard,
        bucket: usize,
        mut see: impl FnMut(&mut Self, Found<'_, K, T>),
    ) {
        let buckets = self.buckets;
        // An entry that is unlinked keeps its own link, and the next one is known before that.
        for found in buckets.entries(guard, bucket) {
            see(self, found);
        }
    }

    // From here on nodes are published in the new buckets as well.
    fn begin(&mut self, heads: S) {
        let other = self.current() ^ 1;
        // SAFETY: the lock is held, and this editor borrows the arrays nowhere else. The place is
        // empty: `resize`, of which only one runs, has emptied it.
        let arrays = unsafe { &mut *self.buckets.arrays.get() };
        arrays[other & 1] = Some(heads);
    }

    // Puts the entries of an old bucket into the new ones, in the same order: so entries that came last are
    // first in every bucket, whenever the table was resized.
    fn rehash(&mut self, guard: &ReadGuard, bucket: usize, hash: impl Fn(&K) -> usize) {
        let other = self.current() ^ 1;
        self.walk(guard, bucket, |editor, found| {
            // What was published meanwhile is there already.
            if found.entry().next[other & 1].is_unhashed() {
                let hash = hash(found.key());
                editor.link_last(guard, other, hash, found.pointer, found.direction);
            }
        });
    }

    // Sends new readers to the new buckets.
    fn switch(&mut self) {
        if let Some(View(new)) = self.view(self.current() ^ 1) {
            // Release: readers of it see the heads, and what these lead to.
            self.buckets.current.store(new, Ordering::Release);
        }
    }

    // Takes the old array away, which has not been current for a grace period.
    fn take_old(&mut self) -> Option<S> {
        let other = self.current() ^ 1;
        // SAFETY: the lock is held, and this editor borrows the arrays nowhere else.
        let arrays = unsafe { &mut *self.buckets.arrays.get() };
        arrays[other & 1].take()
    }

    // Marks a bucket's entries as unhashed in the array that is gone.
    fn forget(&mut self, guard: &ReadGuard, bucket: usize) {
        let other = self.current() ^ 1;
        self.walk(guard, bucket, |_, found| {
            let unhashed = core::ptr::without_provenance_mut(UNHASHED);
            found.entry().next[other & 1].set(unhashed);
        });
    }
}

#[cfg(test)]
#[path = "link/tests.rs"]
pub(super) mod tests;
