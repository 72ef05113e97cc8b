// SPDX-License-Identifier: GPL-2.0

//! The memory that flows are in: one pool for each IP version, shared by all namespaces.

use kernel::c_str;
use kernel::prelude::*;

use crate::datapath::flow::Flow;
use crate::datapath::link::Node;
use crate::datapath::tuple::{Address, Tuple, V4, V6};
use crate::parameters;
use crate::sys::pool::NodePool;
use crate::sys::route::CachedRoute;

/// A flow in the table.
pub(crate) type FlowNode<A> = Node<Tuple<A>, Flow<CachedRoute>>;

/// Where flows of one IP version are.
pub(crate) type FlowPool<A> = NodePool<Tuple<A>, Flow<CachedRoute>>;

/// What the flows of all namespaces are in.
pub(crate) struct Memory {
    v4: FlowPool<V4>,
    v6: FlowPool<V6>,
}

impl Memory {
    /// Without any flow.
    pub(crate) fn new() -> Result<Self> {
        let keeps = parameters::words::perf_enable_pool();
        Ok(Self {
            // A flow of IPv4 fills three cache lines: keys, and what each direction has. Aligned to lines, one of
            // IPv6 would take 256 bytes instead of 240, and a packet would use 3 of its lines instead of 4.5;
            // each new flow would take 18 instructions more (and 8 with IPv4, whose directions would have to be
            // aligned, too).
            v4: NodePool::new(c_str!("mutex_flow_v4"), 64, keeps)?,
            v6: NodePool::new(c_str!("mutex_flow_v6"), 16, keeps)?,
        })
    }

    /// Waits until flows that were removed before this call hold no route any more: routes of IPv6 must not
    /// outlive their namespace. Sleeps.
    pub(crate) fn drain(&self) {
        self.v4.drain();
        self.v6.drain();
    }
}

/// A version of IP, with the memory of its flows.
pub(crate) trait Stored: Address {
    /// How many buckets there are at least for each flow, once the table was resized; there are at most twice
    /// as many. A flow and its buckets take 256 bytes at most.
    const BUCKETS_PER_FLOW: usize;
    /// Where its flows are.
    fn pool(memory: &Memory) -> &FlowPool<Self>;
}

impl Stored for V4 {
    // Of 192 bytes, which leaves room for this: to find one of 100,000 flows takes 0.4 lines less of
    // memory, of others in its bucket, than with one bucket for each.
    const BUCKETS_PER_FLOW: usize = 2;

    fn pool(memory: &Memory) -> &FlowPool<Self> {
        &memory.v4
    }
}

impl Stored for V6 {
    const BUCKETS_PER_FLOW: usize = 1;

    fn pool(memory: &Memory) -> &FlowPool<Self> {
        &memory.v6
    }
}
