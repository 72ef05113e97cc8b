// SPDX-License-Identifier: MIT OR Apache-2.0

//! An analysis for tests.

use anyhow::Result;
use mutexlab_lens_recording::recording::{Code, Costs, Entry, Line, Node, Recording};
use mutexlab_lens_recording::settings::Caches;
use mutexlab_protocol::memory_map::{Cache, MemoryMap, Slab};

use crate::analysis::{Analysis, Origin};
use crate::objects::Objects;
use crate::symbols::{Owner, Symbols, Synthetic};

pub(crate) const SLAB: u64 = 0xffff_8880_0100_0000;

pub(crate) fn symbols() -> Symbols {
    let kernel = [
        ("net_rx", 0x1000, 0x100),
        ("nf_hook_slow", 0x1100, 0x100),
        ("timer", 0x1200, 0x100),
    ];
    let proxy = [("proxy::run", 0x9000, 0x100), ("proxy::find", 0x9100, 0x80)];
    Symbols::synthetic(&[
        Synthetic {
            owner: Owner::Kernel,
            functions: &kernel,
            variables: &[("jiffies", 0x20_0000_0000_0000, 8)],
        },
        Synthetic {
            owner: Owner::Module("mutex_proxy".to_owned()),
            functions: &proxy,
            variables: &[("proxy::KEYS", 0x20_0000_0001_0000, 16)],
        },
    ])
}

pub(crate) fn map() -> MemoryMap {
    MemoryMap {
        caches: vec![
            Cache {
                name: "mutex_flow_v4".to_owned(),
                object: 192,
            },
            Cache {
                name: "kmalloc-64".to_owned(),
                object: 64,
            },
        ],
        slabs: vec![
            Slab {
                start: SLAB,
                bytes: 4096,
                cache: 0,
            },
            Slab {
                start: SLAB + 4096,
                bytes: 4096,
                cache: 1,
            },
        ],
        ..MemoryMap::default()
    }
}

pub(crate) fn node(parent: u32, entry: Entry, address: u64, calls: u64) -> Node {
    Node {
        parent,
        entry,
        address,
        calls,
    }
}

pub(crate) fn code(node: u32, address: u64, in_span: bool, instructions: u64) -> Code {
    Code {
        node,
        address,
        in_span,
        costs: Costs {
            instructions,
            ..Costs::default()
        },
    }
}

pub(crate) fn line(
    physical: u64,
    address: u64,
    code: u64,
    packets_writing: u64,
    cpus: u64,
) -> Line {
    Line {
        physical,
        address,
        code,
        in_span: true,
        packets: 10,
        packets_writing,
        bytes_read: 0xff,
        bytes_written: if packets_writing > 0 { 0xff } else { 0 },
        cpus,
        cpus_writing: if packets_writing > 0 { 1 } else { 0 },
        costs: Costs {
            reads: 10,
            last_misses: 5,
            ..Costs::default()
        },
    }
}

/// As [`recording`], with so many more instructions in the spans of packets.
pub fn with_more(more: i64) -> Recording {
    let mut recording = recording();
    let mut code = recording.code.iter_mut();
    let in_span = code
        .find(|code| code.in_span)
        .map(|code| &mut code.costs.instructions);
    for count in in_span
        .into_iter()
        .chain(recording.instructions.first_mut())
    {
        *count = count.saturating_add_signed(more);
    }
    recording
}

/// Ten packets: net_rx calls nf_hook_slow, that the proxy's run, which jumps to find; a timer
/// interrupts.
pub fn recording() -> Recording {
    Recording {
        version: mutexlab_lens_recording::recording::VERSION,
        caches: Caches::default(),
        instructions: vec![700, 300],
        packets: 10,
        torn: 0,
        nodes: vec![
            node(0, Entry::Call, 0, 0),
            node(0, Entry::Unseen, 0x1000, 1),
            node(1, Entry::Call, 0x1100, 10),
            node(2, Entry::Call, 0x9000, 10),
            node(0, Entry::Interrupt, 0x1200, 1),
        ],
        code: vec![
            code(1, 0x1004, false, 500),
            code(2, 0x1104, true, 100),
            code(2, 0x1108, false, 50),
            code(3, 0x9004, true, 200),
            code(3, 0x9104, true, 100),
            code(4, 0x1204, false, 50),
        ],
        lines: vec![
            // A flow's second line, written by its CPU only.
            line(1, SLAB + 192 + 64, 0x9104, 10, 0b1),
            // Anybody's memory, which the proxy accessed first, and the kernel.
            line(2, SLAB + 4096, 0x9004, 0, 0b11),
            line(3, SLAB + 4096 + 64, 0x1104, 10, 0b11),
            // A variable, which another CPU reads.
            line(4, 0x20_0000_0001_0000, 0x9004, 10, 0b11),
            line(5, 0x20_0000_0000_0000, 0x1104, 0, 0b11),
        ],
    }
}

pub(crate) fn analyse(recording: &Recording) -> Result<Analysis> {
    let (symbols, map) = (symbols(), map());
    let origin = Origin {
        cell: "cell",
        commit: "abc",
    };
    Analysis::new(recording, &symbols, &Objects::new(&symbols, &map), origin)
}

/// The analysis of the recording with a change.
pub fn example(change: fn(&mut Recording)) -> Analysis {
    let mut recording = recording();
    change(&mut recording);
    analyse(&recording).unwrap()
}
