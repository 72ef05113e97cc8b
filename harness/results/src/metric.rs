// SPDX-License-Identifier: MIT OR Apache-2.0

//! A metric: a number with a name, and what is to be known of it.

use mutexlab_model::mode::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric that is not exact has changed only if it did so by at least this part of the larger mean:
/// what is less is of no use to anybody, however sure it is.
pub const MIN_EFFECT: f64 = 0.01;

/// A modelled metric has changed only if it did so by at least so much of an event (or a cycle) for each
/// packet, too: a single miss in a thousand packets is none.
pub const MIN_MODELLED: f64 = 0.01;

/// Mean cost of a whole way in the hooks, both directions.
pub const HOOK_MEAN: &str = "hook.mean";
/// The median of first packets, which make their flows.
pub const FIRST_PACKET: &str = "hook.first_packet";
/// Their 10th percentile.
pub const FIRST_PACKET_P10: &str = "hook.first_packet.p10";
/// The kernel's memory of one of many flows.
pub const MEMORY_PER_FLOW: &str = "memory_per_flow";
/// All that the router does for one of packets that come at once.
pub const ROUTER: &str = "router.packet";
/// Mean time of a packet's whole path.
pub const PATH_MEAN: &str = "path.mean";
/// [`PATH_MEAN`] less that of `none`.
pub const PATH_OVER_NONE: &str = "path.over_none";
/// What 1024 bytes of a stream take.
pub const BULK_PER_KIB: &str = "bulk.per_kib";
/// Percentiles by name, in thousandths of a percent.
pub const PERCENTILES: [(&str, u32); 5] = [
    ("p50", 50_000),
    ("p90", 90_000),
    ("p95", 95_000),
    ("p99", 99_000),
    ("p99.9", 99_900),
];

/// A number and what it means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name: span, direction where it is of one, and statistic.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// Whether a repetition must give the same number.
    pub kind: Kind,
    /// The number.
    pub value: f64,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unit {
    /// Executed instructions, of one packet.
    #[serde(rename = "instructions/packet")]
    InstructionsPerPacket,
    /// Nanoseconds of real time, of one packet.
    #[serde(rename = "ns/packet")]
    NanosecondsPerPacket,
    /// Nanoseconds of the guest's clock; in virtual mode an instruction takes one.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Executed instructions, of 1024 bytes of payload.
    #[serde(rename = "instructions/KiB")]
    InstructionsPerKib,
    /// Nanoseconds of real time, of 1024 bytes of payload.
    #[serde(rename = "ns/KiB")]
    NanosecondsPerKib,
    /// Packets a second of the guest's clock.
    #[serde(rename = "packets/s")]
    PacketsPerSecond,
    /// 10^9 bits of Ethernet frames, their checksums left out, a second of the guest's clock.
    #[serde(rename = "Gbit/s")]
    GigabitsPerSecond,
    /// Bytes of memory, of one flow.
    #[serde(rename = "bytes/flow")]
    BytesPerFlow,
    /// Packets.
    #[serde(rename = "packets")]
    Packets,
    /// How often it happened, for each packet.
    #[serde(rename = "1/packet")]
    PerPacket,
    /// Cycles of a CPU that is modelled, of one packet.
    #[serde(rename = "cycles/packet")]
    CyclesPerPacket,
    /// A hundredth of the whole.
    #[serde(rename = "%")]
    Percent,
    /// Entries of a table.
    #[serde(rename = "entries")]
    Entries,
}

impl Unit {
    /// The unit of time a packet takes.
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Virtual => Self::InstructionsPerPacket,
            Mode::Wall => Self::NanosecondsPerPacket,
        }
    }
}

/// Which direction is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Less of it.
    Lower,
    /// More of it.
    Higher,
    /// Neither: it tells what was done, or explains another metric.
    Neither,
}

/// Whether a repetition must give the same number; what is less certain is greater.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It must, to the instruction.
    Exact,
    /// It is a model's answer to what was counted. A repetition gives the same but for what a model sees
    /// of other things, such as where memory happens to lie.
    Modelled,
    /// It must if the boot repeats: same seed, same cells in the same guest. What was before it in its boot moves it a little, and so
    /// does another seed.
    Repeatable,
    /// It varies.
    Sampled,
}

/// What a guest's ticks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What time is counted in.
    pub mode: Mode,
    /// Ticks of the time-stamp counter a millisecond.
    pub khz: u64,
}

impl Clock {
    /// Ticks in the unit of the mode: instructions, or nanoseconds.
    pub(super) fn time(self, ticks: f64) -> f64 {
        match self.mode {
            Mode::Virtual => ticks,
            Mode::Wall => ticks * 1e6 / to_float(self.khz.max(1)),
        }
    }
}

/// `None` if there is nothing to divide by.
pub(crate) fn ratio(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| to_float(sum) / to_float(count))
}

/// Counts of instructions, nanoseconds and bytes stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(crate) fn to_float(number: u64) -> f64 {
    number as f64
}
