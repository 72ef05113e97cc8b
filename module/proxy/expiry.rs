// SPDX-License-Identifier: GPL-2.0

//! Forgets idle flows, a slice of the table at a time.

use core::sync::atomic::{AtomicUsize, Ordering};

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Protocol;
use crate::datapath::flow::{Flow, Side};
use crate::datapath::tcp::State;
use crate::instance::Instance;
use crate::parameters;
use crate::sys::time;
use crate::sys::work::Periodic;

/// In how many slices the table is searched: what one run may cost.
const SLICES: usize = 64;

/// How long a flow may be idle, in seconds.
fn timeout(flow: &Flow) -> u32 {
    match (flow.tuple(Side::Original).protocol(), flow.state()) {
        (Protocol::Udp, _) => parameters::udp_timeout(),
        (Protocol::Tcp, State::Opening) => parameters::tcp_syn_timeout(),
        (Protocol::Tcp, State::Established) => parameters::tcp_established_timeout(),
        (Protocol::Tcp, State::Closing | State::Closed) => parameters::tcp_close_timeout(),
    }
}

fn slice_interval() -> u32 {
    (parameters::gc_interval().saturating_mul(time::HZ) / SLICES as u32).max(1)
}

fn run(instance: &Instance, slice: &AtomicUsize) -> u32 {
    let now = time::jiffies();
    let expired = |flow: &Flow| flow.idle(now) >= timeout(flow).saturating_mul(time::HZ);
    let chains = instance.flows.chains();
    let slice = slice.fetch_add(1, Ordering::Relaxed) % SLICES;
    // At most 2^20 chains.
    let start = |slice: usize| chains.wrapping_mul(slice) / SLICES;
    let range = start(slice)..start(slice + 1);
    instance.flows.sweep(range, instance, expired);
    slice_interval()
}

/// The search, until it is dropped.
pub(crate) type Running = Periodic<Search>;

/// What one run of the search needs.
pub(crate) struct Search {
    instance: Arc<Instance>,
    slice: AtomicUsize,
}

impl crate::sys::work::Work for Search {
    fn run(&self) -> u32 {
        run(&self.instance, &self.slice)
    }
}

/// Starts to search the flows of `instance`.
pub(crate) fn start(instance: Arc<Instance>) -> Result<Running> {
    let search = Search {
        instance,
        slice: AtomicUsize::new(0),
    };
    Periodic::start(slice_interval(), search)
}
