// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all measuring has in common: the machines and the probe, what goes before, and how long the kernel is left
//! alone.

use std::collections::BTreeMap;
use std::time::Duration;

use mutexlab_model::facts::Arrival;
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::Traffic;

use crate::net::layout::Layout;
use crate::probe::Probe;
use crate::traffic::closed_loop::ClosedLoop;
use crate::traffic::flows::Flows;
use crate::traffic::pace::Pace;
use crate::traffic::target::Stop;

/// Round trips of the flow that goes before those that are measured.
pub const REHEARSAL: u32 = 8;

/// How long the kernel is left alone after a change, so that what it puts off (multicast
/// reports, RCU, what a process leaves behind) does not fall into the measurement.
pub const QUIET: Duration = Duration::from_millis(250);
/// How old flows are when they are measured: conntrack takes UDP for a stream after two seconds
/// (nf_conntrack_udp_packet()), and treats it otherwise from then on.
pub const SETTLED: Duration = Duration::from_secs(3);

/// What a cell is measured with.
pub struct Rig<'a> {
    /// The machines.
    pub layout: &'a Layout,
    /// The probe in the router.
    pub probe: Probe,
    /// When the packets that are measured are sent.
    pub pace: Pace,
}

/// Sends a short flow of its own through the subject, so that what the kernel does once only, on
/// a packet or soon after (keys of hashes, the first slab of a cache), is behind it.
pub fn rehearse(
    layout: &Layout,
    traffic: &Traffic,
    arrival: impl Into<Arrival>,
    delivery: &mut Delivery,
) -> Result<(), Stop> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, Flows::rehearsal(traffic), arrival)?;
    closed_loop.open(0..1, delivery)?;
    closed_loop.establish(0..1, delivery)?;
    closed_loop.round_trips((0..REHEARSAL).map(|_| 0), delivery)?;
    closed_loop.close(0, delivery)
}

/// What counters rose by since `before`.
pub fn since(
    before: &BTreeMap<String, u64>,
    mut counters: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    for (name, count) in &mut counters {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    counters
}
