// SPDX-License-Identifier: GPL-2.0

//! The proxy in one network namespace.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Stats;
use crate::datapath::rules::{Compiled, Rules};
use crate::flows::{Flows, Memory};
use crate::sys::counters::Counters;
use crate::sys::rcu::Rcu;

/// What is counted. The numbers index the per-CPU counters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    PacketsOriginal,
    PacketsReply,
    Bytes,
    FlowsCreated,
    FlowsRemoved,
    DroppedNoMemory,
    DroppedTableFull,
    DroppedNoPort,
    DroppedNoRoute,
    Malformed,
}

const COUNTERS: usize = Counter::Malformed as usize + 1;

/// What all hooks of a namespace share.
pub(crate) struct Instance {
    /// Which new connections are redirected.
    pub(crate) rules: Rcu<Rules<KVec<Compiled>>>,
    /// Which connections were.
    pub(crate) flows: Flows,
    counters: Counters<COUNTERS>,
}

impl Instance {
    /// Without rules and flows; flows will be in `memory`.
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self> {
        Ok(Self {
            rules: Rcu::new(KBox::new(Rules(KVec::new()), GFP_KERNEL)?),
            flows: Flows::new(memory)?,
            counters: Counters::new()?,
        })
    }

    /// Counts one.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `by`.
    #[inline(always)]
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        self.counters.add(counter as usize, by);
    }

    /// What each CPU counted, in the order of [`cpus`](crate::sys::percpu::cpus).
    pub(crate) fn by_cpu(&self, counter: Counter) -> impl Iterator<Item = u64> + '_ {
        self.counters.by_cpu(counter as usize)
    }

    /// The sums over all CPUs.
    pub(crate) fn stats(&self) -> Stats {
        let sum = |counter: Counter| self.counters.sum(counter as usize);
        Stats {
            packets_original: sum(Counter::PacketsOriginal),
            packets_reply: sum(Counter::PacketsReply),
            bytes: sum(Counter::Bytes),
            flows_created: sum(Counter::FlowsCreated),
            flows_removed: sum(Counter::FlowsRemoved),
            flows_current: self.flows.count() as u64,
            dropped_no_memory: sum(Counter::DroppedNoMemory),
            dropped_table_full: sum(Counter::DroppedTableFull),
            dropped_no_port: sum(Counter::DroppedNoPort),
            dropped_no_route: sum(Counter::DroppedNoRoute),
            malformed: sum(Counter::Malformed),
        }
    }
}
