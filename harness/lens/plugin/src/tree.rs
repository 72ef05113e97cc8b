// SPDX-License-Identifier: MIT OR Apache-2.0

//! The call tree.

use rustc_hash::FxHashMap;

use mutexlab_lens_recording::recording::{Entry, Node};

/// A node's place in the tree.
pub type NodeId = u32;

/// Functions, by the way that they were called.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    children: FxHashMap<(NodeId, Entry, u64), NodeId>,
}

impl Default for Tree {
    fn default() -> Self {
        let node = |entry| Node {
            parent: Self::ROOT,
            entry,
            address: 0,
            calls: 0,
        };
        Self {
            nodes: vec![node(Entry::Unseen), node(Entry::User)],
            children: FxHashMap::default(),
        }
    }
}

impl Tree {
    /// The root, which is its own parent.
    pub const ROOT: NodeId = 0;
    /// All of user space, a child of the root.
    pub const USER: NodeId = 1;

    /// The child of `parent` that was entered there.
    pub fn child(&mut self, parent: NodeId, entry: Entry, address: u64) -> NodeId {
        *self
            .children
            .entry((parent, entry, address))
            .or_insert_with(|| {
                self.nodes.push(Node {
                    parent,
                    entry,
                    address,
                    calls: 0,
                });
                (self.nodes.len() - 1) as NodeId
            })
    }

    /// The parent of a node.
    pub fn parent(&self, node: NodeId) -> NodeId {
        self.nodes[node as usize].parent
    }

    /// Counts a call of a node.
    pub fn called(&mut self, node: NodeId) {
        self.nodes[node as usize].calls += 1;
    }

    /// Counts calls anew.
    pub fn begin(&mut self) {
        for node in &mut self.nodes {
            node.calls = 0;
        }
    }

    /// The nodes, parents before their children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
