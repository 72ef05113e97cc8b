// SPDX-License-Identifier: GPL-2.0

//! A hash table that readers walk under RCU while one writer at a time changes it, and that is
//! resized under them (as rhashtable is in the kernel).
//!
//! This file knows no kernel: the host compiles it with the datapath, so that Miri and the
//! property tests run on what runs in the kernel. What differs is the [`Heap`].
//!
//! A [`Node`] is found by either of two keys, one for each direction (`tuplehash` of struct nf_conn), so
//! it is in two buckets: each of its two entries (`HashEntry`) is in one. The life of a node: [`Owned`] (one
//! owner, nobody else sees it), then published (readers see it, nobody owns it), then [`Unlinked`] from both
//! buckets (readers that found it before may still look), then, a grace period later, the heap's again; where it
//! is meanwhile is for the heap to say: `pool.rs` draws it.
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
//! begin      the other array = new, all heads null     as before: nobody reads the new array
//! rehash     each old bucket, STEP in one go:          as before
//!              next[new] of its entries, new heads
//!            who publishes meanwhile links the entry
//!              in both; who unlinks takes it from
//!              both
//! switch     current = new (Release)                   old, along next[old], or new, along next[new]:
//! grace      who publishes or unlinks still does so      both complete
//! period       in both
//! take_old   the old array is the caller's again       only new: who read the old view is gone
//! forget     each new bucket: next[old] = UNHASHED     as before: nobody reads next[old]
//!            the next resize may begin
//! ```
//!
//! So a reader sees each node that is in the table for the whole of its section, once, whichever view
//! it read. What it may overlook is what is published at the same time: who has to know asks again under the
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

/// How readers are told from writers.
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

/// Where nodes come from and go to.
///
/// # Safety
///
/// `alloc` returns memory for an `N` that is aligned and exclusively the caller's, but for readers
/// who may still look whether it is in a bucket (see [`Node::init`]). `free_rcu` leaves the node
/// intact as long as any [`ReadGuard`] that exists at the time of the call. Memory that was a node's
/// stays one's until [`begin_epoch`](super::cache_set::begin_epoch) was called, when no guard was left
/// that existed at the call of `free_rcu`, and then all guards are gone that existed at that call.
pub unsafe trait Heap<N> {
    /// Memory for a node, made by [`Node::init`] or what [`Node::drop_value`] left of another; `None`
    /// if there is none.
    fn alloc(&self) -> Option<NonNull<N>>;

    /// Takes memory back that nobody else ever saw.
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
    // For each array of buckets, what follows there.
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
    /// Who does not know whether a node has gone reads nothing else of it before. So its links are
    /// never written but by atomic stores, from here until the memory is nodes' no more.
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

    /// What it is found by in direction 0 or 1.
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
/// In a pointer, which direction's entry of the node is meant.
const DIRECTION: usize = 1;
/// In a link, that its entry is in no bucket of that array, as hlist_unhashed() tells.
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
    /// By the key of which direction, 0 or 1.
    pub direction: usize,
    // The same node as links have it: by a pointer from the heap, through which it may be given
    // back, as it may not through one that was made of a shared reference.
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

    // Where it leads, without what concerns only its own entry.
    fn target(&self) -> *mut Node<K, T> {
        let tagged = self.0.load(Ordering::Relaxed);
        tagged.map_addr(|address| address & !UNHASHED)
    }

    // Marks its entry as being in no bucket; readers that stand there still go on from it.
    fn set_unhashed(&self) {
        self.set(self.target().map_addr(|address| address | UNHASHED));
    }
}

impl<'g, K, T> Found<'g, K, T> {
    #[inline(always)]
    fn entry(&self) -> &'g HashEntry<K, T> {
        &self.node.entries[self.direction & 1]
    }

    /// What to find it by with [`Self::recheck`].
    pub(super) fn tagged(&self) -> *mut Node<K, T> {
        let node = self.pointer.as_ptr();
        node.map_addr(|address| address | self.direction & DIRECTION)
    }

    /// What was found once, or what has taken its place in memory, if that is in a bucket now.
    ///
    /// # Safety
    ///
    /// `tagged` is null, or from [`Self::tagged`] and its memory is a node's (see [`Node::init`])
    /// for as long as the guard.
    #[inline(always)]
    pub(super) unsafe fn recheck(_guard: &'g ReadGuard, tagged: *mut Node<K, T>) -> Option<Self> {
        let node = NonNull::new(tagged.map_addr(|address| address & !(DIRECTION | UNHASHED)))?;
        let direction = tagged.addr() & DIRECTION;
        // SAFETY: the caller's promise; nobody writes these words but by atomic stores.
        let [one, other] = unsafe { &(*node.as_ptr()).entries[direction].next };
        // Pairs with Release in `set`: a node that is in a bucket is seen whole.
        let both = one.0.load(Ordering::Acquire).addr() & other.0.load(Ordering::Acquire).addr();
        if both & UNHASHED != 0 {
            return None;
        }
        Some(Self {
            // SAFETY: it is in a bucket: so whoever takes it off waits for this guard.
            node: unsafe { node.as_ref() },
            direction,
            pointer: node,
        })
    }

    /// What it was found by.
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

    /// As `new`, of what `make` makes: right where the node is, with no copy of it before.
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
        // SAFETY: written in `new`; given back in `drop` only.
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
        // SAFETY: `Editor::unlink` took both links to the node away before it made `self`, and
        // a node is found in both its buckets only once.
        unsafe { self.heap.free_rcu(self.node) }
    }
}

/// What keeps writers apart.
///
/// # Safety
///
/// `with` of one value never runs two functions at the same time.
pub unsafe trait Lock {
    /// Runs `function` while the lock is held.
    fn with<R>(&self, function: impl FnOnce() -> R) -> R;
}

/// A power of two of buckets; while the table is resized, twice. What readers read comes first, to be put
/// into one line of memory with what else they read of most packets.
#[repr(C)]
pub struct Buckets<K, T, S, L> {
    // A `View` of the array that readers use, which is there and does not change; it is only taken
    // away a grace period after another view was stored. Stored only under `lock`.
    current: AtomicPtr<Link<K, T>>,
    // By their parity. One of them is empty, unless the table is resized. Read and written only under
    // `lock`; an array does not move while it is there.
    arrays: UnsafeCell<[Option<S>; ARRAYS]>,
    resizing: AtomicBool,
    lock: L,
}

/// An array of heads as readers see it, in one word.
///
/// Its address, below which there is room: the lowest six bits are by how much to shift a hash to have
/// the number of its bucket, the next is the array's parity. What is written to one such word is seen
/// whole: there is no size of one array with the address of another, on no machine.
///
/// # Invariants
///
/// Without those bits, the pointer leads to so many links that the number of every bucket is one of
/// theirs.
struct View<K, T>(*mut Link<K, T>);

/// Hashes are of so many bits, the highest of which tell the bucket.
const HASH_BITS: u32 = u32::BITS;
const SHIFT: usize = (1 << 6) - 1;
const PARITY: u32 = SHIFT.count_ones();
const TAGS: usize = SHIFT | 1 << PARITY;

/// What an array of heads has to be aligned to.
///
/// The kernel's allocator aligns what is a power of two of bytes so far (include/linux/slab.h,
/// kmalloc()), and vmalloc() to pages: so any table of 16 heads or more is.
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
        // Shifts by the lowest six bits, of whatever the word is.
        u64::from(hash as u32).wrapping_shr(self.0.addr() as u32) as usize
    }

    /// The head of the bucket that `hash` is of.
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

/// How many buckets are carried over in one go: what a writer may have to wait for.
const STEP: usize = 64;

// SAFETY: the arrays are only used under the lock, or shared under the conditions of the view's invariant;
// what they hold and the lock may be sent.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send, L: Send> Send for Buckets<K, T, S, L> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send + Sync, L: Sync> Sync for Buckets<K, T, S, L> {}

impl<K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Buckets<K, T, S, L> {
    /// How many of its first bytes [`Self::lookup`] reads.
    pub const HOT: usize = offset_of!(Self, current) + size_of::<AtomicPtr<Link<K, T>>>();

    /// Buckets from `heads`, which lead nowhere; `None` if their number is not a power of two, or they are
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

    /// The number of the bucket that `hash` is of. In a table twice as large what is in it now is in the
    /// one with twice that number and the next.
    pub fn bucket_of(&self, guard: &ReadGuard, hash: usize) -> usize {
        self.view(guard).bucket(hash)
    }

    /// The entry with `key`, which is in the bucket that `hash`, by the highest of its 32 bits, is of.
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
        // The first on its own: so the loop is out of the way.
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

    /// Where the bucket begins that `hash` is of.
    #[inline(always)]
    pub fn head<'g>(&'g self, guard: &'g ReadGuard, hash: usize) -> &'g Link<K, T> {
        // SAFETY: the view is current under this guard.
        unsafe { self.view(guard).head(hash) }
    }

    /// Calls `see` with the length of every bucket of `range`.
    pub fn lengths(
        &self,
        guard: &ReadGuard,
        range: core::ops::Range<usize>,
        mut see: impl FnMut(usize),
    ) {
        let view = self.view(guard);
        // SAFETY: the view is current under this guard.
        for head in unsafe { view.heads() }.get(range).unwrap_or_default() {
            let mut length = 0;
            let mut next = head.load(guard);
            while let Some(found) = next {
                length = usize::wrapping_add(length, 1);
                next = found.entry().next[view.parity()].load(guard);
            }
            see(length);
        }
    }

    /// Runs `function` while nobody changes the buckets. It must not do so itself.
    pub fn with_lock<R>(&self, function: impl FnOnce() -> R) -> R {
        self.lock.with(function)
    }

    /// Runs `edit` as the only one who changes the buckets.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Editor<'_, K, T, S, L>) -> R) -> R {
        self.lock.with(|| edit(&mut Editor { buckets: self }))
    }

    /// Replaces the buckets by those of `heads`, which lead nowhere, while readers and writers go
    /// on; `hash` is that of a key. Sleeps, and runs `pause` now and then. Gives back the heads
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
        // From here on no reader is left in the old buckets, and no new one comes.
        R::synchronize();
        let old = self.edit(|editor| editor.take_old());
        self.in_steps::<R>(&pause, |editor, guard, bucket| editor.forget(guard, bucket));
        // So that the next who resizes sees what was done here.
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
        // SAFETY: the lock is held: nobody else takes arrays away, and this editor does so only in
        // `take_old`, which nobody calls with a head in hand.
        self.view(array).map(|view| unsafe { view.head(hash) })
    }

    // Puts an entry at the front of its bucket of an array.
    fn link(&self, array: usize, hash: usize, node: NonNull<Node<K, T>>, direction: usize) {
        let Some(head) = self.head(array, hash) else {
            return;
        };
        // SAFETY: the node is the caller's or published; it is not given back as long as only
        // this editor could unlink it.
        let entry = unsafe { &node.as_ref().entries[direction & 1] };
        entry.next[array & 1].set(head.target());
        head.set(
            node.as_ptr()
                .map_addr(|address| address | direction & DIRECTION),
        );
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

    /// Puts the node in the buckets that the hashes of its keys are of.
    pub fn publish<'g, H: Heap<Node<K, T>>>(
        &mut self,
        _guard: &'g ReadGuard,
        node: Owned<'_, K, T, H>,
        hashes: [usize; 2],
    ) -> &'g Node<K, T> {
        let node = ManuallyDrop::new(node).node;
        let current = self.current();
        for (direction, hash) in hashes.into_iter().enumerate() {
            // In the other array only while there is one.
            self.link(current ^ 1, hash, node, direction);
            self.link(current, hash, node, direction);
        }
        // SAFETY: it is published: whoever unlinks it waits for this guard.
        unsafe { node.as_ref() }
    }

    /// Takes the node out of its buckets; `None`, and nothing changed, if it is not on them.
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
                // In the other array only while the table grows, and maybe not yet.
                if let Some(link) = self.link_to(guard, array, hash, node, direction) {
                    link.set(next.target());
                }
                // In any case: that it is off in both is how one tells that it is gone.
                next.set_unhashed();
            }
        }
        // Direction 0: the pointer has no bit set.
        let node = NonNull::new(pointer)?;
        Some(Unlinked { node, heap })
    }

    // The link that leads to `direction` of `node` in a bucket.
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
        let array = self.buckets.view(guard);
        // SAFETY: the array is current under this guard.
        let head = unsafe { array.heads() }.get(bucket);
        let mut next = head.and_then(|head| head.load(guard));
        while let Some(found) = next {
            // A unlinked entry's own link stays: the walk goes on from it.
            next = found.entry().next[array.parity()].load(guard);
            see(self, found);
        }
    }

    // From here on what is published goes in the new buckets as well.
    fn begin(&mut self, heads: S) {
        let other = self.current() ^ 1;
        // SAFETY: the lock is held, and this editor borrows the arrays nowhere else. The place is
        // empty: `resize`, of which only one runs, has emptied it.
        let arrays = unsafe { &mut *self.buckets.arrays.get() };
        arrays[other & 1] = Some(heads);
    }

    // Puts the entries of an old bucket into the new ones, in the order in which they were: so the order
    // in a bucket, the last to come first, does not tell when the table grew.
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
            // Whoever reads it sees the heads, and what they lead to.
            self.buckets.current.store(new, Ordering::Release);
        }
    }

    // Takes the array away that is not current any more, and was not for a grace period.
    fn take_old(&mut self) -> Option<S> {
        let other = self.current() ^ 1;
        // SAFETY: the lock is held, and this editor borrows the arrays nowhere else.
        let arrays = unsafe { &mut *self.buckets.arrays.get() };
        arrays[other & 1].take()
    }

    // Makes a bucket's entries forget their place in the array that is gone.
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
