// SPDX-License-Identifier: GPL-2.0

//! A hash table that readers search under RCU while one writer at a time changes it, and that is
//! exchanged for a larger one under them.
//!
//! This file knows no kernel: the host compiles it with the datapath, so that Miri and the
//! property tests run on what runs in the kernel. What differs is the [`Heap`].
//!
//! A [`Node`] is found by either of two keys, so it is on two chains: each of its two entries is
//! on one. The life of a node: [`Owned`] (one owner, nobody else sees it), then published
//! (readers see it, nobody owns it), then withdrawn from both chains and [`Retired`] (readers
//! that found it before may still look), then, a grace period later, given back to the heap.
//!
//! To grow, an entry has two links, one for each of two arrays of chains. The second array is
//! filled chain by chain while readers go on in the first; then one store sends new readers to
//! the second. No reader waits and none sees a node twice or not at all.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::{offset_of, ManuallyDrop};
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{compiler_fence, AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Proof of being in an RCU read-side critical section.
pub struct ReadGuard(PhantomData<*mut ()>);

impl ReadGuard {
    /// Claims the proof.
    ///
    /// # Safety
    ///
    /// While the guard lives, no node that is given to [`Heap::retire`] may be used again: the
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
/// `take` returns memory for an `N` that is aligned and exclusively the caller's, but for readers
/// who may still look whether it is on a chain (see [`Node::blank`]). `retire` leaves the node
/// intact as long as any [`ReadGuard`] that exists at the time of the call. Memory that was a node's
/// stays one's until [`begin_epoch`](super::recent::begin_epoch) was called, when no guard was left
/// that existed at the call of `retire`, and then all guards are gone that existed at that call.
pub unsafe trait Heap<N> {
    /// Memory for a node, made by [`Node::blank`] or what [`Node::finish`] left of another; `None`
    /// if there is none.
    fn take(&self) -> Option<NonNull<N>>;

    /// Takes memory back that nobody else ever saw.
    ///
    /// # Safety
    ///
    /// `node` comes from `take` of this heap, is valid, and is not used again.
    unsafe fn give_back(&self, node: NonNull<N>);

    /// Takes memory back when all readers that may see the node are gone.
    ///
    /// # Safety
    ///
    /// As for `give_back`, but for readers; and no reader that starts later can find the node.
    unsafe fn retire(&self, node: NonNull<N>);
}

/// One of a node's two places in the table.
#[repr(C)]
struct Entry<K, T> {
    // For each array of chains, what follows there.
    next: [Link<K, T>; ARRAYS],
    key: K,
}

/// An object that is found by either of two keys, its sides.
#[repr(C)]
pub struct Node<K, T> {
    entries: [Entry<K, T>; 2],
    value: T,
}

impl<K, T> Node<K, T> {
    /// Makes memory fit to become a node: one that is on no chain.
    ///
    /// Who does not know whether a node has gone reads nothing else of it before. So its links are
    /// never written but by atomic stores, from here until the memory is nodes' no more.
    ///
    /// # Safety
    ///
    /// `memory` is valid for writes, aligned, and exclusively the caller's.
    pub unsafe fn blank(memory: NonNull<Self>) {
        // SAFETY: the caller answers for the memory.
        unsafe { memory.write_bytes(0, 1) };
        for side in 0..2 {
            // SAFETY: a place within the memory, for which the caller answers.
            unsafe {
                let next = &raw mut (*memory.as_ptr()).entries[side].next;
                next.write([Link::off(), Link::off()]);
            }
        }
    }

    /// Drops what is in a node and leaves memory for another.
    ///
    /// # Safety
    ///
    /// The node is exclusively the caller's, as for [`Heap::take`], and on no chain.
    pub unsafe fn finish(node: NonNull<Self>) {
        const {
            assert!(!core::mem::needs_drop::<K>());
        }
        // SAFETY: by the caller's promise; the links are left alone.
        unsafe { (&raw mut (*node.as_ptr()).value).drop_in_place() };
    }

    /// What is found by side 0 or 1.
    #[inline(always)]
    pub fn key(&self, side: usize) -> &K {
        // The mask tells the compiler that the index is in bounds.
        &self.entries[side & 1].key
    }
}

impl<K, T> Deref for Node<K, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

/// How a pointer is read through which the reader will look: it sees what was written before the
/// pointer, by Release in `set`. The kernel relies on the dependency between the two reads, as
/// its rcu_dereference() does: Acquire would make the compiler read everything else again.
const FOLLOW: Ordering = if cfg!(MODULE) {
    Ordering::Relaxed
} else {
    Ordering::Acquire
};

const ARRAYS: usize = 2;
/// In a pointer, which side of the node is meant.
const SIDE: usize = 1;
/// In a link, that its entry is on no chain of that array.
const OFF: usize = 2;

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
    /// Which side of it, 0 or 1.
    pub side: usize,
    // The same node as links have it: by a pointer from the heap, through which it may be given
    // back, as it may not through one that was made of a shared reference.
    pointer: NonNull<Node<K, T>>,
}

impl<K, T> Link<K, T> {
    /// A link to nothing.
    pub const fn null() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    const fn off() -> Self {
        Self(AtomicPtr::new(core::ptr::without_provenance_mut(OFF)))
    }

    /// The entry to which it leads.
    #[inline(always)]
    pub fn load<'g>(&self, _guard: &'g ReadGuard) -> Option<Found<'g, K, T>> {
        let tagged = self.0.load(FOLLOW);
        let node = NonNull::new(tagged.map_addr(|address| address & !(SIDE | OFF)))?;
        Some(Found {
            // SAFETY: by the type's invariant the node outlives the guard, and from publishing
            // on it is only ever shared.
            node: unsafe { node.as_ref() },
            side: tagged.addr() & SIDE,
            pointer: node,
        })
    }

    fn is_off(&self) -> bool {
        self.0.load(Ordering::Relaxed).addr() & OFF != 0
    }

    fn set(&self, target: *mut Node<K, T>) {
        self.0.store(target, Ordering::Release);
    }

    // Where it leads, without what concerns only its own entry.
    fn target(&self) -> *mut Node<K, T> {
        let tagged = self.0.load(Ordering::Relaxed);
        tagged.map_addr(|address| address & !OFF)
    }

    // Marks its entry as being on no chain; readers that stand there still get on.
    fn set_off(&self) {
        self.set(self.target().map_addr(|address| address | OFF));
    }
}

impl<'g, K, T> Found<'g, K, T> {
    #[inline(always)]
    fn entry(&self) -> &'g Entry<K, T> {
        &self.node.entries[self.side & 1]
    }

    /// What to find it by with [`Self::again`].
    pub(super) fn tagged(&self) -> *mut Node<K, T> {
        let node = self.pointer.as_ptr();
        node.map_addr(|address| address | self.side & SIDE)
    }

    /// What was found once, or what has taken its place in memory, if that is on a chain now.
    ///
    /// # Safety
    ///
    /// `tagged` is null, or from [`Self::tagged`] and its memory is a node's (see [`Node::blank`])
    /// for as long as the guard.
    #[inline(always)]
    pub(super) unsafe fn again(_guard: &'g ReadGuard, tagged: *mut Node<K, T>) -> Option<Self> {
        let node = NonNull::new(tagged.map_addr(|address| address & !(SIDE | OFF)))?;
        let side = tagged.addr() & SIDE;
        // SAFETY: the caller's promise; nobody writes these words but by atomic stores.
        let [one, other] = unsafe { &(*node.as_ptr()).entries[side].next };
        // Pairs with Release in `set`: a node that is on a chain is seen whole.
        let both = one.0.load(Ordering::Acquire).addr() & other.0.load(Ordering::Acquire).addr();
        if both & OFF != 0 {
            return None;
        }
        Some(Self {
            // SAFETY: it is on a chain: so whoever takes it off waits for this guard.
            node: unsafe { node.as_ref() },
            side,
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
        let node = heap.take()?;
        let [first, second] = keys;
        // SAFETY: by the contract of `take` the memory is valid for a node and exclusively ours but
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
        unsafe { self.heap.give_back(self.node) }
    }
}

/// A node that no new reader can find; dropping it gives it back after a grace period.
pub struct Retired<'h, K, T, H: Heap<Node<K, T>>> {
    node: NonNull<Node<K, T>>,
    heap: &'h H,
}

impl<K, T, H: Heap<Node<K, T>>> Drop for Retired<'_, K, T, H> {
    fn drop(&mut self) {
        // SAFETY: `Editor::withdraw` took both links to the node away before it made `self`, and
        // a node is found in both its chains only once.
        unsafe { self.heap.retire(self.node) }
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

/// A power of two of chains; while the table grows, twice. What readers read of most packets comes
/// first, to be put into one line of memory with what else these read.
#[repr(C)]
pub struct Chains<K, T, S, L> {
    // The current view once more, in two words that are not changed at the same time. At any time
    // there are more than `quick_mask` links at `quick_first`.
    quick_mask: AtomicUsize,
    quick_first: AtomicPtr<Link<K, T>>,
    // Which array readers use, and whether the other is being filled. Changed only under `lock`.
    state: AtomicUsize,
    // One of them is empty, unless the table grows.
    //
    // Invariant: the array that `state` names is there and does not change. The other is changed
    // only under `lock`, and while it is there it is only taken away a grace period after readers
    // were sent to the first.
    arrays: [UnsafeCell<Option<S>>; ARRAYS],
    // What readers need of each array. Changed together with it.
    views: [UnsafeCell<View<K, T>>; ARRAYS],
    grows: AtomicBool,
    lock: L,
    marker: PhantomData<Link<K, T>>,
}

/// An array as readers see it.
///
/// # Invariants
///
/// `first` points to `mask + 1` links, a power of two.
struct View<K, T> {
    first: *const Link<K, T>,
    mask: usize,
}

impl<K, T> View<K, T> {
    fn of(heads: &[Link<K, T>]) -> Self {
        Self {
            first: heads.as_ptr(),
            mask: heads.len().wrapping_sub(1),
        }
    }
}

const CURRENT: usize = 1;
const FILLING: usize = 2;

/// How many chains are carried over in one go: what a writer may have to wait for.
const STEP: usize = 64;

// SAFETY: the arrays are only shared, or changed under the conditions of their invariant; what
// they hold and the lock may be sent.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send, L: Send> Send for Chains<K, T, S, L> {}
// SAFETY: as above.
// A view points into its array.
unsafe impl<K: Send + Sync, T: Send + Sync, S: Send + Sync, L: Sync> Sync for Chains<K, T, S, L> {}

impl<K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Chains<K, T, S, L> {
    /// How many of its first bytes [`Self::find_quickly`] reads.
    pub const HOT: usize = offset_of!(Self, state) + size_of::<AtomicUsize>();

    /// Chains from `heads`, which lead nowhere; `None` if their number is not a power of two.
    pub fn new(heads: S, lock: L) -> Option<Self> {
        heads.len().is_power_of_two().then(|| Self {
            // Of no array: never read before `begin` has filled it.
            views: [View::of(&heads), View::of(&[])].map(UnsafeCell::new),
            quick_mask: AtomicUsize::new(heads.len().wrapping_sub(1)),
            quick_first: AtomicPtr::new(heads.as_ptr().cast_mut()),
            arrays: [UnsafeCell::new(Some(heads)), UnsafeCell::new(None)],
            state: AtomicUsize::new(0),
            grows: AtomicBool::new(false),
            lock,
            marker: PhantomData,
        })
    }

    // Whoever learns of an array sees it whole: pairs with Release in `switch`.
    #[inline(always)]
    fn current(&self) -> usize {
        self.state.load(FOLLOW) & CURRENT
    }

    #[inline(always)]
    fn heads<'g>(&'g self, _guard: &'g ReadGuard, array: usize) -> &'g [Link<K, T>] {
        // SAFETY: `array` was current under this guard: by the invariant it does not change until
        // a grace period later.
        match unsafe { &*self.arrays[array & 1].get() } {
            Some(heads) => heads,
            None => &[],
        }
    }

    /// How many chains there are.
    #[inline(always)]
    pub fn count(&self, guard: &ReadGuard) -> usize {
        self.heads(guard, self.current()).len()
    }

    /// The entry with `key`, which is on the chain that `hash` is of.
    #[inline(always)]
    pub fn find<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        key: &K,
    ) -> Option<Found<'g, K, T>> {
        let array = self.current();
        // SAFETY: `array` was current under this guard: its view does not change until a grace
        // period later.
        let view = unsafe { &*self.views[array].get() };
        // SAFETY: by the view's invariant that many links are there.
        let head = unsafe { &*view.first.add(hash & view.mask) };
        let mut found = head.load(guard)?;
        loop {
            if found.key() == key {
                return Some(found);
            }
            found = found.entry().next[array].load(guard)?;
        }
    }

    /// Where the chain begins that `hash` is of; while the chains are being exchanged, maybe another
    /// one.
    #[inline(always)]
    pub fn head_quickly<'g>(&'g self, _guard: &'g ReadGuard, hash: usize) -> &'g Link<K, T> {
        // The mask first: with an older mask than it belongs to, an array is long enough.
        let mask = self.quick_mask.load(FOLLOW);
        compiler_fence(Ordering::Acquire);
        let first = self.quick_first.load(FOLLOW);
        // SAFETY: the fields' invariant: `switch` sees to it, for processors that do not exchange
        // two reads; others read the mask with Acquire. The array stays until a grace period after.
        unsafe { &*first.add(hash & mask) }
    }

    /// As `find`, in fewer instructions; but while the chains are being exchanged it may overlook
    /// an entry.
    #[inline(always)]
    pub fn find_quickly<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        key: &K,
    ) -> Option<Found<'g, K, T>> {
        let mut found = self.head_quickly(guard, hash).load(guard)?;
        // The first on its own: so the loop is out of the way.
        if found.key() == key {
            return Some(found);
        }
        loop {
            // If that is the other array's, the walk goes astray among live nodes, and ends.
            found = found.entry().next[self.current()].load(guard)?;
            if found.key() == key {
                return Some(found);
            }
        }
    }

    /// Calls `see` with the length of every chain of `range`.
    pub fn lengths(
        &self,
        guard: &ReadGuard,
        range: core::ops::Range<usize>,
        mut see: impl FnMut(usize),
    ) {
        let array = self.current();
        for head in self.heads(guard, array).get(range).unwrap_or_default() {
            let mut length = 0;
            let mut next = head.load(guard);
            while let Some(found) = next {
                length = usize::wrapping_add(length, 1);
                next = found.entry().next[array].load(guard);
            }
            see(length);
        }
    }

    /// Runs `function` while nobody changes the chains. It must not do so itself.
    pub fn hold<R>(&self, function: impl FnOnce() -> R) -> R {
        self.lock.with(function)
    }

    /// Runs `edit` as the only one who changes the chains.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Editor<'_, K, T, S, L>) -> R) -> R {
        self.lock.with(|| edit(&mut Editor { chains: self }))
    }

    /// Exchanges the chains for those of `heads`, which lead nowhere, while readers and writers go
    /// on; `hash` is that of a key. Sleeps, and runs `pause` now and then. Gives back the heads
    /// that are not needed any more: `heads` itself if the table is being exchanged already, or if
    /// their number is not a power of two.
    pub fn exchange<R: Rcu>(
        &self,
        heads: S,
        hash: impl Fn(&K) -> usize,
        pause: impl Fn(),
    ) -> Option<S> {
        if !heads.len().is_power_of_two() || self.grows.swap(true, Ordering::Acquire) {
            return Some(heads);
        }
        let mask = heads.len().wrapping_sub(1);
        self.edit(|editor| editor.begin(heads));
        self.in_steps::<R>(&pause, |editor, guard, chain| {
            editor.carry(guard, chain, &hash);
        });
        if mask < self.quick_mask.load(Ordering::Relaxed) {
            // Until nobody uses the larger mask any more: the new array is too short for it.
            self.quick_mask.store(mask, Ordering::Release);
            R::synchronize();
        }
        self.edit(|editor| editor.switch());
        // From here on no reader is left in the old chains, and no new one comes.
        R::synchronize();
        let old = self.edit(|editor| {
            let other = editor.chains.current() ^ 1;
            // SAFETY: the lock is held, the array is not current, and a grace period has passed
            // since it was.
            unsafe { (*editor.chains.arrays[other & 1].get()).take() }
        });
        self.in_steps::<R>(&pause, |editor, guard, chain| editor.forget(guard, chain));
        self.grows.store(false, Ordering::Release);
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
                    for chain in start..count.min(start.wrapping_add(STEP)) {
                        step(editor, guard, chain);
                    }
                });
            });
            pause();
        }
    }
}

/// The right to change chains.
pub struct Editor<'c, K, T, S, L> {
    chains: &'c Chains<K, T, S, L>,
}

impl<'c, K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Editor<'c, K, T, S, L> {
    fn head(&self, array: usize, hash: usize) -> Option<&'c Link<K, T>> {
        // SAFETY: the lock is held: nobody else changes arrays, and this editor does so only in
        // `begin`, which nobody calls with a head in hand, and in `exchange`.
        let heads = unsafe { &*self.chains.arrays[array & 1].get() }.as_deref()?;
        heads.get(hash & heads.len().wrapping_sub(1))
    }

    // Puts an entry at the front of its chain of an array.
    fn link(&self, array: usize, hash: usize, node: NonNull<Node<K, T>>, side: usize) {
        let Some(head) = self.head(array, hash) else {
            return;
        };
        // SAFETY: the node is the caller's or published; it is not given back as long as only
        // this editor could withdraw it.
        let entry = unsafe { &node.as_ref().entries[side & 1] };
        entry.next[array & 1].set(head.target());
        head.set(node.as_ptr().map_addr(|address| address | side & SIDE));
    }

    // Puts an entry at the end of its chain of an array.
    fn link_last(
        &self,
        guard: &ReadGuard,
        array: usize,
        hash: usize,
        node: NonNull<Node<K, T>>,
        side: usize,
    ) {
        let Some(mut link) = self.head(array, hash) else {
            return;
        };
        while let Some(found) = link.load(guard) {
            link = &found.entry().next[array & 1];
        }
        // SAFETY: as for `link`.
        let entry = unsafe { &node.as_ref().entries[side & 1] };
        entry.next[array & 1].set(core::ptr::null_mut());
        link.set(node.as_ptr().map_addr(|address| address | side & SIDE));
    }

    /// Puts the node on the chains that the hashes of its keys are of.
    pub fn publish<'g, H: Heap<Node<K, T>>>(
        &mut self,
        _guard: &'g ReadGuard,
        node: Owned<'_, K, T, H>,
        hashes: [usize; 2],
    ) -> &'g Node<K, T> {
        let node = ManuallyDrop::new(node).node;
        let state = self.chains.state.load(Ordering::Relaxed);
        for (side, hash) in hashes.into_iter().enumerate() {
            if state & FILLING != 0 {
                self.link((state & CURRENT) ^ 1, hash, node, side);
            }
            self.link(state & CURRENT, hash, node, side);
        }
        // SAFETY: it is published: whoever withdraws it waits for this guard.
        unsafe { node.as_ref() }
    }

    /// Takes the node off its chains; `None`, and nothing changed, if it is not on them.
    pub fn withdraw<'h, H: Heap<Node<K, T>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &'h H,
        node: &Node<K, T>,
        hashes: [usize; 2],
    ) -> Option<Retired<'h, K, T, H>> {
        let current = self.chains.current();
        let [first, second] = hashes;
        self.link_to(guard, current, second, node, 1)?;
        let pointer = self.link_to(guard, current, first, node, 0)?.target();
        for array in [current, current ^ 1] {
            for (side, hash) in hashes.into_iter().enumerate() {
                let next = &node.entries[side & 1].next[array & 1];
                // In the other array only while the table grows, and maybe not yet.
                if let Some(link) = self.link_to(guard, array, hash, node, side) {
                    link.set(next.target());
                }
                // In any case: that it is off in both is how one tells that it is gone.
                next.set_off();
            }
        }
        // Side 0: the pointer has no bit set.
        let node = NonNull::new(pointer)?;
        Some(Retired { node, heap })
    }

    // The link that leads to `side` of `node` on a chain.
    fn link_to<'g>(
        &self,
        guard: &'g ReadGuard,
        array: usize,
        hash: usize,
        node: &Node<K, T>,
        side: usize,
    ) -> Option<&'g Link<K, T>>
    where
        'c: 'g,
    {
        let mut link: &'g Link<K, T> = self.head(array, hash)?;
        loop {
            let found = link.load(guard)?;
            if core::ptr::eq(found.node, node) && found.side == side {
                return Some(link);
            }
            link = &found.entry().next[array & 1];
        }
    }

    /// Calls `see` for every entry of a chain, in turn. `see` may withdraw what it is given.
    pub fn walk(
        &mut self,
        guard: &ReadGuard,
        chain: usize,
        mut see: impl FnMut(&mut Self, Found<'_, K, T>),
    ) {
        let array = self.chains.current();
        let head = self.chains.heads(guard, array).get(chain);
        let mut next = head.and_then(|head| head.load(guard));
        while let Some(found) = next {
            // A withdrawn entry's own link stays: the walk goes on from it.
            next = found.entry().next[array & 1].load(guard);
            see(self, found);
        }
    }

    // From here on what is published goes on the new chains as well.
    fn begin(&mut self, heads: S) {
        let state = self.chains.state.load(Ordering::Relaxed) & CURRENT;
        // SAFETY: the lock is held; `exchange` has emptied the place a grace period after the last
        // reader could use it.
        unsafe {
            *self.chains.views[state ^ 1].get() = View::of(&heads);
            *self.chains.arrays[state ^ 1].get() = Some(heads);
        }
        self.chains.state.store(state | FILLING, Ordering::Release);
    }

    // Puts the entries of an old chain on the new ones, in the order in which they were: so the order
    // on a chain, the last to come first, does not tell when the table grew.
    fn carry(&mut self, guard: &ReadGuard, chain: usize, hash: impl Fn(&K) -> usize) {
        let other = self.chains.current() ^ 1;
        self.walk(guard, chain, |editor, found| {
            // What was published meanwhile is there already.
            if found.entry().next[other & 1].is_off() {
                let hash = hash(found.key());
                editor.link_last(guard, other, hash, found.pointer, found.side);
            }
        });
    }

    // Sends new readers to the new chains.
    fn switch(&mut self) {
        let other = self.chains.current() ^ 1;
        self.chains.state.store(other, Ordering::Release);
        // SAFETY: the lock is held: nobody changes views.
        let view = unsafe { &*self.chains.views[other & 1].get() };
        let first = view.first.cast_mut();
        self.chains.quick_first.store(first, Ordering::Release);
        self.chains.quick_mask.store(view.mask, Ordering::Release);
    }

    // Makes a chain's entries forget their place in the array that is gone.
    fn forget(&mut self, guard: &ReadGuard, chain: usize) {
        let other = self.chains.current() ^ 1;
        self.walk(guard, chain, |_, found| {
            let off = core::ptr::without_provenance_mut(OFF);
            found.entry().next[other & 1].set(off);
        });
    }
}

#[cfg(test)]
#[path = "link/tests.rs"]
pub(super) mod tests;
