// SPDX-License-Identifier: GPL-2.0

//! The flows of one IP version in a network namespace, found by the tuple of either direction.

use core::mem::offset_of;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::flow::{Direction, Flow};
use super::link::{
    Buckets, Editor, Found, Heap, Link, Lock, Node, Owned, Rcu, ReadGuard, Unlinked,
};
use super::tuple::{Address, Tuple};

/// A flow in the table.
pub type FlowNode<A, R> = Node<Tuple<A>, Flow<R>>;
/// Where a bucket begins.
pub type Head<A, R> = Link<Tuple<A>, Flow<R>>;

/// At how many buckets [`Edit::early_drop`] looks at once.
pub const NEAR: usize = 8;
/// At how many of a sparse table, which has up to four for each flow.
pub const FAR: usize = 256;

/// A hash table, read under RCU and changed under a lock. What it takes to find a flow comes
/// first, and what changes with every flow last.
#[repr(C)]
pub struct Table<A: Address, R, S, L> {
    seed: A::Seed,
    buckets: Buckets<Tuple<A>, Flow<R>, S, L>,
    // Changed under the lock only.
    flows: AtomicUsize,
}

impl<A: Address, R, S: Deref<Target = [Head<A, R>]>, L: Lock> Table<A, R, S, L> {
    /// How many of its first bytes are read to find a flow.
    pub const HOT: usize = offset_of!(Self, buckets) + Buckets::<Tuple<A>, Flow<R>, S, L>::HOT;

    /// A table over `heads`, or `None` if [`Buckets::new`] would not take them.
    pub fn new(heads: S, lock: L, seed: A::Seed) -> Option<Self> {
        Some(Self {
            seed,
            buckets: Buckets::new(heads, lock)?,
            flows: AtomicUsize::new(0),
        })
    }

    /// How many buckets there are.
    pub fn buckets(&self, guard: &ReadGuard) -> usize {
        self.buckets.count(guard)
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

    /// The flow to which a packet of `tuple` belongs, and in which direction.
    #[inline(always)]
    pub fn lookup<'g>(
        &'g self,
        guard: &'g ReadGuard,
        tuple: &Tuple<A>,
    ) -> Option<(&'g FlowNode<A, R>, Direction)> {
        self.lookup_hashed(guard, self.hash(tuple), tuple)
    }

    /// As `lookup`, for a tuple of which the hash is known.
    #[inline(always)]
    pub fn lookup_hashed<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
    ) -> Option<(&'g FlowNode<A, R>, Direction)> {
        let found = self.buckets.lookup(guard, hash, tuple)?;
        Some((found.node, Direction::from_index(found.direction)))
    }

    /// As `lookup_hashed`, for who keeps what was found.
    #[inline(always)]
    pub fn lookup_entry<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
    ) -> Option<Found<'g, Tuple<A>, Flow<R>>> {
        self.buckets.lookup(guard, hash, tuple)
    }

    /// The number of the bucket in which `tuple` is looked up.
    pub fn bucket_of(&self, guard: &ReadGuard, tuple: &Tuple<A>) -> usize {
        self.buckets.bucket_of(guard, self.hash(tuple))
    }

    /// Where the bucket begins in which `tuple` is looked up.
    #[inline(always)]
    pub fn head<'g>(&'g self, guard: &'g ReadGuard, tuple: &Tuple<A>) -> &'g Head<A, R> {
        self.buckets.head(guard, self.hash(tuple))
    }

    /// How many entries a bucket has: two of each flow are in the table.
    pub fn length(&self, guard: &ReadGuard, bucket: usize) -> usize {
        self.buckets.entries(guard, bucket).count()
    }

    /// The flows whose original direction is in the bucket, in turn. Takes no lock.
    pub fn originals<'g>(
        &'g self,
        guard: &'g ReadGuard,
        bucket: usize,
    ) -> impl Iterator<Item = &'g FlowNode<A, R>> {
        self.buckets
            .entries(guard, bucket)
            .filter(|found| Direction::from_index(found.direction) == Direction::Original)
            .map(|found| found.node)
    }

    /// Whether a flow is in the bucket of its original direction for which `is` says so. Takes no lock.
    pub fn any(
        &self,
        guard: &ReadGuard,
        bucket: usize,
        is: impl FnMut(&FlowNode<A, R>) -> bool,
    ) -> bool {
        self.originals(guard, bucket).any(is)
    }

    fn hashes(&self, flow: &FlowNode<A, R>) -> [usize; 2] {
        Direction::ALL.map(|direction| self.hash(flow.key(direction as usize)))
    }

    /// Runs `function` while nobody changes the table. It must not do so itself.
    pub fn with_lock<T>(&self, function: impl FnOnce() -> T) -> T {
        self.buckets.with_lock(function)
    }

    /// Changes the table while nobody else does.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Edit<'_, '_, A, R, S, L>) -> T) -> T {
        self.buckets.edit(|editor| {
            edit(&mut Edit {
                table: self,
                editor,
            })
        })
    }

    /// Replaces the buckets by those of `heads`; see [`Buckets::resize`].
    pub fn resize<C: Rcu>(&self, heads: S, pause: impl Fn()) -> Option<S> {
        self.buckets
            .resize::<C>(heads, |tuple| self.hash(tuple), pause)
    }
}

/// The right to change a table.
pub struct Edit<'t, 'e, A: Address, R, S, L> {
    table: &'t Table<A, R, S, L>,
    editor: &'t mut Editor<'e, Tuple<A>, Flow<R>, S, L>,
}

impl<A: Address, R, S: Deref<Target = [Head<A, R>]>, L: Lock> Edit<'_, '_, A, R, S, L> {
    /// Adds a flow. Packets of neither direction may belong to another.
    pub fn insert<'g, H: Heap<FlowNode<A, R>>>(
        &mut self,
        guard: &'g ReadGuard,
        flow: Owned<'_, Tuple<A>, Flow<R>, H>,
    ) -> &'g FlowNode<A, R> {
        let hashes = self.table.hashes(&flow);
        self.insert_hashed(guard, flow, hashes)
    }

    /// The same with the hashes of the flow's directions.
    pub fn insert_hashed<'g, H: Heap<FlowNode<A, R>>>(
        &mut self,
        guard: &'g ReadGuard,
        flow: Owned<'_, Tuple<A>, Flow<R>, H>,
        hashes: [usize; 2],
    ) -> &'g FlowNode<A, R> {
        // Under the lock: nobody else writes it.
        let flows = self.table.flows();
        let flows = flows.wrapping_add(1);
        self.table.flows.store(flows, Ordering::Relaxed);
        self.editor.publish(guard, flow, hashes)
    }

    /// Takes a flow out; `None` if it is not in the table.
    pub fn remove<'h, H: Heap<FlowNode<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &'h H,
        flow: &FlowNode<A, R>,
    ) -> Option<Unlinked<'h, Tuple<A>, Flow<R>, H>> {
        let hashes = self.table.hashes(flow);
        let unlinked = self.editor.unlink(guard, heap, flow, hashes)?;
        let flows = self.table.flows();
        let flows = flows.wrapping_sub(1);
        self.table.flows.store(flows, Ordering::Relaxed);
        Some(unlinked)
    }

    /// Takes out the flow of which `rank` says the most, of those in a few buckets from the one of
    /// `tuple` on (conntrack's early_drop()). Whether there was one of which it said something: of sparse buckets it looks at
    /// more, but not at more than `most`.
    pub fn early_drop<H: Heap<FlowNode<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &H,
        tuple: &Tuple<A>,
        most: usize,
        rank: impl Fn(&FlowNode<A, R>) -> Option<u32>,
    ) -> bool {
        let table = self.table;
        let mask = table.buckets(guard).wrapping_sub(1);
        let first = table.bucket_of(guard, tuple);
        let mut best: Option<(u32, Tuple<A>)> = None;
        for step in 0..most.min(mask.wrapping_add(1)) {
            if step % NEAR == 0 && best.is_some() {
                break;
            }
            let bucket = first.wrapping_add(step) & mask;
            self.editor.walk(guard, bucket, |_, found| {
                let rank = rank(found.node);
                if rank > best.map(|(rank, _)| rank) {
                    best = rank.map(|rank| (rank, *found.node.key(Direction::Original as usize)));
                }
            });
        }
        let victim = best.and_then(|(_, tuple)| table.lookup(guard, &tuple));
        victim.is_some_and(|(flow, _)| self.remove(guard, heap, flow).is_some())
    }

    /// Takes out all flows of a bucket for which `goes` says so, and tells how many. A flow is
    /// in the bucket of its original direction.
    pub fn sweep<H: Heap<FlowNode<A, R>>>(
        &mut self,
        guard: &ReadGuard,
        heap: &H,
        bucket: usize,
        mut goes: impl FnMut(&FlowNode<A, R>) -> bool,
    ) -> usize {
        let mut gone = 0;
        let table = self.table;
        self.editor
            .walk(guard, bucket, |editor, found: Found<'_, _, _>| {
                if Direction::from_index(found.direction) == Direction::Original && goes(found.node)
                {
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

    type Place<A> = (Tuple<A>, Direction);
    type TestTable<A> = Table<A, (), Heads<Tuple<A>, Flow<()>>, Mutex<()>>;

    fn table<A: Address>(buckets: usize) -> TestTable<A> {
        Table::new(Heads::new(buckets), Mutex::new(()), 1.into()).unwrap()
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
            upstream: Owner::NOBODY.upstream,
        };
        let table = table::<A>(4);
        // For the tuple of a packet the original tuple of its flow, and its direction.
        let mut model: Vec<(Tuple<A>, Place<A>)> = Vec::new();
        let original_of = |flow: &FlowNode<A, ()>| *flow.key(Direction::Original as usize);
        let upstream = A::from_bytes([10; 16]);
        for step in steps {
            Sections::read(|guard| match step {
                Step::Insert(key, port) => {
                    let original = keys[key];
                    let to = original.to(upstream, port);
                    let (both, flow) = Flow::<()>::new(&original, &to, OWNER, 0);
                    let taken = both
                        .iter()
                        .any(|tuple| table.lookup(guard, tuple).is_some());
                    assert_eq!(taken, model.iter().any(|(key, _)| both.contains(key)));
                    if !taken && both[0] != both[1] {
                        let flow = Owned::new(&Boxes, both, flow).unwrap();
                        table.edit(|edit| edit.insert(guard, flow).state());
                        model.push((both[0], (original, Direction::Original)));
                        model.push((both[1], (original, Direction::Reply)));
                    }
                }
                Step::Remove(key) => {
                    if let Some((flow, Direction::Original)) = table.lookup(guard, &keys[key]) {
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
                Step::Sweep(bucket) => {
                    let mut gone = Vec::new();
                    let every = |flow: &FlowNode<A, ()>| {
                        gone.push(original_of(flow));
                        true
                    };
                    let any = table.any(guard, bucket, |_| true);
                    assert!(!table.any(guard, bucket, |_| false));
                    table.edit(|edit| edit.sweep(guard, &Boxes, bucket, every));
                    assert_eq!(any, !gone.is_empty());
                    assert!(!table.any(guard, bucket, |_| true));
                    model.retain(|(_, (original, _))| !gone.contains(original));
                }
                Step::Exchange(_) => {}
            });
            if let Step::Exchange(bits) = step {
                let old = table.resize::<Sections>(Heads::new(1 << bits), || {});
                assert!(old.is_some());
                assert_eq!(Sections::read(|guard| table.buckets(guard)), 1 << bits);
            }
            Sections::read(|guard| {
                for key in keys {
                    let named = |(flow, direction): (&FlowNode<A, ()>, Direction)| {
                        (original_of(flow), direction)
                    };
                    let expected = model.iter().find(|(tuple, _)| tuple == key);
                    let found = table.lookup(guard, key).map(named);
                    assert_eq!(found, expected.map(|(_, found)| *found));
                }
            });
        }
        Sections::read(|guard| {
            let buckets = 0..table.buckets(guard);
            let entries: usize = buckets.map(|bucket| table.length(guard, bucket)).sum();
            assert_eq!(entries, model.len());
            let mut left = 0;
            for bucket in 0..table.buckets(guard) {
                left += table.edit(|edit| edit.sweep(guard, &Boxes, bucket, |_| true));
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
            upstream: Owner::NOBODY.upstream,
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
        let rank = |flow: &FlowNode<V4, ()>| match flow.key(0).ports.source() {
            port @ 2..=4 => Some(u32::from(port)),
            _ => None,
        };
        Sections::read(|guard| {
            let evict = || table.edit(|edit| edit.early_drop(guard, &Boxes, &tuple(77), FAR, rank));
            assert!(evict());
            assert!(table.lookup(guard, &tuple(4)).is_none());
            assert!(evict() && evict());
            assert!(!evict());
            let left: Vec<u16> = (1..6)
                .filter(|&port| table.lookup(guard, &tuple(port)).is_some())
                .collect();
            assert_eq!(left, [1, 5]);
            assert_eq!(table.edit(|edit| edit.sweep(guard, &Boxes, 0, |_| true)), 2);
        });
    }

    #[test]
    fn how_far_it_is_looked_for_a_flow_to_drop() {
        // Far enough for a table that is a quarter full; not so far for each of a flood.
        for (distance, most, found) in [
            (0, 8, true),
            (7, 8, true),
            (8, 8, false),
            (8, 256, true),
            (255, 256, true),
            (256, 256, false),
        ] {
            let table = table::<V4>(512);
            let tuple = |port| {
                let ports = Ports::new(port, 9);
                Tuple::new(super::super::abi::proxy::Protocol::Udp, V4(1), V4(2), ports)
            };
            Sections::read(|guard| {
                let ports = 1..=u16::MAX;
                let both = ports.clone().find_map(|port| {
                    let to = tuple(port).to(V4(3), 9);
                    let (keys, flow) = Flow::<()>::new(&tuple(port), &to, Owner::NOBODY, 0);
                    // Each direction is in some bucket: none of the second may be nearer.
                    let [first, second] = keys.map(|key| table.bucket_of(guard, &key));
                    let start = first.wrapping_sub(distance) & 511;
                    let from = ports
                        .clone()
                        .find(|&from| table.bucket_of(guard, &tuple(from)) == start)?;
                    let other = second.wrapping_sub(start) & 511;
                    (other > 256).then_some((from, keys, flow))
                });
                let (from, keys, flow) = both.unwrap();
                let flow = Owned::new(&Boxes, keys, flow).unwrap();
                table.edit(|edit| edit.insert(guard, flow).state());
                let dropped = table
                    .edit(|edit| edit.early_drop(guard, &Boxes, &tuple(from), most, |_| Some(1)));
                assert_eq!(dropped, found, "{distance} of {most}");
                table.edit(|edit| {
                    (0..512).for_each(|bucket| {
                        edit.sweep(guard, &Boxes, bucket, |_| true);
                    });
                });
            });
            Sections::synchronize();
        }
    }

    #[test]
    fn a_flow_and_its_share_of_the_table_fit_into_256_bytes() {
        // At most 4 buckets a flow of IPv4, and 2 of IPv6: see where tables are enlarged.
        let head = size_of::<Head<V4, [u64; 2]>>();
        assert_eq!(size_of::<FlowNode<V4, [u64; 2]>>(), 192);
        assert_eq!(
            size_of::<FlowNode<super::super::tuple::V6, [u64; 2]>>(),
            240
        );
        assert!(192 + 4 * head <= 256);
        assert!(240 + 2 * head <= 256);
    }
}
