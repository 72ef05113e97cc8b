// SPDX-License-Identifier: GPL-2.0

//! Packets that came at once are looked up together: while the cache lines of one flow are on
//! their way from memory, those of the next are prefetched.

use kernel::prelude::*;

use crate::datapath::batch::{FlushReason, Gate, Limits, Step};
use crate::datapath::flow::Direction;
use crate::datapath::link::ReadGuard;
use crate::datapath::tuple::{V4, V6};
use crate::instance::Instance;
use crate::parameters;
use crate::redirect::{resume, Redirect};
use crate::route_lookup::Routed;
use crate::sys::counters::Counters;
use crate::sys::hooks::{Packet, Verdict};
use crate::sys::prefetch::prefetch;
use crate::sys::skb_queue::{Resumed, SkbQueue};
use crate::sys::tasklet::{Deferring, TaskletSlot, Tasklets};
use crate::sys::time;
use crate::sys::try_lock::TryLock;

/// How many packets are looked up together: a core can wait for ten to sixteen lines at a time, and
/// each packet needs two.
const GROUP: usize = 8;

/// Packets of one hook that wait on one CPU.
#[derive(Default)]
pub(crate) struct Queue {
    gate: Gate,
    skbs: SkbQueue,
}

/// What waits on one CPU.
#[derive(Default)]
pub(crate) struct Queues {
    v4: TryLock<Queue>,
    v6: TryLock<Queue>,
}

/// How often queues were flushed for each [`FlushReason`], and after that how many packets.
const COUNTERS: usize = FlushReason::COUNT + 1;
const PACKETS: usize = FlushReason::COUNT;

/// All packets of a namespace that wait.
pub(crate) struct Batches {
    tasklets: Tasklets<Queues>,
    counters: Counters<COUNTERS>,
}

impl Batches {
    /// No packet waits yet, nor will before tasklets run.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            tasklets: Tasklets::new(Queues::default)?,
            counters: Counters::new()?,
        })
    }

    /// How often queues were flushed for `reason`, for each CPU.
    pub(crate) fn flushes(&self, reason: FlushReason) -> impl Iterator<Item = u64> + '_ {
        self.counters.by_cpu(reason as usize)
    }

    /// How many packets waited, for each CPU.
    pub(crate) fn packets(&self) -> impl Iterator<Item = u64> + '_ {
        self.counters.by_cpu(PACKETS)
    }
}

/// A version of IP whose packets can wait.
pub(crate) trait Batched: Routed {
    /// The queue of this version.
    fn queue(queues: &Queues) -> &TryLock<Queue>;
}

impl Batched for V4 {
    #[inline(always)]
    fn queue(queues: &Queues) -> &TryLock<Queue> {
        &queues.v4
    }
}

impl Batched for V6 {
    #[inline(always)]
    fn queue(queues: &Queues) -> &TryLock<Queue> {
        &queues.v6
    }
}

impl<A: Batched> Resumed for Redirect<A, false> {
    const GROUP: usize = GROUP;

    #[inline]
    fn prepare<'p>(
        instance: &Instance,
        guard: &ReadGuard,
        packets: impl Iterator<Item = &'p [u8]>,
    ) {
        let flows = A::flows(instance);
        let mut buckets = [None; GROUP];
        for (bucket, packet) in buckets.iter_mut().zip(packets) {
            *bucket = A::parse_fast(packet).map(|tuple| flows.bucket(guard, &tuple));
            if let Some(head) = *bucket {
                prefetch(head);
            }
        }
        for found in buckets
            .into_iter()
            .flatten()
            .flat_map(|head| head.load(guard))
        {
            prefetch(found.key());
            prefetch(found.node.start(Direction::from_index(found.direction)));
        }
    }

    fn resume(instance: &Instance, guard: ReadGuard, packet: Packet<'_>) -> Verdict {
        resume::<A>(instance, guard, packet)
    }
}

/// Queues the packet, if it is to wait; else gives it back.
#[inline(never)]
pub(crate) fn offer<'p, A: Batched>(
    instance: &Instance,
    packet: Packet<'p>,
) -> Result<Verdict, Packet<'p>> {
    let batches = &instance.batches;
    let slot = batches.tasklets.this();
    // Held while it is flushed: a packet that is flushed may come back to this hook, decrypted by IPsec.
    let Some(mut queue) = A::queue(&slot.local).try_lock() else {
        return Err(packet);
    };
    let size = parameters::perf_batch_size();
    // With the tick, so that packets of two ticks do not wait for each other: where packets are received
    // outside of NET_RX_SOFTIRQ, its count does not change.
    let round = time::net_rx_round().wrapping_add(time::jiffies());
    if !queue.gate.wants_to_queue(round, size) {
        return Err(packet);
    }
    let may = batches.tasklets.are_on() && parameters::perf_enable_batching() != 0;
    if !may || !queue.skbs.admits(&packet) {
        queue.flush::<A>(instance, FlushReason::Order);
        return Err(packet);
    }
    let limits = Limits {
        size,
        time: u64::from(parameters::perf_batch_timeout()).wrapping_mul(1000),
    };
    let step = queue.gate.enqueue(time::clock(), limits);
    let verdict = queue.skbs.push(packet);
    match step {
        Step::Begin => slot.schedule(),
        Step::Wait => {}
        Step::Flush(reason) => queue.flush::<A>(instance, reason),
    }
    Ok(verdict)
}

/// Flushes the queue of this CPU.
#[cold]
pub(crate) fn flush<A: Batched>(instance: &Instance) {
    let slot = instance.batches.tasklets.this();
    if let Some(mut queue) = A::queue(&slot.local).try_lock() {
        queue.flush::<A>(instance, FlushReason::Order);
    }
}

impl Queue {
    #[inline(never)]
    fn flush<A: Batched>(&mut self, instance: &Instance, reason: FlushReason) {
        let count = self.gate.flushed();
        if count == 0 {
            return;
        }
        instance.batches.counters.add(reason as usize, 1);
        instance.batches.counters.add(PACKETS, count.into());
        self.skbs.flush::<Redirect<A, false>>(instance);
    }
}

impl Deferring for Instance {
    type Local = Queues;

    fn tasklets(&self) -> &Tasklets<Queues> {
        &self.batches.tasklets
    }

    fn run(&self, slot: &TaskletSlot<Queues>) {
        let v4 = end_round::<V4>(self, &slot.local);
        let v6 = end_round::<V6>(self, &slot.local);
        if !(v4 && v6) {
            slot.schedule();
        }
    }
}

// False if the queue is in use.
fn end_round<A: Batched>(instance: &Instance, queues: &Queues) -> bool {
    let Some(mut queue) = A::queue(queues).try_lock() else {
        return false;
    };
    queue.flush::<A>(instance, FlushReason::Round);
    true
}
