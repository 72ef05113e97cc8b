// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is counted of a cell: the agent tells it, and results keep it. "Ticks" are of the time-stamp counter: in
//! virtual mode instructions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::rfc2544::back_to_back::Found;
use crate::rfc2544::throughput::Searched;

/// Where the packets of a cell that carry payload went, warm-up included. Of those that carry
/// none (SYN, ACK, FIN) only such count as came to the wrong place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Packets that the client sent.
    pub sent: u64,
    /// Packets that arrived at the upstream.
    pub at_upstream: u64,
    /// Packets that arrived at the original destination.
    pub at_original: u64,
    /// Answers that the client received.
    pub replies: u64,
    /// Answers whose source was the original destination.
    pub replies_from_original: u64,
    /// Packets with another payload than was sent.
    pub bad_payload: u64,
    /// Packets with a wrong IP, TCP or UDP checksum.
    pub bad_checksum: u64,
}

/// Ticks that the hooks of a packet's way took, one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookCost {
    /// Ticks of the empty pairs on the way, already taken off everywhere here.
    pub overhead: u64,
    /// Packets in the histogram.
    pub packets: u64,
    /// Packets left out because an interrupt fell into a span.
    pub interrupted: u64,
    /// Packets left out because their way was not followed to its end.
    pub torn: u64,
    /// What each of them took.
    pub histogram: Histogram,
    /// Sum over the packets in the histogram.
    pub sum: u64,
    /// The cheapest packet.
    pub min: u64,
    /// The dearest packet, exact.
    pub max: u64,
    /// Mean by hook, in the order and with the names of the probe's interface.
    pub by_hook: BTreeMap<String, f64>,
}

/// The first packet of a flow, which makes it: ticks over its hooks, the empty pairs taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FirstPacket {
    /// The median over several flows.
    pub median: u64,
    /// The 10th percentile: of a flow whose buckets were empty, from memory that was at hand.
    pub p10: u64,
}

impl FirstPacket {
    /// What is left when `overhead` is taken off.
    #[must_use]
    pub const fn net_of(self, overhead: u64) -> Self {
        Self {
            median: self.median.saturating_sub(overhead),
            p10: self.p10.saturating_sub(overhead),
        }
    }
}

/// Time of the whole loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PathCost {
    /// Ticks from before the first packet to after the last answer.
    pub ticks: u64,
    /// The same in nanoseconds of the guest's clock.
    pub nanoseconds: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes of the client's frames, Ethernet's checksums left out.
    pub bytes: u64,
}

/// An open loop: packets sent at times that were fixed before. Times are in nanoseconds of the
/// guest's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OpenLoop {
    /// Packets a second that were to be sent.
    pub rate: u32,
    /// Packets that were sent.
    pub sent: u64,
    /// From the client to the server.
    pub forward: Transit,
    /// There and back.
    pub round_trip: Transit,
    /// By how much each packet was sent later than it should have been.
    pub lateness: Histogram,
    /// From the first answer to the last one.
    pub span: u64,
    /// Bytes of all answers' frames but the first one's, Ethernet's checksums left out.
    pub bytes: u64,
    /// New flows that took the place of others.
    pub churned: u64,
    /// Packets a second that the generator sends, answers and receives with nothing in between.
    pub limit: u64,
    /// The search for the rate, if it was one.
    pub searched: Option<Searched>,
    /// The search for the longest burst, if it was one.
    pub back_to_back: Option<Found>,
}

/// How packets of an open loop got to one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Transit {
    /// Packets that came, further copies not counted.
    pub arrived: u64,
    /// Packets that did not (RFC 7680).
    pub lost: u64,
    /// Packets that came after one that was sent later (RFC 4737, section 3).
    pub reordered: u64,
    /// Further copies of packets that had come (RFC 5560).
    pub duplicates: u64,
    /// From the time at which each packet should have been sent to its first copy's arrival.
    pub latency: Histogram,
}

/// What one stream took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BulkCost {
    /// Bytes of payload.
    pub bytes: u64,
    /// Ticks of the whole machine.
    pub ticks: u64,
    /// The same in nanoseconds of the guest's clock.
    pub nanoseconds: u64,
    /// Nanoseconds that the agent, which is both ends, and the threads of softirqs spent on it.
    pub work: u64,
    /// Ethernet frames that the server's link received.
    pub frames: u64,
    /// Their bytes, without their checksums.
    pub frame_bytes: u64,
}

/// The buckets of the module's flow table, of the IP version of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Buckets {
    /// How many there are.
    pub buckets: u64,
    /// Entries on all of them; a flow has two.
    pub entries: u64,
    /// Buckets without an entry.
    pub empty: u64,
    /// Entries in the longest.
    pub longest: u64,
}

/// The time of one CPU, in hundredths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CoreTime {
    /// Its number.
    pub cpu: u32,
    /// Without anything to do.
    pub idle: u64,
    /// All.
    pub all: u64,
}
