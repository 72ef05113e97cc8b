// SPDX-License-Identifier: GPL-2.0

//! The flows of a network namespace, found by the tuple of either side.

use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::flow::{Flow, Side};
use super::hash::tuple_hash;
use super::link::{Chains, Editor, Heap, Link, Lock, Node, Owned, ReadGuard, Retired};
use super::tuple::Tuple;

/// A chained hash table, read under RCU and changed under a lock.
pub struct Table<H, S, L> {
    chains: Chains<Flow, H, S, L>,
    seed: u32,
    // Changed under the lock only.
    flows: AtomicUsize,
}

/// Where a chain begins.
pub type Head<H> = Link<Flow, H>;

impl<H: Heap, S: Deref<Target = [Head<H>]>, L: Lock> Table<H, S, L> {
    /// A table over `heads`, or `None` if their number is not a power of two.
    pub fn new(heads: S, lock: L, seed: u32) -> Option<Self> {
        Some(Self {
            chains: Chains::new(heads, lock)?,
            seed,
            flows: AtomicUsize::new(0),
        })
    }

    /// How many chains there are.
    pub fn chains(&self) -> usize {
        self.chains.count()
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn chain(&self, tuple: &Tuple) -> usize {
        tuple_hash(tuple, self.seed) as usize
    }

    /// The flow to which a packet of `tuple` belongs, and which of its sides it is.
    #[inline(always)]
    pub fn find<'g>(
        &self,
        guard: &'g ReadGuard,
        tuple: &Tuple,
    ) -> Option<(&'g Node<Flow, H>, Side)> {
        let mut target = self.chains.first(guard, self.chain(tuple))?;
        loop {
            let side = Side::from_index(target.side);
            if target.node.tuple(side) == tuple {
                return Some((target.node, side));
            }
            target = target.next().load(guard)?;
        }
    }

    fn chains_of(&self, flow: &Flow) -> [usize; 2] {
        [Side::Original, Side::Reply].map(|side| self.chain(flow.tuple(side)))
    }

    /// Changes the table while nobody else does.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Edit<'_, '_, H, S, L>) -> R) -> R {
        self.chains.edit(|editor| {
            edit(&mut Edit {
                table: self,
                editor,
            })
        })
    }
}

/// The right to change a table.
pub struct Edit<'t, 'e, H, S, L> {
    table: &'t Table<H, S, L>,
    editor: &'t mut Editor<'e, Flow, H>,
}

impl<H: Heap, S: Deref<Target = [Head<H>]>, L: Lock> Edit<'_, '_, H, S, L> {
    /// Adds a flow, unless a packet of one of its sides already belongs to another; then that
    /// side is returned.
    pub fn insert(&mut self, guard: &ReadGuard, flow: Owned<Flow, H>) -> Result<(), Side> {
        for side in [Side::Original, Side::Reply] {
            if self.table.find(guard, flow.tuple(side)).is_some() {
                return Err(side);
            }
        }
        let chains = self.table.chains_of(&flow);
        self.editor.publish(flow, chains);
        self.table.flows.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a flow out; `None` if it is not in the table.
    pub fn remove(&mut self, guard: &ReadGuard, flow: &Node<Flow, H>) -> Option<Retired<Flow, H>> {
        let chains = self.table.chains_of(flow);
        let retired = self.editor.withdraw(guard, flow, chains)?;
        self.table.flows.fetch_sub(1, Ordering::Relaxed);
        Some(retired)
    }

    /// Takes out all flows of a chain for which `goes` says so, and tells how many. A flow is
    /// on the chain of its original side.
    pub fn sweep(
        &mut self,
        guard: &ReadGuard,
        chain: usize,
        mut goes: impl FnMut(&Flow) -> bool,
    ) -> usize {
        let mut gone = 0;
        let mut next = self.table.chains.first(guard, chain);
        while let Some(target) = next {
            // A withdrawn node's own links stay as they were: the walk goes on from it.
            next = target.next().load(guard);
            let original = Side::from_index(target.side) == Side::Original;
            if original && goes(target.node) && self.remove(guard, target.node).is_some() {
                gone = usize::wrapping_add(gone, 1);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::link::tests::{guard, TestHeap};
    use super::super::tuple::tests::any_tuple;
    use super::super::tuple::v4;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    fn table(chains: usize) -> Table<TestHeap, Vec<Head<TestHeap>>, Mutex<()>> {
        let heads = (0..chains).map(|_| Head::null()).collect();
        Table::new(heads, Mutex::new(()), 1).unwrap()
    }

    fn upstream(original: Tuple, port: u16) -> Tuple {
        original.to(v4(0x0a00_0001), port)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, u16),
        Remove(usize),
        Sweep(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..12_usize, 0..3_u16).prop_map(|(key, port)| Step::Insert(key, port)),
            1 => (0..12_usize).prop_map(Step::Remove),
            1 => (0..4_usize).prop_map(Step::Sweep),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            keys in prop::collection::vec(any_tuple(), 12),
            steps in prop::collection::vec(any_step(), 0..60),
        ) {
            let table = table(4);
            let guard = guard();
            // Tuple of a packet to the original tuple of its flow and its side.
            let mut model: HashMap<String, (String, Side)> = HashMap::new();
            let name = |tuple: &Tuple| format!("{tuple:?}");
            for step in steps {
                match step {
                    Step::Insert(key, port) => {
                        let original = keys[key];
                        let flow = Flow::new(original, upstream(original, port), 0, 0);
                        let reply = *flow.tuple(Side::Reply);
                        let taken = [(original, Side::Original), (reply, Side::Reply)]
                            .into_iter()
                            .find(|(tuple, _)| model.contains_key(&name(tuple)));
                        let flow = Owned::new(&TestHeap, flow).unwrap();
                        match (table.edit(|edit| edit.insert(&guard, flow)), taken) {
                            (Ok(()), None) => {
                                model.insert(name(&original), (name(&original), Side::Original));
                                model.insert(name(&reply), (name(&original), Side::Reply));
                            }
                            (Err(side), Some((_, expected))) => prop_assert_eq!(side, expected),
                            (got, expected) => prop_assert!(false, "{:?} {:?}", got, expected),
                        }
                    }
                    Step::Remove(key) => {
                        if let Some((flow, Side::Original)) = table.find(&guard, &keys[key]) {
                            prop_assert!(table.edit(|edit| edit.remove(&guard, flow)).is_some());
                            prop_assert!(table.edit(|edit| edit.remove(&guard, flow)).is_none());
                            model.retain(|_, (original, _)| *original != name(&keys[key]));
                        }
                    }
                    Step::Sweep(chain) => {
                        let mut gone = Vec::new();
                        let every = |flow: &Flow| {
                            gone.push(name(flow.tuple(Side::Original)));
                            true
                        };
                        table.edit(|edit| edit.sweep(&guard, chain, every));
                        model.retain(|_, (original, _)| !gone.contains(original));
                    }
                }
                for key in &keys {
                    let found = table.find(&guard, key).map(|(flow, side)| {
                        (name(flow.tuple(Side::Original)), side)
                    });
                    prop_assert_eq!(found.as_ref(), model.get(&name(key)));
                }
            }
            let mut left = 0;
            for chain in 0..table.chains() {
                left += table.edit(|edit| edit.sweep(&guard, chain, |_| true));
            }
            prop_assert_eq!(left * 2, model.len());
            prop_assert_eq!(table.flows(), 0);
        }
    }
}
