// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the plugin saw between two marks.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Caches;

/// Version of this form.
pub const VERSION: u32 = 1;

/// One window. All addresses are the guest's virtual ones unless they are said to be physical.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// [`VERSION`].
    pub version: u32,
    /// The modelled caches.
    pub caches: Caches,
    /// Instructions of each CPU from opening to closing. Their sum is the sum over [`Self::code`].
    pub instructions: Vec<u64>,
    /// Packets whose way ended in the window.
    pub packets: u64,
    /// Packets whose way began and did not end, or the other way round.
    pub torn: u64,
    /// The call tree: a node's parent stands before it. The first node is the root, which is nobody's
    /// child and has no code.
    pub nodes: Vec<Node>,
    /// What each node's instructions cost.
    pub code: Vec<Code>,
    /// The lines of memory that were read or written as data.
    pub lines: Vec<Line>,
}

/// A function as it was called along one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its caller's index in [`Recording::nodes`].
    pub parent: u32,
    /// How it was come to.
    pub entry: Entry,
    /// Where it begins: what was called. A jump out of a function (a tail call) makes no node: its
    /// target's instructions are the node's, and the harness, which knows where functions end, tells
    /// them apart by their addresses. 0 for the root and for user space.
    pub address: u64,
    /// How often.
    pub calls: u64,
}

/// How a node was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// By a call.
    Call,
    /// By an interrupt or exception; such nodes are children of the root.
    Interrupt,
    /// By a system call; such nodes are children of the root.
    SystemCall,
    /// Not seen: it ran when the window opened, or was switched to; such nodes are children of the
    /// root.
    Unseen,
    /// User space; such nodes are children of the root.
    User,
}

/// What one instruction cost, of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// The node.
    pub node: u32,
    /// Where the instruction is.
    pub address: u64,
    /// Whether this is what it cost within the spans of packets, or outside of them.
    pub in_span: bool,
    /// What it cost, in all.
    pub costs: Costs,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// Instructions executed. An iteration of a REP counts as QEMU counts it.
    pub instructions: u64,
    /// Reads of data; one that crosses a line is two.
    pub reads: u64,
    /// Writes of data.
    pub writes: u64,
    /// Lines of code that were not in L1I.
    pub l1i_misses: u64,
    /// Reads and writes whose line was not in L1D, or not there as needed.
    pub l1d_misses: u64,
    /// Of code and data, those that were not in L2 either.
    pub l2_misses: u64,
    /// And not in the last level nor in another CPU's caches.
    pub last_misses: u64,
    /// Lines that came from another CPU's caches, where they were modified, or that another CPU had to
    /// give up so that they could be written here.
    pub transfers: u64,
    /// Of these, those whose accessed bytes another CPU wrote, or had read since they were last
    /// written: true sharing. The others are false sharing.
    pub true_sharing: u64,
    /// Copies in other CPUs' caches that were made invalid.
    pub invalidations: u64,
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        self.instructions += other.instructions;
        self.reads += other.reads;
        self.writes += other.writes;
        self.l1i_misses += other.l1i_misses;
        self.l1d_misses += other.l1d_misses;
        self.l2_misses += other.l2_misses;
        self.last_misses += other.last_misses;
        self.transfers += other.transfers;
        self.true_sharing += other.true_sharing;
        self.invalidations += other.invalidations;
    }
}

/// A line of memory of [`Caches::LINE`] bytes, as it was used as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its physical address.
    pub physical: u64,
    /// The virtual address by which it was first accessed.
    pub address: u64,
    /// Where the instruction is that accessed it first; it tells whose memory is that has no name.
    pub code: u64,
    /// Whether this is its use within the spans of packets, or outside of them.
    pub in_span: bool,
    /// By how many packets: how often it was the first access by a packet. 0 outside of spans.
    pub packets: u64,
    /// The same, of packets that wrote to it.
    pub packets_writing: u64,
    /// Which bytes of it were read: bit 0 is the first.
    pub bytes_read: u64,
    /// Which were written.
    pub bytes_written: u64,
    /// The CPUs that accessed it: bit 0 is CPU 0.
    pub cpus: u64,
    /// The CPUs that wrote to it.
    pub cpus_writing: u64,
    /// What accesses to it cost; no instructions, and nothing of code.
    pub costs: Costs,
}
