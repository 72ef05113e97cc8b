// SPDX-License-Identifier: GPL-2.0

//! Pointers that readers follow under RCU while one writer at a time changes them.
//!
//! This file knows no kernel: the host compiles it with the datapath, so that Miri and the
//! property tests run on what runs in the kernel. What differs is the [`Heap`].
//!
//! The life of an object: [`Owned`] (one owner, nobody else sees it), then published in
//! [`Link`]s (readers see it, nobody owns it), then taken out of every link and [`Retired`]
//! (readers that found it before may still look), then, a grace period later, freed.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Proof of being in an RCU read-side critical section.
pub struct ReadGuard(PhantomData<*mut ()>);

impl ReadGuard {
    /// Claims the proof.
    ///
    /// # Safety
    ///
    /// While the guard lives, no object that is given to [`Heap::free_later`] may be freed: the
    /// caller is in an RCU read-side critical section that outlives the guard.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

/// Where objects come from and go to.
///
/// # Safety
///
/// `allocate` returns memory that is valid for reads and writes of `T`, aligned, and
/// exclusively the caller's. `free_later` leaves the object intact as long as any [`ReadGuard`]
/// that exists at the time of the call.
pub unsafe trait Heap {
    /// Moves `value` to the heap, or gives it back if there is no memory.
    fn allocate<T>(&self, value: T) -> Result<NonNull<T>, T>;

    /// Frees an object that nobody else can see.
    ///
    /// # Safety
    ///
    /// `object` comes from `allocate` of this type of heap, is freed only once and not used again.
    unsafe fn free<T>(object: NonNull<T>);

    /// Frees an object when all readers that may see it are gone.
    ///
    /// # Safety
    ///
    /// As for `free`; and no reader that starts later can find `object`.
    unsafe fn free_later<T>(object: NonNull<T>);
}

/// An object on two chains, seen by readers: side 0 of it on one, side 1 on the other.
#[repr(C)]
pub struct Node<T, H> {
    next: [Link<T, H>; 2],
    value: T,
}

impl<T, H> Deref for Node<T, H> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A node that only its owner can see.
pub struct Owned<T, H: Heap>(NonNull<Node<T, H>>);

impl<T, H: Heap> Owned<T, H> {
    /// Moves `value` to `heap`; `None` if there is no memory.
    pub fn new(heap: &H, value: T) -> Option<Self> {
        let next = [Link::null(), Link::null()];
        heap.allocate(Node { next, value }).ok().map(Self)
    }
}

impl<T, H: Heap> Deref for Owned<T, H> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by the contract of `Heap::allocate` the node is valid; it is freed in `drop`.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T, H: Heap> Drop for Owned<T, H> {
    fn drop(&mut self) {
        // SAFETY: the node was never published, or `Editor::publish` would have forgotten `self`.
        unsafe { H::free(self.0) }
    }
}

/// A node that no new reader can find; dropping it frees it after a grace period.
pub struct Retired<T, H: Heap>(NonNull<Node<T, H>>);

impl<T, H: Heap> Drop for Retired<T, H> {
    fn drop(&mut self) {
        // SAFETY: `Editor::withdraw` took both links to the node away before it made `self`, and
        // a node is found in both its chains only once.
        unsafe { H::free_later(self.0) }
    }
}

/// A link to nothing, or to one side of a published node. All bytes zero is a link to nothing.
///
/// The side, 0 or 1, is kept in the pointer's lowest bit.
///
/// # Invariants
///
/// A pointer that is not null came from an [`Owned`] and was not retired: the node lives at
/// least as long as any [`ReadGuard`] under which it is loaded.
#[repr(transparent)]
pub struct Link<T, H>(AtomicPtr<Node<T, H>>);

// SAFETY: a link gives shared references to nodes to any thread, and lets a node be freed on
// another thread than made it.
unsafe impl<T: Send + Sync, H: Send> Send for Link<T, H> {}
// SAFETY: as above; the pointer itself is atomic.
unsafe impl<T: Send + Sync, H: Send> Sync for Link<T, H> {}

/// What a link leads to.
pub struct Target<'g, T, H> {
    /// The node.
    pub node: &'g Node<T, H>,
    /// Which side of it.
    pub side: usize,
}

impl<T, H> Link<T, H> {
    /// A link to nothing.
    pub const fn null() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Follows the link.
    #[inline(always)]
    pub fn load<'g>(&self, _guard: &'g ReadGuard) -> Option<Target<'g, T, H>> {
        // Acquire pairs with the Release in `publish`: what was written before is seen.
        let tagged = self.0.load(Ordering::Acquire);
        let node = NonNull::new(tagged.map_addr(|address| address & !1))?;
        Some(Target {
            // SAFETY: by the type's invariant the node outlives the guard, and from publishing
            // on it is only ever shared.
            node: unsafe { node.as_ref() },
            side: tagged.addr() & 1,
        })
    }

    // Makes this link lead where `other` leads.
    fn bypass(&self, other: &Self) {
        let target = other.0.load(Ordering::Relaxed);
        self.0.store(target, Ordering::Release);
    }
}

impl<'g, T, H> Target<'g, T, H> {
    /// The link to the next node on the same chain.
    #[inline(always)]
    pub fn next(&self) -> &'g Link<T, H> {
        // The mask tells the compiler that the index is in bounds.
        &self.node.next[self.side & 1]
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

/// A power of two of chains, with the lock of those who change them.
pub struct Chains<T, H, S, L> {
    // Only [`Editor`] changes the links, under `lock`.
    heads: S,
    lock: L,
    marker: PhantomData<Link<T, H>>,
}

impl<T, H: Heap, S: Deref<Target = [Link<T, H>]>, L: Lock> Chains<T, H, S, L> {
    /// Chains from `heads`; `None` if their number is not a power of two.
    pub fn new(heads: S, lock: L) -> Option<Self> {
        heads.len().is_power_of_two().then_some(Self {
            heads,
            lock,
            marker: PhantomData,
        })
    }

    /// How many chains there are.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.heads.len()
    }

    /// The first node of a chain; the number is taken modulo [`Self::count`].
    #[inline(always)]
    pub fn first<'g>(&self, guard: &'g ReadGuard, chain: usize) -> Option<Target<'g, T, H>> {
        let mask = self.heads.len().wrapping_sub(1);
        self.heads.get(chain & mask)?.load(guard)
    }

    /// Runs `edit` as the only one who changes the chains.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Editor<'_, T, H>) -> R) -> R {
        self.lock.with(|| edit(&mut Editor { heads: &self.heads }))
    }
}

/// The right to change chains.
pub struct Editor<'c, T, H> {
    heads: &'c [Link<T, H>],
}

impl<T, H: Heap> Editor<'_, T, H> {
    fn head(&self, chain: usize) -> Option<&Link<T, H>> {
        self.heads.get(chain & self.heads.len().wrapping_sub(1))
    }

    /// Puts side 0 of the node at the front of the first chain, and side 1 of the second.
    pub fn publish(&mut self, node: Owned<T, H>, chains: [usize; 2]) {
        let pointer = ManuallyDrop::new(node).0;
        for (side, chain) in chains.into_iter().enumerate() {
            let Some(head) = self.head(chain) else { return };
            // SAFETY: valid by the contract of `Heap::allocate`, and not freed, since `drop` does
            // not run any more and only an editor could withdraw the node.
            let node = unsafe { pointer.as_ref() };
            // Both may be the same chain: each step leaves it whole.
            node.next[side & 1].bypass(head);
            let tagged = pointer.as_ptr().map_addr(|address| address | side);
            head.0.store(tagged, Ordering::Release);
        }
    }

    /// Takes the node from the two chains on which it is; `None`, and nothing changed, if it is
    /// not on both.
    pub fn withdraw(
        &mut self,
        guard: &ReadGuard,
        node: &Node<T, H>,
        chains: [usize; 2],
    ) -> Option<Retired<T, H>> {
        let [first, second] = chains;
        self.link_to(guard, first, node, 0)?;
        self.link_to(guard, second, node, 1)?.bypass(&node.next[1]);
        // Looked for again, since on a shared chain the link may have been the other side's.
        let link = self.link_to(guard, first, node, 0)?;
        // Side 0: the pointer has no bit set.
        let pointer = NonNull::new(link.0.load(Ordering::Relaxed))?;
        link.bypass(&node.next[0]);
        Some(Retired(pointer))
    }

    // The link on `chain` that leads to `side` of `node`.
    fn link_to<'g>(
        &'g self,
        guard: &'g ReadGuard,
        chain: usize,
        node: &Node<T, H>,
        side: usize,
    ) -> Option<&'g Link<T, H>> {
        let mut link = self.head(chain)?;
        loop {
            let target = link.load(guard)?;
            if core::ptr::eq(target.node, node) && target.side == side {
                return Some(link);
            }
            link = target.next();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Boxes; what is retired is leaked, since a test cannot tell when its last reader is gone.
    pub(crate) struct TestHeap;

    // SAFETY: a box is valid and exclusive, and what is to be freed later never is.
    unsafe impl Heap for TestHeap {
        fn allocate<T>(&self, value: T) -> Result<NonNull<T>, T> {
            Ok(NonNull::from(Box::leak(Box::new(value))))
        }

        unsafe fn free<T>(object: NonNull<T>) {
            // SAFETY: the caller's promise: from `allocate`, once.
            drop(unsafe { Box::from_raw(object.as_ptr()) });
        }

        unsafe fn free_later<T>(_object: NonNull<T>) {}
    }

    // SAFETY: a mutex.
    unsafe impl Lock for Mutex<()> {
        fn with<R>(&self, function: impl FnOnce() -> R) -> R {
            let _held = self.lock().unwrap();
            function()
        }
    }

    pub(crate) type TestChains<T> = Chains<T, TestHeap, Vec<Link<T, TestHeap>>, Mutex<()>>;

    pub(crate) fn chains<T>(count: usize) -> Option<TestChains<T>> {
        Chains::new((0..count).map(|_| Link::null()).collect(), Mutex::new(()))
    }

    /// A guard for tests, in which what is retired is never freed.
    pub(crate) fn guard() -> ReadGuard {
        // SAFETY: `TestHeap::free_later` frees nothing.
        unsafe { ReadGuard::new() }
    }

    fn values<'g>(
        mut at: Option<Target<'g, u32, TestHeap>>,
        guard: &'g ReadGuard,
    ) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        while let Some(target) = at {
            found.push((**target.node, target.side));
            at = target.next().load(guard);
        }
        found
    }

    #[test]
    fn a_node_is_on_both_chains_until_it_is_withdrawn() {
        let guard = guard();
        let chains = chains::<u32>(2).unwrap();
        let (a, b) = (0, 1);
        for (value, on) in [(1, [a, b]), (2, [b, a]), (3, [a, a])] {
            chains.edit(|editor| editor.publish(Owned::new(&TestHeap, value).unwrap(), on));
        }
        let on = |chain| values(chains.first(&guard, chain), &guard);
        assert_eq!(on(a), [(3, 1), (3, 0), (2, 1), (1, 0)]);
        assert_eq!(on(b), [(2, 0), (1, 1)]);

        let withdrawn = |node, on| {
            chains
                .edit(|editor| editor.withdraw(&guard, node, on))
                .is_some()
        };
        let three = chains.first(&guard, a).unwrap().node;
        assert!(!withdrawn(three, [b, a]), "not on that chain");
        assert!(withdrawn(three, [a, a]));
        assert!(!withdrawn(three, [a, a]), "not twice");
        assert!(withdrawn(chains.first(&guard, b).unwrap().node, [b, a]));
        assert_eq!(on(a), [(1, 0)]);
        assert_eq!(on(b), [(1, 1)]);
        // A reader that found a node before still goes on from it.
        assert_eq!(values(three.next[0].load(&guard), &guard), [(2, 1), (1, 0)]);
    }

    #[test]
    fn only_powers_of_two_are_taken() {
        assert!([0, 3, 12]
            .into_iter()
            .all(|count| chains::<u32>(count).is_none()));
    }

    #[test]
    fn readers_and_a_writer_at_once() {
        let chains = Arc::new(chains::<u32>(1).unwrap());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let chains = chains.clone();
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        let guard = guard();
                        let seen = values(chains.first(&guard, 0), &guard);
                        assert!(seen.len() <= 2 && seen.iter().all(|&(value, _)| value < 50));
                    }
                })
            })
            .collect();
        for value in 0..50 {
            let guard = guard();
            chains.edit(|editor| editor.publish(Owned::new(&TestHeap, value).unwrap(), [0, 0]));
            let node = chains.first(&guard, 0).unwrap().node;
            assert!(chains
                .edit(|editor| editor.withdraw(&guard, node, [0, 0]))
                .is_some());
        }
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
    }

    #[test]
    fn a_node_that_was_never_published_is_freed() {
        let counted = Arc::new(());
        drop(Owned::new(&TestHeap, counted.clone()));
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}
