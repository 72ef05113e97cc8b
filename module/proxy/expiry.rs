// SPDX-License-Identifier: GPL-2.0

//! Removes idle flows, a slice of the table at a time, and resizes tables that have too few buckets.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Protocol;
use crate::datapath::flow::Direction;
use crate::datapath::state::Timeouts;
use crate::datapath::tuple::{V4, V6};
use crate::datapath::upstream::Outcome;
use crate::events::Told;
use crate::instance::{Instance, Version};
use crate::later_hooks;
use crate::memory::FlowNode;
use crate::parameters;
use crate::sys::net::Namespace;
use crate::sys::rcu;
use crate::sys::time;
use crate::sys::work::Periodic;

/// In how many slices the table is scanned: what one run may cost.
const SLICES: usize = 64;

/// How long flows may be idle, in jiffies.
fn timeouts() -> Timeouts {
    let jiffies = |seconds: u32| seconds.saturating_mul(time::HZ);
    Timeouts {
        hz: time::HZ,
        udp: [
            jiffies(parameters::udp_unreplied_timeout()),
            jiffies(parameters::udp_transient_timeout()),
            jiffies(parameters::udp_timeout()),
        ],
        tcp: [
            jiffies(parameters::tcp_syn_timeout()),
            jiffies(parameters::tcp_established_timeout()),
            jiffies(parameters::tcp_fin_timeout()),
            jiffies(parameters::tcp_close_timeout()),
        ],
    }
}

fn slice_interval() -> u32 {
    (parameters::gc_interval().saturating_mul(time::HZ) / SLICES as u32).max(1)
}

fn scan<A: Version>(instance: &Instance, slice: usize, timeouts: &Timeouts) {
    let now = time::jiffies();
    let original = |flow: &FlowNode<A>| *flow.key(Direction::Original as usize);
    let expired = |flow: &FlowNode<A>| flow.idle(now) >= flow.timeout(&original(flow), timeouts);
    let expiring = |flow: &FlowNode<A>| {
        // Its SYN was not answered.
        if original(flow).protocol == Protocol::Tcp && flow.is_unanswered() {
            rcu::read(|guard| instance.report(guard, flow, Outcome::Unanswered));
        }
    };
    let flows = A::flows(instance);
    let buckets = flows.buckets();
    // At most 2^21 buckets.
    let start = |slice: usize| buckets.wrapping_mul(slice) / SLICES;
    flows.sweep(start(slice)..start(slice + 1), instance, expired, expiring);
    flows.resize();
}

/// The garbage collection; it runs until this is dropped.
pub(crate) type Running = Periodic<Gc>;

/// What one run of the garbage collection needs.
pub(crate) struct Gc {
    instance: Arc<Instance>,
    net: Namespace,
    told: Told,
    slice: AtomicUsize,
    // When the last slice was scanned, in jiffies.
    last: AtomicU32,
}

impl crate::sys::work::Work for Gc {
    // At least once a second, so that a changed parameter does not wait for the next slice.
    fn run(&self) -> u32 {
        let instance = &self.instance;
        instance.fit_caches();
        later_hooks::look(instance, &self.net);
        self.told.look(instance, &self.net);
        let now = time::jiffies();
        if now.wrapping_sub(self.last.load(Ordering::Relaxed)) >= slice_interval() {
            self.last.store(now, Ordering::Relaxed);
            let slice = self.slice.fetch_add(1, Ordering::Relaxed) % SLICES;
            let timeouts = timeouts();
            scan::<V4>(instance, slice, &timeouts);
            scan::<V6>(instance, slice, &timeouts);
        }
        slice_interval().min(time::HZ)
    }
}

/// Starts to scan the flows of `instance`.
pub(crate) fn start(instance: Arc<Instance>, net: Namespace) -> Result<Running> {
    let gc = Gc {
        instance,
        net,
        told: Told::new(),
        slice: AtomicUsize::new(0),
        last: AtomicU32::new(time::jiffies()),
    };
    Periodic::start(slice_interval().min(time::HZ), gc)
}
