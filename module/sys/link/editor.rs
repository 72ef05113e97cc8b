// SPDX-License-Identifier: GPL-2.0

//! What writers have: a node that nobody else sees yet, the right to change the buckets of a table, and a node that
//! is in none any more. And how a table is resized.
//!
//! Like `link.rs`, this file does not depend on the kernel.
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

use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::{Buckets, Found, Heap, Link, Lock, Node, Rcu, ReadGuard, View, DIRECTION, UNHASHED};

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

/// How many buckets are rehashed under the lock at once: so long may a writer have to wait.
const STEP: usize = 64;

impl<K: PartialEq, T, S: Deref<Target = [Link<K, T>]>, L: Lock> Buckets<K, T, S, L> {
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
