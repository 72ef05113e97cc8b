// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the host tells the agent in the guest, and what the agent answers.
//!
//! The host leaves one [`Order`] as JSON in the guest's root. The agent answers with one
//! [`Event`] a line on its standard output, each as soon as it is true, so that what a guest
//! finished before it died is kept.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::Pattern;
use super::shell::visit::Visit;
use crate::back_to_back::{BackToBack, Found};
use crate::histogram::Histogram;
use crate::lens::memory_map::MemoryMap;
use crate::scenario::Mode;
use crate::search::Searched;
pub use crate::subject::Subject;
pub use crate::traffic::{
    Ends, Family, Load, Mix, Payload, Popularity, Protocol, Steering, Traffic, Way,
};

/// Raised when an old agent could not understand a new host or the reverse.
pub const VERSION: u32 = 3;

/// Where the order lies in the guest.
pub const ORDER_PATH: &str = "/lab/order.json";
/// Where the modules lie in the guest.
pub const PROXY_MODULE_PATH: &str = "/lab/mutex_proxy.ko";
/// See [`PROXY_MODULE_PATH`].
pub const PROBE_MODULE_PATH: &str = "/lab/mutex_probe.ko";
/// Where redsocks lies in the guest, if the order needs it.
pub const REDSOCKS: &str = "/usr/sbin/redsocks";
/// Where its SOCKS server lies.
pub const MICROSOCKS: &str = "/usr/bin/microsocks";
/// Every line of the agent's that is an event starts with this, since a guest's init and its
/// programs may print, too.
pub const EVENT_PREFIX: &str = "@mutexlab ";

/// All that one boot has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`] of the host.
    pub version: u32,
    /// The work itself.
    pub work: Work,
}

/// How many flows there are in the cells of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// In the cell with the most.
    pub max: u32,
    /// In all together.
    pub total: u64,
}

impl Order {
    /// Whether it measures or tests `subject`.
    pub fn needs(&self, subject: Subject) -> bool {
        match &self.work {
            Work::Boot | Work::Micro | Work::Patterns(_) | Work::Fault(_) | Work::Shell(_) => false,
            Work::Measure { cells, .. } => cells.iter().any(|cell| cell.subject == subject),
            Work::Test(names) => names.iter().any(|name| name.contains(subject.name())),
        }
    }

    /// The bursts that its cells search.
    pub fn bursts(&self) -> impl Iterator<Item = BackToBack> + '_ {
        let cells = match &self.work {
            Work::Measure { cells, .. } => cells.as_slice(),
            _ => &[],
        };
        cells.iter().filter_map(|cell| match cell.traffic.load {
            Load::BackToBack(goal) => Some(goal),
            _ => None,
        })
    }

    /// How many flows its cells have.
    pub fn flows(&self) -> FlowCount {
        let Work::Measure { cells, .. } = &self.work else {
            return FlowCount::default();
        };
        cells.iter().fold(FlowCount::default(), |count, cell| {
            let flows = cell.traffic.flows_in_all();
            FlowCount {
                max: count.max.max(flows),
                total: count.total + u64::from(flows),
            }
        })
    }
}

/// What a boot is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Nothing: coming up and going down again answers the question.
    Boot,
    /// Measure cells, in order.
    Measure {
        /// What time is counted in, which says whether waiting costs any.
        mode: Mode,
        /// The cells.
        cells: Vec<GuestCell>,
    },
    /// Measure single steps of the datapath, beside what the kernel offers for the same.
    Micro,
    /// Do what the lens is tested with.
    Patterns(Vec<Pattern>),
    /// Run the named functional tests, in order.
    Test(Vec<String>),
    /// Misbehave, to show that the host notices.
    Fault(Fault),
    /// Have the module redirect, and let somebody look around.
    Shell(Visit),
}

/// A way to go wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The kernel panics.
    Panic,
    /// The kernel prints a warning with a stack and goes on.
    Warning,
    /// The agent says nothing any more.
    Silence,
    /// The agent ends without finishing its order.
    AgentExit,
    /// A signal ends the agent.
    AgentCrash,
    /// The agent takes memory until there is none left.
    OutOfMemory,
    /// A CPU spins with interrupts off.
    Lockup,
    /// The kernel reads memory that it has freed.
    UseAfterFree,
}

/// One cell as the guest sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestCell {
    /// Stable name of the cell, unique in the order.
    pub id: String,
    /// What is measured.
    pub subject: Subject,
    /// Parameters of the module; empty for other subjects.
    pub parameters: BTreeMap<String, String>,
    /// The packets.
    pub traffic: Traffic,
    /// If there is one, each packet costs so many instructions more than the subject takes: to test
    /// the instrument by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballast: Option<u16>,
    /// If there is any, the agent measures wrong: to test the self check by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
    /// If there is one, the server misbehaves so while the cell is measured: to test the instrument
    /// by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mischief: Option<Mischief>,
    /// Whether the lens looks on: what it sees takes a map of the guest's memory to be understood.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lens: bool,
}

/// A way to measure wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Every packet takes so many ticks more than it does.
    Skew(u64),
    /// Every packet takes a multiple of so many ticks.
    Coarse(u64),
    /// Whatever is sent is taken to have arrived, once and in order.
    Credulous,
    /// The module is kept in use when it is to go.
    HoldModule,
}

/// What a server does wrong on purpose, with each `every`-th of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mischief {
    /// What is done.
    pub deed: Deed,
    /// To which answers: to those whose number within its flow, or in an open loop within the whole
    /// stream, is one less than a multiple of this. At least 1.
    pub every: u32,
}

/// What can be done to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// It is not sent.
    Drop,
    /// It is sent so many nanoseconds later.
    Delay(u64),
    /// It is sent twice.
    Duplicate,
    /// It is sent after the next one; in a closed loop, where there is none, not at all.
    Reorder,
    /// A bit of its payload is changed, and the checksum left as it was.
    Corrupt,
}

/// The most packets of a burst: UDP_MAX_SEGMENTS of linux/udp.h.
pub const MAX_BURST: u32 = 128;
/// The most bytes of all their payloads together, so that a packet of either IP version holds them.
pub const MAX_BURST_BYTES: u32 = 65_000;

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The agent is up.
    Up {
        /// [`VERSION`] of the agent.
        version: u32,
        /// `uname -r` of the guest.
        kernel: String,
        /// Number of CPUs online.
        cpus: usize,
        /// Frequency of the time-stamp counter in kHz against the guest's monotonic clock, so
        /// that ticks can be told as time; 1,000,000 in virtual mode.
        tsc_khz: u64,
    },
    /// A cell begins.
    CellStarted {
        /// The cell's id.
        id: String,
    },
    /// A cell has ended.
    CellEnded {
        /// The cell's id.
        id: String,
        /// What was measured, or what went wrong.
        outcome: Outcome,
    },
    /// All single steps have been measured.
    Steps {
        /// What each took, in the order of measuring.
        steps: Vec<StepTimes>,
    },
    /// A pattern was done in a window of the lens.
    Pattern {
        /// Which.
        pattern: Pattern,
        /// What it took, in ticks of the time-stamp counter and a constant.
        ticks: u64,
    },
    /// The network is there with the module at work, and somebody may come in.
    LaidOut {
        /// The loaded modules: the addresses of the sections of each, by their names.
        modules: BTreeMap<String, BTreeMap<String, u64>>,
    },
    /// A functional test begins.
    TestStarted {
        /// The test's name.
        name: String,
    },
    /// A functional test has ended.
    TestEnded {
        /// The test's name.
        name: String,
        /// None if it passed, else what went wrong.
        failure: Option<String>,
    },
    /// The order is done, and the guest goes down.
    Done,
}

/// What a single step took: ticks, the clock's own cost taken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTimes {
    /// The step's name; module/abi/micro.rs says what each does.
    pub step: String,
    /// What it depends on, if it does: a place on a chain or list, or bytes.
    pub size: Option<u32>,
    /// How often it was measured.
    pub samples: u64,
    /// The least.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The most.
    pub max: u64,
    /// Sum of all.
    pub sum: u64,
}

/// How a cell ended in the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything arrived as it should.
    Ok(Box<Measurement>),
    /// The subject did something wrong; what was counted until then is kept.
    Failed {
        /// What was wrong.
        reason: String,
        /// Delivery until then.
        delivery: Delivery,
    },
    /// The agent could not do its part.
    Infra {
        /// What it could not do.
        reason: String,
    },
}

/// Numbers of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub chains: Option<Chains>,
    /// The module's counters over the cell, by name; empty for other subjects.
    pub counters: BTreeMap<String, u64>,
    /// What lies where in memory; only for [the lens](GuestCell::lens).
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstPacket {
    /// The median over several flows.
    pub median: u64,
    /// The 10th percentile: of a flow whose chains were empty, from memory that was at hand.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The chains of the module's flow table, of the IP version of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chains {
    /// How many there are.
    pub chains: u64,
    /// Entries on all of them; a flow has two.
    pub entries: u64,
    /// Chains without an entry.
    pub empty: u64,
    /// Entries on the longest.
    pub longest: u64,
}

/// The time of one CPU, in hundredths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreTime {
    /// Its number.
    pub cpu: u32,
    /// Without anything to do.
    pub idle: u64,
    /// All.
    pub all: u64,
}
