// SPDX-License-Identifier: GPL-2.0

//! Stacks of nodes that are in no bucket: those in limbo, and idle ones. They take no memory but the nodes' own.
//!
//! Like `link.rs`, this file does not depend on the kernel.

use core::ptr::NonNull;

use super::link::Node;

/// A value with room for a pointer while its node is in a stack: the free pointer of SLUB.
pub trait FreePointer: Send + Sync {
    /// What was set last.
    fn free_pointer(&self) -> u64;
    /// Sets it.
    fn set_free_pointer(&self, bits: u64);
}

/// A stack of nodes.
///
/// Each node has the whole pointer to the next, as a number, in several fields of its value. All bits are needed:
/// a tag-based KASAN compares a pointer's tag at each access, and with five levels of page tables no bit of an
/// address is always the same.
///
/// # Invariants
///
/// Each node is in this stack only.
pub struct Stack<K, T> {
    top: Option<NonNull<Node<K, T>>>,
    count: usize,
}

// SAFETY: it owns its nodes, but for what readers still see of them.
unsafe impl<K: Send + Sync, T: FreePointer> Send for Stack<K, T> {}

impl<K, T: FreePointer> Stack<K, T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            top: None,
            count: 0,
        }
    }

    /// How many nodes there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Puts a node on top.
    ///
    /// # Safety
    ///
    /// The node was made by [`Node::init`] at least, for a `T` of which all bytes zero are a value; it
    /// is in no bucket and in no stack, and only the caller changes it.
    pub unsafe fn push(&mut self, node: NonNull<Node<K, T>>) {
        let below = self.top.map_or(0, |top| top.as_ptr().expose_provenance());
        // SAFETY: the node is valid, readers only share it, and the bits are the stack's.
        unsafe { node.as_ref() }.set_free_pointer(below as u64);
        self.top = Some(node);
        self.count = self.count.wrapping_add(1);
    }

    /// Takes the node from the top.
    pub fn pop(&mut self) -> Option<NonNull<Node<K, T>>> {
        let node = self.top?;
        // SAFETY: the invariant: nodes in the stack are valid.
        let below = unsafe { node.as_ref() }.free_pointer() as usize;
        self.top = NonNull::new(core::ptr::with_exposed_provenance_mut(below));
        self.count = self.count.wrapping_sub(1);
        Some(node)
    }

    /// Takes all of them.
    #[must_use]
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// Moves up to `count` nodes from the top of `other` to that of this.
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

impl<K, T: FreePointer> Default for Stack<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Boxes;
    use super::super::link::Heap;
    use super::super::upstream::UpstreamNumber;
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Value(AtomicU64);

    impl FreePointer for Value {
        fn free_pointer(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn set_free_pointer(&self, bits: u64) {
            self.0.store(bits, Ordering::Relaxed);
        }
    }

    type TestNode = Node<[u64; 2], Value>;

    fn node() -> NonNull<TestNode> {
        Boxes.alloc().unwrap()
    }

    fn free(node: NonNull<TestNode>) {
        // SAFETY: from `node`, and in no stack any more.
        unsafe { Boxes.free(node) };
    }

    #[test]
    fn the_last_comes_first() {
        let nodes: Vec<_> = (0..5).map(|_| node()).collect();
        let mut stack = Stack::new();
        for &node in &nodes {
            // SAFETY: made for this, and pushed once.
            unsafe { stack.push(node) };
        }
        let mut other = Stack::new();
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

    // A flow has room for the whole pointer.
    #[test]
    fn a_flow_keeps_every_bit_of_a_pointer() {
        use super::super::flow::{Flow, Owner};
        use super::super::tuple::{Ports, Tuple, V4};

        let tuple = Tuple::new(
            super::super::abi::proxy::Protocol::Udp,
            V4(1),
            V4(2),
            Ports::new(3, 4),
        );
        let owner = Owner {
            context: 0x1234_5678,
            upstream: UpstreamNumber {
                group: 9,
                member: 8,
            },
        };
        let (_, flow) = Flow::<()>::new(&tuple, &tuple.to(V4(5), 6), owner, 0);
        for bit in 0..64 {
            // With KASAN's software tags, kernel pointers begin with a tag: 0xf3ff…
            for pointer in [1 << bit, !(1 << bit), 0xf3ff_8000_dead_b000 ^ 1 << bit] {
                flow.set_free_pointer(pointer);
                assert_eq!(flow.free_pointer(), pointer);
            }
        }
        assert_eq!(flow.owner(), owner);
    }
}
