// SPDX-License-Identifier: GPL-2.0

//! The flows of one IP version in a network namespace, found by the tuple of either side.

use core::mem::offset_of;
use core::ops::{Deref, Range};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::flow::{Flow, Side};
use super::link::{Chains, Editor, Found, Heap, Link, Lock, Node, Owned, Rcu, ReadGuard, Retired};
use super::tuple::{Address, Tuple};

/// A flow in the table.
pub type Entry<A, R> = Node<Tuple<A>, Flow<R>>;
/// Where a chain begins.
pub type Head<A, R> = Link<Tuple<A>, Flow<R>>;

/// A chained hash table, read under RCU and changed under a lock. What it takes to find a flow comes
/// first, and what changes with every flow last.
#[repr(C)]
pub struct Table<A: Address, R, S, L> {
    seed: A::Seed,
    chains: Chains<Tuple<A>, Flow<R>, S, L>,
    // Changed under the lock only.
    flows: AtomicUsize,
}

impl<A: Address, R, S: Deref<Target = [Head<A, R>]>, L: Lock> Table<A, R, S, L> {
    /// How many of its first bytes are read to find a flow.
    pub const HOT: usize = offset_of!(Self, chains) + Chains::<Tuple<A>, Flow<R>, S, L>::HOT;

    /// A table over `heads`, or `None` if [`Chains::new`] would not take them.
    pub fn new(heads: S, lock: L, seed: A::Seed) -> Option<Self> {
        Some(Self {
            seed,
            chains: Chains::new(heads, lock)?,
            flows: AtomicUsize::new(0),
        })
    }

    /// How many chains there are.
    pub fn chains(&self, guard: &ReadGuard) -> usize {
        self.chains.count(guard)
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// The hash of a tuple in this table.
    #[inline(always)]
    pub fn hash(&self, tuple: &Tuple<A>) -> usize {
        tuple.hash(&self.seed) as usize
    }

    /// The flow to which a packet of `tuple` belongs, and which of its sides it is.
    #[inline(always)]
    pub fn find<'g>(
        &'g self,
        guard: &'g ReadGuard,
        tuple: &Tuple<A>,
    ) -> Option<(&'g Entry<A, R>, Side)> {
        self.find_hashed(guard, self.hash(tuple), tuple)
    }

    /// The same as `find`.
    #[inline(always)]
    pub fn find_quickly<'g>(
        &'g self,
        guard: &'g ReadGuard,
        tuple: &Tuple<A>,
    ) -> Option<(&'g Entry<A, R>, Side)> {
        self.find_hashed(guard, self.hash(tuple), tuple)
    }

    /// As `find`, for a tuple of which the hash is known.
    #[inline(always)]
    pub fn find_hashed<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
    ) -> Option<(&'g Entry<A, R>, Side)> {
        let found = self.chains.find(guard, hash, tuple)?;
        Some((found.node, Side::from_index(found.side)))
    }

    /// The same as `find_hashed`, as the chains have it.
    #[inline(always)]
    pub fn find_by_hash<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
    ) -> Option<Found<'g, Tuple<A>, Flow<R>>> {
        self.chains.find(guard, hash, tuple)
    }

    /// The number of the chain on which `tuple` is looked up.
    pub fn chain_of(&self, guard: &ReadGuard, tuple: &Tuple<A>) -> usize {
        self.chains.chain_of(guard, self.hash(tuple))
    }

    /// Where the chain begins on which `tuple` is looked up.
    #[inline(always)]
    pub fn head<'g>(&'g self, guard: &'g ReadGuard, tuple: &Tuple<A>) -> &'g Head<A, R> {
        self.chains.head_quickly(guard, self.hash(tuple))
    }

    /// Calls `see` with the length of every chain of `range`.
    pub fn lengths(&self, guard: &ReadGuard, range: Range<usize>, see: impl FnMut(usize)) {
        self.chains.lengths(guard, range, see);
    }

    fn hashes(&self, flow: &Entry<A, R>) -> [usize; 2] {
        Side::ALL.map(|side| self.hash(flow.key(side as usize)))
    }

    /// Runs `function` while nobody changes the table. It must not do so itself.
    pub fn hold<T>(&self, function: impl FnOnce() -> T) -> T {
        self.chains.hold(function)
    }

    /// Changes the table while nobody else does.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Edit<'_, '_, A, R, S, L>) -> T) -> T {
        self.chains.edit(|editor| {
            edit(&mut Edit {
                table: self,
                editor,
            })
        })
    }

    /// Exchanges the chains for those of `heads`; see [`Chains::exchange`].
    pub fn exchange<C: Rcu>(&self, heads: S, pause: impl Fn()) -> Option<S> {
        self.chains
            .exchange::<C>(heads, |tuple| self.hash(tuple), pause)
    }
}

/// The right to change a table.
pub struct Edit<'t, 'e, A: Address, R, S, L> {
    table: &'t Table<A, R, S, L>,
    editor: &'t mut Editor<'e, Tuple<A>, Flow<R>, S, L>,
}

impl<A: Address, R, S: Deref<Target = [Head<A, R>]>, L: Lock> Edit<'_, '_, A, R, S, L> {
    /// Adds a flow. Packets of neither side may belong to another.
    pub fn insert<'g, H: Heap<Entry<A, R>>>(
        &mut self,
        guard: &'g ReadGuard,
        flow: Owned<'_, Tuple<A>, Flow<R>, H>,
    ) -> &'g Entry<A, R> {
        let hashes = self.table.hashes(&flow);
        self.insert_hashed(guard, flow, hashes)
    }

    /// The same with the hashes of the flow's sides.
    pub fn insert_hashed<'g, H: Heap<Entry<A, R>>>(
        &mut self,
        guard: &'g ReadGuard,
        flow: Owned<'_, Tuple<A>, Flow<R>, H>,
        hashes: [usize; 2],
    ) -> &'g Entry<A, R> {
        // Under the lock: nobody else writes it.
        let flows = self.table.flows();
        let flows = flows.wrapping_add(1);
        self.table.flows.store(flows, Ordering::Relaxed);
        self.editor.publish(guard, flow, hashes)
    }

    /// Takes a flow out; `None` if it is not in the table.
    pub fn remove<'h, H: Heap<Entry<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &'h H,
        flow: &Entry<A, R>,
    ) -> Option<Retired<'h, Tuple<A>, Flow<R>, H>> {
        let hashes = self.table.hashes(flow);
        let retired = self.editor.withdraw(guard, heap, flow, hashes)?;
        let flows = self.table.flows();
        let flows = flows.wrapping_sub(1);
        self.table.flows.store(flows, Ordering::Relaxed);
        Some(retired)
    }

    /// Takes out the flow of which `rank` says the most, of those on a few chains from the one of
    /// `tuple` on. Whether there was one of which it said something: of sparse chains it looks at
    /// more, but not at all.
    pub fn evict<H: Heap<Entry<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &H,
        tuple: &Tuple<A>,
        rank: impl Fn(&Entry<A, R>) -> Option<u32>,
    ) -> bool {
        const CHAINS: usize = 8;
        const MOST: usize = 256;
        let table = self.table;
        let mask = table.chains(guard).wrapping_sub(1);
        let first = table.chain_of(guard, tuple);
        let mut best: Option<(u32, Tuple<A>)> = None;
        for step in 0..MOST.min(mask.wrapping_add(1)) {
            if step % CHAINS == 0 && best.is_some() {
                break;
            }
            let chain = first.wrapping_add(step) & mask;
            self.editor.walk(guard, chain, |_, found| {
                let rank = rank(found.node);
                if rank > best.map(|(rank, _)| rank) {
                    best = rank.map(|rank| (rank, *found.node.key(Side::Original as usize)));
                }
            });
        }
        let victim = best.and_then(|(_, tuple)| table.find(guard, &tuple));
        victim.is_some_and(|(flow, _)| self.remove(guard, heap, flow).is_some())
    }

    /// Takes out all flows of a chain for which `goes` says so, and tells how many. A flow is
    /// on the chain of its original side.
    pub fn sweep<H: Heap<Entry<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &H,
        chain: usize,
        mut goes: impl FnMut(&Entry<A, R>) -> bool,
    ) -> usize {
        let mut gone = 0;
        let table = self.table;
        self.editor
            .walk(guard, chain, |editor, found: Found<'_, _, _>| {
                if Side::from_index(found.side) == Side::Original && goes(found.node) {
                    let mut edit = Edit { table, editor };
                    if edit.remove(guard, heap, found.node).is_some() {
                        gone = usize::wrapping_add(gone, 1);
                    }
                }
            });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::Owner;
    use super::super::host::{Boxes, Heads, Sections};
    use super::super::tuple::tests::{any_v4, any_v6};
    use super::super::tuple::{Ports, V4};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    type Place<A> = (Tuple<A>, Side);
    type TestTable<A> = Table<A, (), Heads<Tuple<A>, Flow<()>>, Mutex<()>>;

    fn table<A: Address>(chains: usize) -> TestTable<A> {
        Table::new(Heads::new(chains), Mutex::new(()), 1.into()).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, u16),
        Remove(usize),
        Sweep(usize),
        Exchange(u32),
    }

    // Miri takes its time.
    const STEPS: usize = if cfg!(miri) { 20 } else { 60 };

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..12_usize, 0..3_u16).prop_map(|(key, port)| Step::Insert(key, port)),
            2 => (0..12_usize).prop_map(Step::Remove),
            2 => (0..4_usize).prop_map(Step::Sweep),
            1 => (0..6_u32).prop_map(Step::Exchange),
        ]
    }

    fn behaves_like_a_map<A: Address>(keys: &[Tuple<A>], steps: Vec<Step>) {
        const OWNER: Owner = Owner {
            context: 0,
            upstream: 0,
        };
        let table = table::<A>(4);
        // For the tuple of a packet the original tuple of its flow, and its side.
        let mut model: Vec<(Tuple<A>, Place<A>)> = Vec::new();
        let original_of = |flow: &Entry<A, ()>| *flow.key(Side::Original as usize);
        let upstream = A::from_bytes([10; 16]);
        for step in steps {
            Sections::read(|guard| match step {
                Step::Insert(key, port) => {
                    let original = keys[key];
                    let to = original.to(upstream, port);
                    let (both, flow) = Flow::<()>::new(&original, &to, OWNER, 0);
                    let taken = both.iter().any(|tuple| table.find(guard, tuple).is_some());
                    assert_eq!(taken, model.iter().any(|(key, _)| both.contains(key)));
                    if !taken && both[0] != both[1] {
                        let flow = Owned::new(&Boxes, both, flow).unwrap();
                        table.edit(|edit| edit.insert(guard, flow).state());
                        model.push((both[0], (original, Side::Original)));
                        model.push((both[1], (original, Side::Reply)));
                    }
                }
                Step::Remove(key) => {
                    if let Some((flow, Side::Original)) = table.find(guard, &keys[key]) {
                        let removed = || {
                            table
                                .edit(|edit| edit.remove(guard, &Boxes, flow))
                                .is_some()
                        };
                        assert!(removed());
                        assert!(!removed());
                        model.retain(|(_, (original, _))| *original != keys[key]);
                    }
                }
                Step::Sweep(chain) => {
                    let mut gone = Vec::new();
                    let every = |flow: &Entry<A, ()>| {
                        gone.push(original_of(flow));
                        true
                    };
                    table.edit(|edit| edit.sweep(guard, &Boxes, chain, every));
                    model.retain(|(_, (original, _))| !gone.contains(original));
                }
                Step::Exchange(_) => {}
            });
            if let Step::Exchange(bits) = step {
                let old = table.exchange::<Sections>(Heads::new(1 << bits), || {});
                assert!(old.is_some());
                assert_eq!(Sections::read(|guard| table.chains(guard)), 1 << bits);
            }
            Sections::read(|guard| {
                for key in keys {
                    let named = |(flow, side): (&Entry<A, ()>, Side)| (original_of(flow), side);
                    let expected = model.iter().find(|(tuple, _)| tuple == key);
                    let found = table.find(guard, key).map(named);
                    assert_eq!(found, expected.map(|(_, found)| *found));
                    // Nobody exchanges chains now: nothing is overlooked.
                    assert_eq!(table.find_quickly(guard, key).map(named), found);
                }
            });
        }
        Sections::read(|guard| {
            let mut entries = 0;
            table.lengths(guard, 0..table.chains(guard), |length| entries += length);
            assert_eq!(entries, model.len());
            let mut left = 0;
            for chain in 0..table.chains(guard) {
                left += table.edit(|edit| edit.sweep(guard, &Boxes, chain, |_| true));
            }
            assert_eq!(left * 2, model.len());
        });
        Sections::synchronize();
        assert_eq!(table.flows(), 0);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_v4(
            keys in prop::collection::vec(any_v4(), 12),
            steps in prop::collection::vec(any_step(), 0..STEPS),
        ) {
            behaves_like_a_map(&keys, steps);
        }

        #[test]
        fn behaves_like_a_map_v6(
            keys in prop::collection::vec(any_v6(), 12),
            steps in prop::collection::vec(any_step(), 0..STEPS),
        ) {
            behaves_like_a_map(&keys, steps);
        }
    }

    #[test]
    fn the_highest_rank_goes() {
        let owner = Owner {
            context: 0,
            upstream: 0,
        };
        let table = table::<V4>(1);
        let tuple = |port: u16| {
            Tuple::new(
                super::super::abi::proxy::Protocol::Udp,
                V4(1),
                V4(2),
                Ports::new(port, 9),
            )
        };
        for port in 1..6 {
            let to = tuple(port).to(V4(3), 9);
            let (keys, flow) = Flow::<()>::new(&tuple(port), &to, owner, 0);
            let flow = Owned::new(&Boxes, keys, flow).unwrap();
            Sections::read(|guard| table.edit(|edit| edit.insert(guard, flow).state()));
        }
        let rank = |flow: &Entry<V4, ()>| match flow.key(0).ports.source() {
            port @ 2..=4 => Some(u32::from(port)),
            _ => None,
        };
        Sections::read(|guard| {
            let evict = || table.edit(|edit| edit.evict(guard, &Boxes, &tuple(77), rank));
            assert!(evict());
            assert!(table.find(guard, &tuple(4)).is_none());
            assert!(evict() && evict());
            assert!(!evict());
            let left: Vec<u16> = (1..6)
                .filter(|&port| table.find(guard, &tuple(port)).is_some())
                .collect();
            assert_eq!(left, [1, 5]);
            assert_eq!(table.edit(|edit| edit.sweep(guard, &Boxes, 0, |_| true)), 2);
        });
    }

    #[test]
    fn a_flow_and_its_share_of_the_table_fit_into_256_bytes() {
        // At most 4 chains a flow of IPv4, and 2 of IPv6: see where tables are enlarged.
        let head = size_of::<Head<V4, [u64; 2]>>();
        assert_eq!(size_of::<Entry<V4, [u64; 2]>>(), 192);
        assert_eq!(size_of::<Entry<super::super::tuple::V6, [u64; 2]>>(), 240);
        assert!(192 + 4 * head <= 256);
        assert!(240 + 2 * head <= 256);
    }
}
