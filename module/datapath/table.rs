// SPDX-License-Identifier: GPL-2.0

//! The flows of a network namespace, found by the tuple of either side.

use core::ops::Deref;

use super::flow::{Flow, Side};
use super::hash::tuple_hash;
use super::link::{Heap, Link, Node, Owned, ReadGuard, Retired, Writer};
use super::tuple::Tuple;

/// A chained hash table. Readers follow chains under RCU; whoever holds the [`Writer`] changes
/// them. `S` holds the heads of the chains, a power of two of them.
pub struct Table<H, S> {
    heads: S,
    seed: u32,
    marker: core::marker::PhantomData<H>,
}

/// A head of a chain.
pub type Head<H> = Link<Flow, H>;

impl<H: Heap, S: Deref<Target = [Head<H>]>> Table<H, S> {
    /// A table over `heads`, or `None` if their number is not a power of two.
    pub fn new(heads: S, seed: u32) -> Option<Self> {
        heads.len().is_power_of_two().then_some(Self {
            heads,
            seed,
            marker: core::marker::PhantomData,
        })
    }

    /// How many chains there are.
    pub fn chains(&self) -> usize {
        self.heads.len()
    }

    #[inline(always)]
    fn head(&self, tuple: &Tuple) -> Option<&Head<H>> {
        let index = tuple_hash(tuple, self.seed) as usize & self.heads.len().wrapping_sub(1);
        self.heads.get(index)
    }

    /// The flow to which a packet of `tuple` belongs, and which of its sides it is.
    #[inline(always)]
    pub fn find<'g>(
        &self,
        guard: &'g ReadGuard,
        tuple: &Tuple,
    ) -> Option<(&'g Node<Flow, H>, Side)> {
        let mut target = self.head(tuple)?.load(guard)?;
        loop {
            let side = Side::from_index(target.side);
            if target.node.tuple(side) == tuple {
                return Some((target.node, side));
            }
            target = target.next().load(guard)?;
        }
    }

    fn heads_of(&self, flow: &Flow) -> Option<[&Head<H>; 2]> {
        let original = self.head(flow.tuple(Side::Original))?;
        let reply = self.head(flow.tuple(Side::Reply))?;
        Some([original, reply])
    }

    /// Adds a flow, unless a packet of one of its sides already belongs to another; then that
    /// side is returned.
    pub fn insert(
        &self,
        writer: &mut Writer,
        guard: &ReadGuard,
        flow: Owned<Flow, H>,
    ) -> Result<(), Side> {
        for side in [Side::Original, Side::Reply] {
            if self.find(guard, flow.tuple(side)).is_some() {
                return Err(side);
            }
        }
        let heads = self.heads_of(&flow).ok_or(Side::Original)?;
        writer.publish(flow, heads);
        Ok(())
    }

    /// Takes a flow out; `None` if it is not in the table.
    pub fn remove(
        &self,
        writer: &mut Writer,
        guard: &ReadGuard,
        flow: &Node<Flow, H>,
    ) -> Option<Retired<Flow, H>> {
        writer.withdraw(guard, flow, self.heads_of(flow)?)
    }

    /// Takes out all flows of the chain `chain` for which `goes` says so, and hands them to
    /// `retired`. A flow is on the chain of its original side.
    pub fn sweep(
        &self,
        writer: &mut Writer,
        guard: &ReadGuard,
        chain: usize,
        mut goes: impl FnMut(&Flow) -> bool,
        mut retired: impl FnMut(Retired<Flow, H>),
    ) {
        let mut next = self.heads.get(chain);
        while let Some(target) = next.and_then(|link| link.load(guard)) {
            // A withdrawn node's own links stay as they were: the walk goes on from it.
            next = Some(target.next());
            if Side::from_index(target.side) == Side::Original && goes(target.node) {
                self.remove(writer, guard, target.node)
                    .into_iter()
                    .for_each(&mut retired);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::link::tests::TestHeap;
    use super::super::tuple::tests::any_tuple;
    use super::super::tuple::v4;
    use super::*;
    use proptest::prelude::*;

    type TestTable = Table<TestHeap, Vec<Head<TestHeap>>>;

    fn table(chains: usize) -> TestTable {
        let heads = (0..chains).map(|_| Head::null()).collect();
        Table::new(heads, 1).unwrap()
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
            // SAFETY: this test's table has no other writer, and nothing retired is freed.
            let (guard, mut writer) = unsafe { (ReadGuard::new(), Writer::new()) };
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
                        match (table.insert(&mut writer, &guard, flow), taken) {
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
                            prop_assert!(table.remove(&mut writer, &guard, flow).is_some());
                            prop_assert!(table.remove(&mut writer, &guard, flow).is_none());
                            model.retain(|_, (original, _)| *original != name(&keys[key]));
                        }
                    }
                    Step::Sweep(chain) => {
                        let mut gone = Vec::new();
                        let every = |flow: &Flow| {
                            gone.push(name(flow.tuple(Side::Original)));
                            true
                        };
                        table.sweep(&mut writer, &guard, chain, every, drop);
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
                table.sweep(&mut writer, &guard, chain, |_| true, |_| left += 1);
            }
            prop_assert_eq!(left * 2, model.len());
        }
    }

    #[test]
    fn only_powers_of_two_are_taken() {
        for chains in [0, 3, 12] {
            let heads: Vec<Head<TestHeap>> = (0..chains).map(|_| Head::null()).collect();
            assert!(Table::new(heads, 0).is_none(), "{chains}");
        }
    }
}
