// SPDX-License-Identifier: GPL-2.0

//! The proxy in one network namespace.

use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::monitor::LATENCY_HOOKS;
use crate::abi::netlink::context::ContextName;
use crate::abi::proxy::{Action, Connection, Endpoint, Protocol, Stats};
use crate::batch::Batches;
use crate::datapath::filter::{self, Filter};
use crate::datapath::flow::Direction;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::Header;
use crate::datapath::range::{self, Range};
use crate::datapath::reopenings::Reopenings;
use crate::datapath::tuple::{Ports, Tuple, V4, V6};
use crate::datapath::upstream::{Outcome, Report};
use crate::flows::Flows;
use crate::later_hooks::LaterHooksFound;
use crate::memory::{FlowNode, Memory, Stored};
use crate::parameters::keys;
use crate::rule_set::{Configuration, RuleSet, VersionRules};
use crate::slots::place;
use crate::sys::counters::{Counters, SharedCounters};
use crate::sys::latency::Histogram;
use crate::sys::lock;
use crate::sys::rcu::{self, Rcu};
use crate::sys::static_key::is_on;
use crate::sys::time;
use crate::sys::zeroed;

/// What is counted. The numbers index the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    PacketsOriginal,
    PacketsReply,
    BytesOriginal,
    BytesReply,
    PacketsDirect,
    BytesDirect,
    FlowsDirect,
    FlowsCreated,
    FlowsRemoved,
    FlowsEvicted,
    DroppedNoMemory,
    DroppedTableFull,
    DroppedNoPort,
    DroppedNoRoute,
    Malformed,
    IcmpTranslated,
    CacheHits,
    CacheMisses,
    PacketsBlocked,
}

const COUNTERS: usize = Counter::PacketsBlocked as usize + 1;

/// A version of IP, with what an instance has of it.
pub(crate) trait Version: Header + Stored {
    /// Its flows.
    fn flows(instance: &Instance) -> &Flows<Self>;
    /// Its rules.
    fn rules(rules: &RuleSet) -> &VersionRules<Self>;
}

impl Version for V4 {
    #[inline(always)]
    fn flows(instance: &Instance) -> &Flows<Self> {
        &instance.v4
    }

    fn rules(rules: &RuleSet) -> &VersionRules<Self> {
        &rules.v4
    }
}

impl Version for V6 {
    #[inline(always)]
    fn flows(instance: &Instance) -> &Flows<Self> {
        &instance.v6.0
    }

    fn rules(rules: &RuleSet) -> &VersionRules<Self> {
        &rules.v6
    }
}

/// The ports of packets for which the rules of `configuration` may be asked, and of
/// answers, from an upstream or from the original destination. Packets that go to an upstream by
/// themselves have one of them as well: their port there.
pub(crate) fn ports(configuration: &Configuration) -> Result<KVVec<Range<u16>>> {
    let mut ports = KVVec::new();
    for rule in configuration.rules() {
        let of_rule = Range {
            first: rule.port_first,
            last: rule.port_last,
        };
        // What goes where it goes anyway need not be asked for.
        if rule.action != Action::Direct {
            ports.push(of_rule, GFP_KERNEL)?;
        }
    }
    for upstream in configuration.upstreams() {
        if upstream.port != 0 {
            ports.push(Range::one(upstream.port), GFP_KERNEL)?;
        }
    }
    Ok(ports)
}

/// A line of memory, in bytes.
const LINE: usize = 64;

/// A value that begins a line of memory.
#[repr(align(64))]
struct Aligned<T>(T);

/// What all hooks of a namespace share. All that an established packet of IPv4 reads of it is in one line,
/// and one of IPv6 reads one more; nothing in them is written for a packet or a flow.
#[repr(C, align(64))]
pub(crate) struct Instance {
    /// Which ports packets of flows may have.
    pub(crate) filter: Filter<KBox<[AtomicU64; filter::WORDS]>>,
    counters: Counters<COUNTERS>,
    v4: Flows<V4>,
    v6: Aligned<Flows<V6>>,
    /// Which new connections are redirected.
    pub(crate) rules: Rcu<RuleSet>,
    /// How long each hook takes for a packet, in the order of [`LATENCY_HOOKS`].
    pub(crate) latency: [Histogram; LATENCY_HOOKS.len()],
    /// Packets that wait for each other.
    pub(crate) batches: Batches,
    /// SYNs in known connections that may begin these anew.
    pub(crate) reopenings: KBox<Reopenings>,
    // The counters that are used while `perf_enable_percpu` is off.
    shared: SharedCounters<COUNTERS>,
    // Names of contexts that have one, by their `owner`.
    names: Pin<KBox<Mutex<KVVec<Option<(u32, ContextName)>>>>>,
    /// How often the tables of flows were locked.
    pub(crate) locks: Arc<lock::LockCounters>,
    /// Whether hooks after ours may change where packets that come in go, of each version of IP.
    pub(crate) later_hooks: LaterHooksFound,
}

impl Instance {
    /// Without rules and flows; flows will be in `memory`.
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self> {
        const {
            assert!(offset_of!(Self, v4) + Flows::<V4>::HOT <= LINE);
            assert!(Flows::<V6>::HOT <= LINE);
        }
        let locks = Arc::new(lock::LockCounters::new()?, GFP_KERNEL)?;
        Ok(Self {
            filter: Filter::new(zeroed::boxed()?),
            rules: Rcu::new(KBox::new(RuleSet::new(core::iter::empty)?, GFP_KERNEL)?),
            batches: Batches::new()?,
            reopenings: zeroed::boxed()?,
            latency: [
                Histogram::new()?,
                Histogram::new()?,
                Histogram::new()?,
                Histogram::new()?,
            ],
            v4: Flows::new(memory.clone(), locks.clone())?,
            v6: Aligned(Flows::new(memory, locks.clone())?),
            counters: Counters::new()?,
            later_hooks: LaterHooksFound::new(),
            shared: SharedCounters::new()?,
            names: KBox::pin_init(new_mutex!(KVVec::new()), GFP_KERNEL_ACCOUNT)?,
            locks,
        })
    }

    /// Adds ports to the filter, those of [`ports`].
    pub(crate) fn admit(&self, ports: &mut [Range<u16>]) {
        for ports in range::union(ports) {
            self.filter.add(ports);
        }
    }

    /// Reports to the upstream's health how it took the connection of `flow`.
    pub(crate) fn report<A: Version>(
        &self,
        guard: &ReadGuard,
        flow: &FlowNode<A>,
        outcome: Outcome,
    ) {
        let owner = flow.owner();
        if let Some(pool) = A::rules(self.rules.load(guard)).pool(owner.context) {
            let answer = flow.key(Direction::Reply as usize);
            let (address, port) = (answer.source(), answer.ports.source());
            let now = time::jiffies();
            let report = Report {
                outcome,
                client: self.client(flow.key(Direction::Original as usize).source()),
                sent: match outcome {
                    Outcome::Unanswered => now.wrapping_sub(flow.idle(now)),
                    Outcome::Answered | Outcome::Refused => now,
                },
                now,
            };
            pool.report(owner.upstream, address, port, &report);
        }
    }

    /// A keyed hash of a client's address, by which health of upstreams tells clients apart.
    pub(crate) fn client<A: Version>(&self, address: A) -> u32 {
        let tuple = Tuple::new(Protocol::Tcp, address, address, Ports(0));
        A::flows(self).hash(&tuple) as u32
    }

    /// The original destination of a connection that was redirected.
    pub(crate) fn original<A: Version>(&self, connection: &Connection) -> Option<Endpoint> {
        let (local, remote) = (&connection.local, &connection.remote);
        let answer = Tuple::new(
            connection.protocol,
            A::from_bytes(local.address),
            A::from_bytes(remote.address),
            Ports::new(local.port.to_be(), remote.port.to_be()),
        );
        rcu::read(|guard| {
            let (flow, direction) = A::flows(self).lookup(guard, &answer)?;
            let original = flow.key(Direction::Original as usize);
            (direction == Direction::Reply && !flow.is_direct()).then(|| Endpoint {
                address: original.destination().to_bytes(),
                port: u16::from_be(original.ports.destination()),
            })
        })
    }

    /// The name of the context `owner`, if it has one. Sleeps.
    pub(crate) fn name_of(&self, owner: u32) -> Option<ContextName> {
        let names = self.names.lock();
        let mut names = names.iter().flatten();
        names.find(|(one, _)| *one == owner).map(|(_, name)| *name)
    }

    /// The context `owner` has this name from now on.
    pub(crate) fn set_name(&self, owner: u32, name: ContextName) -> Result {
        let mut names = self.names.lock();
        match names.iter().flatten().any(|(one, _)| *one == owner) {
            true => Ok(()),
            false => place(&mut names, (owner, name)),
        }
    }

    /// The context `owner` is gone.
    pub(crate) fn forget_name(&self, owner: u32) {
        let mut names = self.names.lock();
        let is_it = |slot: &&mut Option<(u32, _)>| slot.is_some_and(|(one, _)| one == owner);
        if let Some(slot) = names.iter_mut().find(is_it) {
            *slot = None;
        }
    }

    /// How many flows there are.
    pub(crate) fn flow_count(&self) -> usize {
        self.v4.count().wrapping_add(self.v6.0.count())
    }

    /// Makes the caches of CPUs as large as the parameter says. Sleeps.
    pub(crate) fn fit_caches(&self) {
        self.v4.fit_cache();
        self.v6.0.fit_cache();
    }

    /// Counts a packet of a direct flow, of `length` bytes.
    #[inline(always)]
    pub(crate) fn count_direct<const ABLATION: bool>(&self, length: u32) {
        const COUNTER: usize = Counter::PacketsDirect as usize;
        if ABLATION && is_on!(keys::PERCPU_DISABLED) {
            self.shared.add(COUNTER, 1);
            self.shared.add(COUNTER + 1, length.into());
        } else {
            self.counters.add_pair_at::<COUNTER, 1>(length.into());
        }
    }

    /// Removes the flows that the rules of context `owner` made.
    pub(crate) fn remove_flows_of(&self, owner: u32) {
        self.v4.remove_of(owner, self);
        self.v6.0.remove_of(owner, self);
    }

    /// Removes all flows, when no hook makes any and no table is resized any more. Sleeps.
    pub(crate) fn remove_flows(&self) {
        self.v4.remove_all(self);
        self.v6.0.remove_all(self);
    }

    /// Counts one.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `by`.
    #[inline(always)]
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        if is_on!(keys::PERCPU_DISABLED) {
            self.shared.add(counter as usize, by);
        } else {
            self.counters.add(counter as usize, by);
        }
    }

    /// Counts a packet of `direction`, of `length` bytes. `ABLATION`: asks whether counters are shared.
    #[inline(always)]
    pub(crate) fn count_packet<const ABLATION: bool>(&self, direction: Direction, length: u32) {
        const DISTANCE: usize = Counter::BytesOriginal as usize - Counter::PacketsOriginal as usize;
        let counter = Counter::PacketsOriginal as usize + direction as usize;
        if ABLATION && is_on!(keys::PERCPU_DISABLED) {
            self.shared.add(counter, 1);
            self.shared
                .add(counter.wrapping_add(DISTANCE), length.into());
        } else {
            self.counters.add_pair::<DISTANCE>(counter, length.into());
        }
    }

    /// What each CPU counted, in the order of [`cpus`](crate::sys::percpu::cpus); the shared counters are added
    /// to the first one's.
    pub(crate) fn by_cpu(&self, counter: Counter) -> impl Iterator<Item = u64> + '_ {
        let mut shared = self.shared.get(counter as usize);
        self.counters
            .by_cpu(counter as usize)
            .map(move |own| own.wrapping_add(core::mem::take(&mut shared)))
    }

    /// The sums over all CPUs.
    pub(crate) fn stats(&self) -> Stats {
        let sum = |counter: Counter| self.by_cpu(counter).fold(0, u64::wrapping_add);
        Stats {
            packets_original: sum(Counter::PacketsOriginal),
            packets_reply: sum(Counter::PacketsReply),
            bytes_original: sum(Counter::BytesOriginal),
            bytes_reply: sum(Counter::BytesReply),
            flows_created: sum(Counter::FlowsCreated),
            flows_removed: sum(Counter::FlowsRemoved),
            flows_evicted: sum(Counter::FlowsEvicted),
            flows_current: self.flow_count() as u64,
            dropped_no_memory: sum(Counter::DroppedNoMemory),
            dropped_table_full: sum(Counter::DroppedTableFull),
            dropped_no_port: sum(Counter::DroppedNoPort),
            dropped_no_route: sum(Counter::DroppedNoRoute),
            malformed: sum(Counter::Malformed),
            icmp_translated: sum(Counter::IcmpTranslated),
            cache_hits: sum(Counter::CacheHits),
            cache_misses: sum(Counter::CacheMisses),
            packets_blocked: sum(Counter::PacketsBlocked),
            lock_acquisitions: self.locks.sum(lock::LockCounter::Acquisitions as usize),
            lock_contentions: self.locks.sum(lock::LockCounter::Contentions as usize),
            packets_direct: sum(Counter::PacketsDirect),
            bytes_direct: sum(Counter::BytesDirect),
            flows_direct: sum(Counter::FlowsDirect),
        }
    }
}
