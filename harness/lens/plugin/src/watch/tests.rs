// SPDX-License-Identifier: MIT OR Apache-2.0

//! Short programs, and what their windows record.

use super::*;
use mutexlab_lens_recording::recording::Entry;

/// In user space, whose calls are not followed.
const CODE: u64 = 0x40_0000;
/// In the kernel, whose are.
const KERNEL_CODE: u64 = 0xffff_ffff_8100_0000;
const DATA: u64 = 0xffff_8880_0000_0000;

/// A program whose instructions were all translated, and are executed by number.
struct Guest {
    watch: Watch,
    recordings: Vec<Recording>,
}

impl Guest {
    fn new() -> Self {
        Self {
            watch: Watch::new(&Caches::default(), 2).unwrap(),
            recordings: Vec::new(),
        }
    }

    fn add(&mut self, address: u64, bytes: &[u8]) -> InstructionId {
        let physical = address & 0xfff;
        self.watch
            .add(Instruction::decode(address, bytes), physical)
    }

    fn nop(&mut self, address: u64) -> InstructionId {
        self.add(address, &[0x90])
    }

    fn mark(&mut self, address: u64, mark: Mark) -> InstructionId {
        let mut bytes = vec![0x0f, 0x1f, 0x84, 0x00];
        bytes.extend(mark.displacement().to_le_bytes());
        self.add(address, &bytes)
    }

    fn run(&mut self, cpu: usize, id: InstructionId) {
        self.recordings.extend(self.watch.execute(cpu, id));
    }

    /// Translates a mark and executes it at once.
    fn pass(&mut self, cpu: usize, address: u64, mark: Mark) {
        let id = self.mark(address, mark);
        self.run(cpu, id);
    }

    fn access(&mut self, cpu: usize, id: InstructionId, offset: u64, size: u64, is_write: bool) {
        let data = Data {
            address: DATA + offset,
            physical: 0x10_0000 + offset,
            size,
            is_write,
        };
        self.watch.access(cpu, id, data);
    }
}

fn sum(recording: &Recording) -> Costs {
    let mut sum = Costs::default();
    for code in &recording.code {
        sum += code.costs;
    }
    sum
}

#[test]
fn what_is_between_open_and_close_counts_but_for_pauses() {
    let mut guest = Guest::new();
    let nop = guest.nop(CODE);
    guest.run(0, nop);
    guest.pass(0, CODE + 1, Mark::Open);
    let counted = guest.nop(CODE + 9);
    guest.run(0, counted);
    guest.pass(0, CODE + 10, Mark::Pause);
    let between = guest.nop(CODE + 18);
    guest.run(0, between);
    guest.access(0, between, 0, 8, true);
    guest.pass(0, CODE + 19, Mark::Resume);
    let counted = guest.nop(CODE + 27);
    guest.run(0, counted);
    guest.access(0, counted, 0, 8, false);
    guest.run(1, nop);
    guest.pass(0, CODE + 28, Mark::Close);
    guest.run(0, nop);
    let [recording] = &guest.recordings[..] else {
        panic!("{:?}", guest.recordings);
    };
    assert_eq!(recording.instructions, [2, 1]);
    assert_eq!(sum(recording).instructions, 3);
    // The pause has not brought the line.
    let [line] = &recording.lines[..] else {
        panic!("{:?}", recording.lines);
    };
    assert_eq!((line.costs.writes, line.costs.last_misses), (0, 1));
}

#[test]
fn a_second_window_begins_at_nothing() {
    let mut guest = Guest::new();
    let nop = guest.nop(CODE);
    for _ in 0..2 {
        guest.pass(0, CODE + 8, Mark::Open);
        guest.run(0, nop);
        guest.access(0, nop, 0, 8, false);
        guest.pass(0, CODE + 16, Mark::Close);
    }
    let [first, second] = &guest.recordings[..] else {
        panic!("{:?}", guest.recordings);
    };
    assert_eq!(first.instructions, second.instructions);
    // Caches were filled by the first, and emptied by a restart only.
    assert_eq!(first.lines[0].costs.last_misses, 1);
    assert_eq!(second.lines[0].costs.last_misses, 0);
    guest.watch.restart();
    guest.pass(0, CODE + 8, Mark::Open);
    guest.run(0, nop);
    guest.access(0, nop, 0, 8, false);
    guest.pass(0, CODE + 16, Mark::Close);
    assert_eq!(guest.recordings[2].lines[0].costs.last_misses, 1);
}

#[test]
fn an_access_across_lines_is_one_of_each() {
    let mut guest = Guest::new();
    let load = guest.nop(CODE);
    guest.pass(0, CODE + 8, Mark::Open);
    guest.run(0, load);
    guest.access(0, load, 60, 8, false);
    // Of an instruction that the CPU is not at.
    guest.access(0, load + 1, 256, 8, false);
    guest.pass(0, CODE + 16, Mark::Close);
    let lines = &guest.recordings[0].lines;
    let bytes: Vec<_> = lines
        .iter()
        .map(|line| (line.physical, line.address, line.bytes_read))
        .collect();
    assert_eq!(
        bytes,
        [(0x10_0000, DATA, 0xf << 60), (0x10_0040, DATA + 64, 0xf)]
    );
    assert_eq!(sum(&guest.recordings[0]).reads, 2);
}

#[test]
fn packets_count_their_lines_once_each() {
    let mut guest = Guest::new();
    let nop = guest.nop(CODE);
    guest.pass(0, CODE + 0x10, Mark::Open);
    // A span of no packet's is none.
    guest.pass(0, CODE + 0x30, Mark::SpanBegin);
    guest.run(0, nop);
    guest.access(0, nop, 0, 8, false);
    guest.pass(0, CODE + 0x40, Mark::SpanEnd);
    for packet in 0..3 {
        guest.pass(0, CODE + 0x20, Mark::PacketIn);
        for _ in 0..2 {
            guest.pass(0, CODE + 0x30, Mark::SpanBegin);
            guest.run(0, nop);
            guest.access(0, nop, 0, 8, false);
            guest.access(0, nop, 64, 8, packet == 1);
            guest.pass(0, CODE + 0x40, Mark::SpanEnd);
        }
        guest.run(0, nop);
        guest.pass(0, CODE + 0x50, Mark::PacketOut);
    }
    // One that is lost, one that replaces it, and one whose beginning was not seen.
    guest.pass(0, CODE + 0x20, Mark::PacketIn);
    guest.pass(0, CODE + 0x20, Mark::PacketIn);
    guest.pass(1, CODE + 0x50, Mark::PacketOut);
    guest.pass(0, CODE + 0x60, Mark::Close);
    let recording = &guest.recordings[0];
    assert_eq!((recording.packets, recording.torn), (3, 3));
    let in_span: Vec<_> = recording
        .lines
        .iter()
        .filter(|line| line.in_span)
        .map(|line| {
            (
                line.address,
                line.packets,
                line.packets_writing,
                line.costs.reads,
            )
        })
        .collect();
    assert_eq!(in_span, [(DATA, 3, 0, 6), (DATA + 64, 3, 1, 4)]);
    let in_span: u64 = recording
        .code
        .iter()
        .filter(|code| code.in_span)
        .map(|code| code.costs.instructions)
        .sum();
    assert_eq!(in_span, 6);
}

#[test]
fn the_tree_has_no_more_than_was_called() {
    let mut guest = Guest::new();
    // call +0xfb; ...
    let call = guest.add(KERNEL_CODE, &[0xe8, 0xfb, 0x00, 0x00, 0x00]);
    let ret = guest.add(KERNEL_CODE + 0x100, &[0xc3]);
    let after = guest.nop(KERNEL_CODE + 5);
    let one = |guest: &mut Guest| {
        for (id, is_write) in [(call, true), (ret, false)] {
            guest.run(0, id);
            guest.access(0, id, 0x100, 8, is_write);
        }
        guest.run(0, after);
    };
    one(&mut guest);
    guest.pass(0, KERNEL_CODE + 6, Mark::Open);
    guest.pass(0, KERNEL_CODE + 14, Mark::Close);
    guest.pass(0, KERNEL_CODE + 22, Mark::Open);
    // jmp back to the call
    let jump = guest.add(KERNEL_CODE + 30, &[0xeb, 0xe0]);
    guest.run(0, jump);
    one(&mut guest);
    guest.pass(0, KERNEL_CODE + 6, Mark::Close);
    let [none, some] = &guest.recordings[..] else {
        panic!("{:?}", guest.recordings);
    };
    assert_eq!(none.nodes.len(), 1);
    let callee = some.nodes.last().unwrap();
    assert_eq!(
        (callee.entry, callee.address, callee.calls),
        (Entry::Call, KERNEL_CODE + 0x100, 1)
    );
    let caller = some.nodes[callee.parent as usize];
    assert_eq!((caller.entry, caller.parent), (Entry::Unseen, 0));
    assert_eq!(sum(some).instructions, 4);
}
