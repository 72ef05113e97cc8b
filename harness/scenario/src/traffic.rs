// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which packets a scenario asks for.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::throughput::SearchMatrix;
use crate::values::{once, FromNumber, Values};
use mutexlab_model::rfc2544::back_to_back::BackToBack;
use mutexlab_model::traffic::{
    Checksum, Cloned, Ends, Family, Load, Payload, Popularity, Protocol, Steering, Way,
};

/// The combinations of traffic. Each of `round-trips`, `rates`, `search`, `back-to-back` and `bulk`
/// that is given is a load of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrafficMatrix {
    /// Who makes the packets.
    #[serde(default = "on_the_wire")]
    pub ends: Values<Ends>,
    /// Where the client is.
    pub ways: Values<Way>,
    /// IP versions.
    pub families: Values<Family>,
    /// Transport protocols.
    pub protocols: Values<Protocol>,
    /// Payloads in bytes, or "imix".
    pub payloads: Values<Payload>,
    /// Numbers of flows, at most 1,000,000; all their packets are handled by CPU 0. One, if neither this
    /// nor `flows-per-cpu` is given.
    pub flows: Option<Values<u32>>,
    /// Numbers of flows for each of the guest's CPUs, which handle their packets in turn. Closed loops of
    /// single forwarded packets on the wire only.
    pub flows_per_cpu: Option<Values<u32>>,
    /// Which CPU handles the answers of these.
    #[serde(default = "symmetric")]
    pub steering: Values<Steering>,
    /// Which of them a packet is of.
    #[serde(default = "uniform")]
    pub popularity: Values<Popularity>,
    /// With which checksum status the router receives packets. Closed loops of single packets on the wire
    /// only.
    #[serde(default = "unverified")]
    pub checksum: Values<Checksum>,
    /// What packets share with clones of theirs. Of the same loops.
    #[serde(default = "not_cloned")]
    pub cloned: Values<Cloned>,
    /// Closed loop: round trips that are measured in each cell.
    #[schemars(range(min = 1))]
    pub round_trips: Option<u32>,
    /// Packets of the client in each; more than one reach the router at once. One flow of UDP of
    /// the way "forward" only.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 128))]
    pub burst: u32,
    /// Open loop: packets a second.
    pub rates: Option<Values<u32>>,
    /// Packets that are measured at each of these rates.
    #[schemars(range(min = 1))]
    pub packets: Option<u32>,
    /// New flows a second at each of these rates.
    pub churn: Option<Values<u32>>,
    /// Search: the greatest rates at which no more packets are lost than may be.
    pub search: Option<SearchMatrix>,
    /// Back-to-back frames: the longest burst without a loss (RFC 9004).
    pub back_to_back: Option<BackToBack>,
    /// Bulk: bytes of one stream of TCP, as fast as it goes. Only between ends of the stack.
    #[schemars(range(min = 1))]
    pub bulk: Option<u64>,
    /// Round trips before what is measured.
    pub warm_up: u32,
}

impl TrafficMatrix {
    /// All numbers of flows on a machine of so many CPUs, and over how many CPUs they are spread.
    pub fn all_flows(&self, cpus: u32) -> Vec<(u32, Option<NonZeroU32>)> {
        let mut all = Vec::new();
        all.extend(self.flows.iter().flatten().map(|&flows| (flows, None)));
        for &flows in self.flows_per_cpu.iter().flatten() {
            all.push((flows.saturating_mul(cpus), NonZeroU32::new(cpus)));
        }
        if self.flows.is_none() && self.flows_per_cpu.is_none() {
            all.push((1, None));
        }
        all
    }

    /// All loads, in order.
    pub fn loads(&self) -> Vec<Load> {
        let mut loads = Vec::new();
        loads.extend(self.round_trips.map(|round_trips| Load::Closed {
            round_trips,
            burst: self.burst,
        }));
        for &rate in self.rates.iter().flatten() {
            let open = |churn| Load::Open {
                rate,
                packets: self.packets.unwrap_or(1),
                churn,
            };
            match &self.churn {
                Some(churn) => loads.extend(churn.iter().map(|&churn| open(churn))),
                None => loads.push(open(0)),
            }
        }
        let searches = self.search.iter().flat_map(SearchMatrix::goals);
        loads.extend(searches.map(Load::Search));
        loads.extend(self.back_to_back.map(Load::BackToBack));
        loads.extend(self.bulk.map(|bytes| Load::Bulk { bytes }));
        loads
    }
}

impl FromNumber for Payload {
    fn from_number(number: u32) -> Option<Self> {
        u16::try_from(number).ok().map(Self::Bytes)
    }
}

fn on_the_wire() -> Values<Ends> {
    Values(vec![Ends::Wire])
}

fn uniform() -> Values<Popularity> {
    Values(vec![Popularity::Uniform])
}

fn unverified() -> Values<Checksum> {
    Values(vec![Checksum::None])
}

fn not_cloned() -> Values<Cloned> {
    Values(vec![Cloned::No])
}

fn symmetric() -> Values<Steering> {
    Values(vec![Steering::Symmetric])
}
