// SPDX-License-Identifier: GPL-2.0

//! The flows of one IP version in a namespace.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::datapath::flow::{Direction, Flow, Owner};
use crate::datapath::hash::Secret;
use crate::datapath::link::{Owned, ReadGuard};
use crate::datapath::ports::source_ports;
use crate::datapath::rules::Choice;
use crate::datapath::table::{Edit, Head, Table, FAR, NEAR};
use crate::datapath::tcp::Opening;
use crate::datapath::tuple::{Address, Tuple};
use crate::datapath::walk::{Step, Walk};
use crate::instance::{Counter, Instance};
use crate::memory::{FlowNode, FlowPool, Memory, Stored};
use crate::parameters;
use crate::sys::cache::Cache;
use crate::sys::lock::{self, SpinLock};
use crate::sys::random::{random, random_word};
use crate::sys::rcu;
use crate::sys::route::CachedRoute;
use crate::sys::task;
use crate::sys::time;
use crate::sys::window::Window;

type Heads<A> = KVVec<Head<A, CachedRoute>>;

/// Why there is no flow for a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    NoMemory,
    TableFull,
    NoPort,
}

/// A flow for a packet that belonged to none.
pub(crate) struct Created<'g, A: Stored> {
    pub(crate) flow: &'g FlowNode<A>,
    /// Which of its directions the packet is.
    pub(crate) direction: Direction,
    /// Whether it was made for this packet.
    pub(crate) is_new: bool,
}

// Where a new flow's packets go, and their answers' hash.
struct UniqueTuple<A: Stored> {
    // The hash of answers.
    reply: usize,
    // None: they pass as they are.
    there: Option<(Tuple<A>, Owner)>,
}

/// The most buckets of a table.
const MAX_BUCKETS: usize = 1 << 21;
/// How many buckets are looked at between two calls of `task::pause`.
pub(crate) const BUCKETS_AT_ONCE: usize = 64;
/// How many heads of buckets are made between two calls.
const HEADS_AT_ONCE: usize = 4096;

/// How many ports are tried for a while after all were found taken.
const FEW_PORTS: usize = 64;

/// The table, and the memory that its flows are in.
#[repr(C)]
pub(crate) struct Flows<A: Stored> {
    table: Table<A, CachedRoute, Heads<A>, SpinLock>,
    cache: Cache<Tuple<A>, Flow<CachedRoute>>,
    memory: Arc<Memory>,
    // When all source ports were last found taken, in jiffies.
    out_of_ports: AtomicU32,
    // When nothing was last found that another flow may take the place of.
    nothing_to_drop: AtomicU32,
}

fn elapsed(since: &AtomicU32, now: u32) -> u32 {
    now.wrapping_sub(since.load(Ordering::Relaxed))
}

impl<A: Stored> Flows<A> {
    /// How many of its first bytes are read to find a flow.
    pub(crate) const HOT: usize =
        offset_of!(Self, table) + Table::<A, CachedRoute, Heads<A>, SpinLock>::HOT;

    /// An empty table, as large as the parameters say, of flows in `memory`; `locks` counts how
    /// often it is locked.
    pub(crate) fn new(memory: Arc<Memory>, locks: Arc<lock::LockCounters>) -> Result<Self> {
        let heads = heads((parameters::hash_buckets() as usize).next_power_of_two())?;
        let seed = match parameters::hash_seed() {
            0 => A::Seed::draw(random_word),
            seed => seed.into(),
        };
        let flows = Self {
            table: Table::new(heads, SpinLock::new(locks)?, seed).ok_or(EINVAL)?,
            cache: Cache::new()?,
            memory,
            out_of_ports: AtomicU32::new(time::jiffies().wrapping_sub(time::HZ)),
            nothing_to_drop: AtomicU32::new(time::jiffies().wrapping_sub(time::HZ)),
        };
        flows.fit_cache();
        Ok(flows)
    }

    /// The memory of its flows, which it shares with other namespaces.
    pub(crate) fn pool(&self) -> &FlowPool<A> {
        A::pool(&self.memory)
    }

    /// How many flows there are.
    pub(crate) fn count(&self) -> usize {
        self.table.flows()
    }

    /// How many buckets the table has.
    pub(crate) fn buckets(&self) -> usize {
        rcu::read(|guard| self.table.buckets(guard))
    }

    /// The hash of `tuple` in the table.
    #[inline(always)]
    pub(crate) fn hash(&self, tuple: &Tuple<A>) -> usize {
        self.table.hash(tuple)
    }

    /// As `lookup`, for a tuple of which the hash is known.
    #[inline(always)]
    pub(crate) fn lookup_hashed<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
    ) -> Option<(&'g FlowNode<A>, Direction)> {
        self.table.lookup_hashed(guard, hash, tuple)
    }

    /// The flow to which a packet of `tuple` belongs, and which of its directions it is.
    #[inline(always)]
    pub(crate) fn lookup<'g>(
        &'g self,
        guard: &'g ReadGuard,
        tuple: &Tuple<A>,
    ) -> Option<(&'g FlowNode<A>, Direction)> {
        self.table.lookup(guard, tuple)
    }

    /// As `lookup_hashed`, but asks this CPU's cache first.
    #[inline(always)]
    pub(crate) fn lookup_cached<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        tuple: &Tuple<A>,
        instance: &Instance,
    ) -> Option<(&'g FlowNode<A>, Direction)> {
        let lookup = || self.table.lookup_entry(guard, hash, tuple);
        let (found, knew) = self.cache.lookup(guard, hash as u32, tuple, lookup);
        instance.count(if knew {
            Counter::CacheHits
        } else {
            Counter::CacheMisses
        });
        let found = found?;
        Some((found.node, Direction::from_index(found.direction)))
    }

    /// Makes the caches of CPUs as large as the parameter says. Sleeps.
    pub(crate) fn fit_cache(&self) {
        let size = parameters::perf_cache_size() as usize;
        if size != self.cache.size() {
            self.cache.resize(size);
        }
    }

    /// Where the bucket begins in which `tuple` is looked up.
    #[inline(always)]
    pub(crate) fn bucket<'g>(
        &'g self,
        guard: &'g ReadGuard,
        tuple: &Tuple<A>,
    ) -> &'g Head<A, CachedRoute> {
        self.table.head(guard, tuple)
    }

    /// Makes a flow, as was decided, for packets that come as `original`, of hash `hash`. It gets another
    /// source port if its own is taken where it goes, or if it is a hairpin, whose source is an address of
    /// the machine's own. If another CPU has made the flow meanwhile, that one is returned. `opening`: how
    /// its client begins a new one.
    pub(crate) fn create<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: usize,
        original: &Tuple<A>,
        redirect: Option<&Choice<A>>,
        opening: Opening,
        instance: &Instance,
    ) -> Result<Created<'g, A>, Refused> {
        let now = time::jiffies();
        let created = self.table.edit(|edit| {
            if let Some((flow, direction)) = self.table.lookup_hashed(guard, hash, original) {
                return Ok(Created {
                    flow,
                    direction,
                    is_new: false,
                });
            }
            if self.count() >= parameters::max_flows() as usize {
                // A flood drops only flows that are not assured.
                let is_direct = redirect.is_none();
                let rank = |flow: &FlowNode<A>| {
                    let protocol = flow.key(Direction::Original as usize).protocol;
                    flow.early_drop_rank(protocol, is_direct, now, time::HZ)
                };
                // A flood must not keep the lock: not far again until something may have become idle.
                let waits = elapsed(&self.nothing_to_drop, now) <= time::HZ / 16;
                let most = if waits || is_direct { NEAR } else { FAR };
                if !edit.early_drop(guard, self.pool(), original, most, rank) {
                    if most == FAR {
                        self.nothing_to_drop.store(now, Ordering::Relaxed);
                    }
                    return Err(Refused::TableFull);
                }
                instance.count(Counter::FlowsEvicted);
                instance.count(Counter::FlowsRemoved);
            }
            let unique = self.unique_tuple(guard, original, redirect, now)?;
            let reply = unique.reply;
            let pool = self.pool();
            let opened = |(keys, flow): ([Tuple<A>; 2], Flow<_>)| (keys, flow.opened(opening));
            let flow = match unique.there {
                None => Owned::made_by(pool, || opened(Flow::direct(original, now))),
                Some((upstream, owner)) => {
                    Owned::made_by(pool, || opened(Flow::new(original, &upstream, owner, now)))
                }
            };
            let flow = flow.ok_or(Refused::NoMemory)?;
            // Both directions were looked up just now, under the same lock.
            Ok(Created {
                flow: edit.insert_hashed(guard, flow, [hash, reply]),
                direction: Direction::Original,
                is_new: true,
            })
        })?;
        if created.is_new {
            instance.count(Counter::FlowsCreated);
            if created.flow.is_direct() {
                instance.count(Counter::FlowsDirect);
            }
        }
        Ok(created)
    }

    // Makes the tuples unique: packets as they leave, and answers of no other flow.
    #[inline(always)]
    fn unique_tuple(
        &self,
        guard: &ReadGuard,
        original: &Tuple<A>,
        redirect: Option<&Choice<A>>,
        now: u32,
    ) -> Result<UniqueTuple<A>, Refused> {
        let (upstream, owner) = match redirect {
            Some(choice) => (&choice.upstream, choice.owner),
            None => {
                if let Some(reply) = self.unused_reply(guard, original) {
                    return Ok(UniqueTuple { reply, there: None });
                }
                // A redirected connection has its port there already: this one gets another port.
                (original, Owner::NOBODY)
            }
        };
        let (upstream, reply) = self
            .free_port(guard, original, upstream, now)
            .ok_or(Refused::NoPort)?;
        Ok(UniqueTuple {
            reply,
            there: Some((upstream, owner)),
        })
    }

    // The hash of answers to `tuple`, if they are of no flow yet.
    #[inline(always)]
    fn unused_reply(&self, guard: &ReadGuard, tuple: &Tuple<A>) -> Option<usize> {
        let answer = tuple.reverse();
        let hash = self.table.hash(&answer);
        let taken = self.table.lookup_hashed(guard, hash, &answer).is_some();
        (!taken).then_some(hash)
    }

    // `upstream`, or the same from another source port, such that answers to it are of no flow yet; from an
    // address of the machine's own, of no socket either. And the hash of answers.
    #[inline(always)]
    fn free_port(
        &self,
        guard: &ReadGuard,
        original: &Tuple<A>,
        upstream: &Tuple<A>,
        now: u32,
    ) -> Option<(Tuple<A>, usize)> {
        let own = original.source() != upstream.source();
        if !own {
            if let Some(reply) = self.unused_reply(guard, upstream) {
                return Some((*upstream, reply));
            }
        }
        let (port, reply) = self.other_port(guard, upstream, own, now)?;
        Some((upstream.from_port(port), reply))
    }

    // Such a port, in network byte order, and that hash.
    #[cold]
    fn other_port(
        &self,
        guard: &ReadGuard,
        upstream: &Tuple<A>,
        own: bool,
        now: u32,
    ) -> Option<(u16, usize)> {
        // To try all of them takes a millisecond: not again until some may have become free.
        let waits = elapsed(&self.out_of_ports, now) <= time::HZ / 16;
        let attempts = if waits { FEW_PORTS } else { usize::MAX };
        let found = source_ports(own, random())
            .take(attempts)
            .map(u16::to_be)
            .find_map(|port| Some((port, self.unused_reply(guard, &upstream.from_port(port))?)));
        if found.is_none() && !waits {
            self.out_of_ports.store(now, Ordering::Relaxed);
        }
        found
    }

    /// Takes one flow out.
    pub(crate) fn remove(&self, guard: &ReadGuard, flow: &FlowNode<A>, instance: &Instance) {
        let removed = self
            .table
            .edit(|edit| edit.remove(guard, self.pool(), flow));
        if removed.is_some() {
            instance.count(Counter::FlowsRemoved);
        }
    }

    /// Removes the flows of the buckets `range` for which `goes` says so, and calls `going` with each before. Tells how many.
    /// The table is locked only for a bucket that has such a flow.
    pub(crate) fn sweep(
        &self,
        range: core::ops::Range<usize>,
        instance: &Instance,
        goes: impl Fn(&FlowNode<A>) -> bool,
        going: impl Fn(&FlowNode<A>),
    ) -> u64 {
        let mut all = 0_u64;
        let goes_now = |flow: &FlowNode<A>| {
            let now = goes(flow);
            if now {
                going(flow);
            }
            now
        };
        for bucket in range {
            if bucket % BUCKETS_AT_ONCE == 0 {
                task::pause();
            }
            if !rcu::read(|guard| self.table.any(guard, bucket, &goes)) {
                continue;
            }
            let gone = self.edit(|edit, guard| edit.sweep(guard, self.pool(), bucket, goes_now));
            instance.add(Counter::FlowsRemoved, gone as u64);
            all = all.wrapping_add(gone as u64);
        }
        all
    }

    /// Runs `function` under the table's lock. It must not take that lock again.
    #[cold]
    pub(crate) fn with_lock<R>(&self, function: impl FnOnce() -> R) -> R {
        self.table.with_lock(function)
    }

    /// Resizes the table if it has too few buckets. With the two entries of each flow, a bucket then has at
    /// most two on average (IPv6), or one (IPv4). Sleeps.
    pub(crate) fn resize(&self) {
        let wanted = self
            .count()
            .saturating_mul(A::BUCKETS_PER_FLOW)
            .min(MAX_BUCKETS);
        if wanted <= self.buckets() {
            return;
        }
        // Without memory it goes on as it is, with fuller buckets.
        if let Ok(heads) = heads(wanted.next_power_of_two()) {
            drop(self.table.resize::<rcu::Kernel>(heads, task::pause));
        }
    }

    /// Calls `see` with the length of every bucket.
    pub(crate) fn lengths(&self, mut see: impl FnMut(usize)) {
        let buckets = self.buckets();
        for start in (0..buckets).step_by(BUCKETS_AT_ONCE) {
            let range = start..buckets.min(start.wrapping_add(BUCKETS_AT_ONCE));
            rcu::read(|guard| range.for_each(|bucket| see(self.table.length(guard, bucket))));
            task::pause();
        }
    }

    /// Removes all flows, when no hook makes any and the table is not resized any more. Sleeps.
    pub(crate) fn remove_all(&self, instance: &Instance) {
        self.sweep(0..self.buckets(), instance, |_| true, |_| ());
    }

    /// Removes the flows that a context's rules made: all of them, if no hook makes any more. Sleeps.
    pub(crate) fn remove_of(&self, owner: u32, instance: &Instance) {
        self.remove_if(instance, |flow| flow.owner().context == owner);
    }

    /// Removes the flows for which `goes` says so, and tells how many: all of them, if no hook makes such any more. Sleeps.
    pub(crate) fn remove_if(
        &self,
        instance: &Instance,
        goes: impl Fn(&FlowNode<A>) -> bool,
    ) -> u64 {
        let mut all = 0_u64;
        // If the table is resized meanwhile, its flows are in other buckets: it is swept again, until its
        // number of buckets stays. It only grows, and not often.
        loop {
            let buckets = self.buckets();
            Window::Sweep.pass();
            let gone = self.sweep(0..buckets, instance, &goes, |_| ());
            all = all.wrapping_add(gone);
            if self.buckets() == buckets {
                return all;
            }
        }
    }

    /// As [`Walk::step`].
    pub(crate) fn step<'g>(
        &'g self,
        guard: &'g ReadGuard,
        walk: &mut Walk,
        most: usize,
        is: impl FnMut(&FlowNode<A>) -> bool,
    ) -> Step<'g, A, CachedRoute> {
        walk.step(guard, &self.table, most, is)
    }

    fn edit<R>(
        &self,
        edit: impl FnOnce(&mut Edit<'_, '_, A, CachedRoute, Heads<A>, SpinLock>, &ReadGuard) -> R,
    ) -> R {
        rcu::read(|guard| self.table.edit(|table| edit(table, guard)))
    }
}

// Charged to the task that opens the namespace's first context. A table is resized in a kernel worker, which
// is charged to no control group: there the bound is `MAX_BUCKETS`.
fn heads<A: Address>(count: usize) -> Result<Heads<A>> {
    let mut heads = Heads::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for index in 0..count {
        if index % HEADS_AT_ONCE == 0 {
            task::pause();
        }
        // Within the capacity.
        heads.push(Head::null(), GFP_KERNEL_ACCOUNT)?;
    }
    Ok(heads)
}
