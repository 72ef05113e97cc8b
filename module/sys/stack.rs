// SPDX-License-Identifier: GPL-2.0

//! Nodes that are on no chain, one on top of the other: those that wait for their last readers,
//! and those that wait to be used again. They take no memory but the nodes' own.
//!
//! Like `link.rs`, this file knows no kernel.

use core::ptr::NonNull;

use super::link::Node;

/// A value with 48 bits for whoever keeps its memory.
pub trait Spare: Send + Sync {
    /// What was set last, of 48 bits.
    fn spare(&self) -> u64;
    /// Sets them.
    fn set_spare(&self, bits: u64);
}

const BITS: u32 = 48;
/// Nodes are aligned to so many bits at least.
const ALIGN: u32 = 4;

/// Nodes, the last of which is on top.
///
/// # Invariants
///
/// Each node is `base` and at most 2^51 bytes apart, and in this stack only.
pub struct Stack<K, T> {
    top: Option<NonNull<Node<K, T>>>,
    count: usize,
    // What pointers are counted from: 48 bits hold the distance, but not every address.
    base: usize,
}

// SAFETY: it owns its nodes, but for what readers still see of them.
unsafe impl<K: Send + Sync, T: Spare> Send for Stack<K, T> {}

impl<K, T: Spare> Stack<K, T> {
    /// An empty one for nodes not too far from `base`, where there is none; see [`Self::reaches`].
    pub const fn new(base: usize) -> Self {
        Self {
            top: None,
            count: 0,
            base,
        }
    }

    /// How many nodes there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    // How far a node is, in the unit of its alignment.
    fn distance(&self, node: NonNull<Node<K, T>>) -> i64 {
        node.as_ptr()
            .expose_provenance()
            .wrapping_sub(self.base)
            .cast_signed() as i64
            >> ALIGN
    }

    /// Whether `node` is one that [`Self::push`] takes.
    pub fn reaches(&self, node: NonNull<Node<K, T>>) -> bool {
        let distance = self.distance(node);
        let kept = distance << (64 - BITS) >> (64 - BITS);
        let aligned = (node.addr().get() ^ self.base).trailing_zeros() >= ALIGN;
        distance != 0 && distance == kept && aligned
    }

    /// Puts a node on top.
    ///
    /// # Safety
    ///
    /// This stack reaches the node, which was made by [`Node::blank`] at least, for a `T` of which
    /// all bytes zero are a value; it is on no chain and in no stack, and nobody else changes it.
    pub unsafe fn push(&mut self, node: NonNull<Node<K, T>>) {
        let below = self.top.map_or(0, |top| self.distance(top));
        // SAFETY: the node is valid, readers only share it, and the bits are the stack's.
        unsafe { node.as_ref() }.set_spare(below as u64 & ((1 << BITS) - 1));
        self.top = Some(node);
        self.count = self.count.wrapping_add(1);
    }

    /// Takes the node from the top.
    pub fn pop(&mut self) -> Option<NonNull<Node<K, T>>> {
        let node = self.top?;
        // SAFETY: the invariant: nodes in the stack are valid.
        let bits = unsafe { node.as_ref() }.spare();
        let distance = (bits << (64 - BITS)).cast_signed() >> (64 - BITS);
        let below = self.base.wrapping_add_signed((distance << ALIGN) as isize);
        self.top = match distance {
            0 => None,
            _ => NonNull::new(core::ptr::with_exposed_provenance_mut(below)),
        };
        self.count = self.count.wrapping_sub(1);
        Some(node)
    }

    /// Takes all of them.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let empty = Self::new(self.base);
        core::mem::replace(self, empty)
    }

    /// Moves up to `count` nodes from the top of `other`, which has the same base, to that of this.
    pub fn move_from(&mut self, other: &mut Self, count: usize) {
        for _ in 0..count {
            let Some(node) = other.pop() else {
                return;
            };
            // SAFETY: it was in a stack a moment ago, with all that is asked of it.
            unsafe { self.push(node) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Boxes;
    use super::super::link::Heap;
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    // Nodes have to be aligned so far.
    #[derive(Default)]
    #[repr(align(16))]
    struct Value(AtomicU64);

    impl Spare for Value {
        fn spare(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn set_spare(&self, bits: u64) {
            assert!(bits < 1 << BITS);
            self.0.store(bits, Ordering::Relaxed);
        }
    }

    type TestNode = Node<[u64; 2], Value>;

    fn node() -> NonNull<TestNode> {
        Boxes.take().unwrap()
    }

    fn free(node: NonNull<TestNode>) {
        // SAFETY: from `node`, and in no stack any more.
        unsafe { Boxes.give_back(node) };
    }

    #[test]
    fn the_last_comes_first() {
        let nodes: Vec<_> = (0..5).map(|_| node()).collect();
        let anchor = Box::new([0_u64; 2]);
        let base = core::ptr::from_ref(&*anchor).addr() & !15;
        let mut stack = Stack::new(base);
        for &node in &nodes {
            assert!(stack.reaches(node));
            // SAFETY: made for this, and pushed once.
            unsafe { stack.push(node) };
        }
        let mut other = Stack::new(base);
        other.move_from(&mut stack, 2);
        assert_eq!((stack.count(), other.count()), (3, 2));
        assert_eq!(other.pop(), Some(nodes[3]));
        other.move_from(&mut stack, 9);
        assert_eq!((stack.count(), other.count()), (0, 4));
        assert!(stack.pop().is_none());
        let mut all = other.take();
        assert!(other.pop().is_none() && other.count() == 0);
        let order: Vec<_> = core::iter::from_fn(|| all.pop()).collect();
        assert_eq!(order, [nodes[0], nodes[1], nodes[2], nodes[4]]);
        nodes.into_iter().for_each(free);
    }

    #[test]
    fn what_is_too_far_is_not_reached() {
        let node = node();
        let address = node.addr().get();
        let reached = |base: usize| Stack::new(base).reaches(node);
        let far = 1_usize << 51;
        assert!(reached(address.wrapping_add(far)) && reached(address.wrapping_sub(far - 16)));
        assert!(!reached(address.wrapping_add(far + 16)) && !reached(address.wrapping_sub(far)));
        assert!(!reached(address) && !reached(address + 8));
        free(node);
    }
}
