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
        // SAFETY: the node was never published, or `Writer::publish` would have forgotten `self`.
        unsafe { H::free(self.0) }
    }
}

/// A node that no new reader can find; dropping it frees it after a grace period.
pub struct Retired<T, H: Heap>(NonNull<Node<T, H>>);

impl<T, H: Heap> Drop for Retired<T, H> {
    fn drop(&mut self) {
        // SAFETY: `Writer::withdraw` took both links to the node away before it made `self`, and
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
        // Acquire pairs with the Release in `lead_to`: what was written before is seen.
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

/// Proof of being the only one who changes the links of a set of chains.
pub struct Writer(PhantomData<*mut ()>);

impl Writer {
    /// Claims the proof.
    ///
    /// # Safety
    ///
    /// The chains with which the writer is used belong together, nodes are on two of them, and
    /// nobody else changes them while it lives: the caller holds their lock.
    pub unsafe fn new() -> Self {
        Self(PhantomData)
    }

    /// Puts side 0 of the node at the front of the first chain, and side 1 of the second.
    pub fn publish<T, H: Heap>(&mut self, node: Owned<T, H>, heads: [&Link<T, H>; 2]) {
        let pointer = ManuallyDrop::new(node).0;
        for (side, head) in heads.into_iter().enumerate() {
            // SAFETY: valid by the contract of `Heap::allocate`, and not freed, since `drop` does
            // not run any more and only this writer could withdraw the node.
            let node = unsafe { pointer.as_ref() };
            // Both heads may be the same: each step leaves a whole chain behind.
            node.next[side & 1].bypass(head);
            let tagged = pointer.as_ptr().map_addr(|address| address | side);
            head.0.store(tagged, Ordering::Release);
        }
    }

    /// Takes the node from the two chains on which it is; `None`, and nothing changed, if it is
    /// not on both.
    pub fn withdraw<T, H: Heap>(
        &mut self,
        guard: &ReadGuard,
        node: &Node<T, H>,
        heads: [&Link<T, H>; 2],
    ) -> Option<Retired<T, H>> {
        let [first, second] = heads;
        Self::link_to(guard, first, node, 0)?;
        let link = Self::link_to(guard, second, node, 1)?;
        link.bypass(&node.next[1]);
        // Looked for again, since on a shared chain the link may have been the other side's.
        let link = Self::link_to(guard, first, node, 0)?;
        // Side 0: the pointer has no bit set.
        let pointer = NonNull::new(link.0.load(Ordering::Relaxed))?;
        link.bypass(&node.next[0]);
        Some(Retired(pointer))
    }

    // The link on the chain from `head` that leads to `side` of `node`.
    fn link_to<'g, T, H>(
        guard: &'g ReadGuard,
        head: &'g Link<T, H>,
        node: &Node<T, H>,
        side: usize,
    ) -> Option<&'g Link<T, H>> {
        let mut link = head;
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
    use std::sync::Arc;

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

    type Chain = Link<u32, TestHeap>;

    fn values(guard: &ReadGuard, head: &Chain) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        let mut link = head;
        while let Some(target) = link.load(guard) {
            found.push((**target.node, target.side));
            link = target.next();
        }
        found
    }

    #[test]
    fn a_node_is_on_both_chains_until_it_is_withdrawn() {
        // SAFETY: one thread, and nothing retired is freed before the test ends.
        let (guard, mut writer) = unsafe { (ReadGuard::new(), Writer::new()) };
        let (a, b) = (Chain::null(), Chain::null());
        for (value, heads) in [(1, [&a, &b]), (2, [&b, &a]), (3, [&a, &a])] {
            writer.publish(Owned::new(&TestHeap, value).unwrap(), heads);
        }
        assert_eq!(values(&guard, &a), [(3, 1), (3, 0), (2, 1), (1, 0)]);
        assert_eq!(values(&guard, &b), [(2, 0), (1, 1)]);

        let three = a.load(&guard).unwrap().node;
        assert!(
            writer.withdraw(&guard, three, [&b, &a]).is_none(),
            "not on that chain"
        );
        assert!(writer.withdraw(&guard, three, [&a, &a]).is_some());
        assert!(
            writer.withdraw(&guard, three, [&a, &a]).is_none(),
            "not twice"
        );
        let two = b.load(&guard).unwrap().node;
        assert!(writer.withdraw(&guard, two, [&b, &a]).is_some());
        assert_eq!(values(&guard, &a), [(1, 0)]);
        assert_eq!(values(&guard, &b), [(1, 1)]);
        // A reader that found a node before still goes on from it.
        assert_eq!(values(&guard, &three.next[0]), [(2, 1), (1, 0)]);
        let one = a.load(&guard).unwrap().node;
        drop(writer.withdraw(&guard, one, [&a, &b]));
    }

    #[test]
    fn a_node_that_was_never_published_is_freed() {
        let counted = Arc::new(());
        drop(Owned::new(&TestHeap, counted.clone()));
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}
