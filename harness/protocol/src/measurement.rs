// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent counts of a cell. "Ticks" are of the time-stamp counter: in virtual mode
//! instructions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::memory_map::MemoryMap;
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{
    Buckets, BulkCost, CoreTime, Delivery, FirstPacket, HookCost, OpenLoop, PathCost,
};

/// Numbers of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Measurement {
    /// Where the packets went.
    pub delivery: Delivery,
    /// Packets from the client.
    pub original: HookCost,
    /// Packets to the client.
    pub reply: HookCost,
    /// First packets of further flows, opened while those that are measured are there.
    pub first_packet: Option<FirstPacket>,
    /// Bytes of the kernel's memory that all flows together take; only of many flows.
    pub flow_memory: Option<u64>,
    /// Ticks of all that the router does for one of packets that come at once, receiving and sending
    /// included, the probe's own work taken off; only of bursts, unless their packets wait.
    pub router: Option<u64>,
    /// The whole of a closed loop, generator and receivers included.
    pub path: PathCost,
    /// Round trips of a closed loop of single packets, each from the client to the client: nanoseconds
    /// of the guest's clock.
    pub round_trip: Option<Histogram>,
    /// What only an open loop shows.
    pub open: Option<OpenLoop>,
    /// The stream; only of bulk.
    pub bulk: Option<BulkCost>,
    /// Nanoseconds that a proxy's processes spent on what was measured.
    pub proxy_time: Option<u64>,
    /// What each CPU did meanwhile; only of bulk.
    pub cores: Vec<CoreTime>,
    /// Packets that each CPU received from the links while packets were measured, in the order of their
    /// numbers; only of flows that are spread over CPUs.
    pub received: Vec<u64>,
    /// The module's table at the end; `None` for other subjects.
    pub buckets: Option<Buckets>,
    /// The module's counters over the cell, by name; empty for other subjects.
    pub counters: BTreeMap<String, u64>,
    /// What lies where in memory; only for [the lens](crate::GuestCell::lens).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_map: Option<Box<MemoryMap>>,
}

impl Measurement {
    /// How long packets took there and back, in nanoseconds of the guest's clock.
    pub fn latency(&self) -> Option<&Histogram> {
        let open = self.open.as_ref().map(|open| &open.round_trip.latency);
        open.or(self.round_trip.as_ref())
    }
}
