// SPDX-License-Identifier: MIT OR Apache-2.0

//! All that is seen of a guest, from a mark to prepare until its window is closed.

use mutex_abi::marks::Mark;
use rustc_hash::FxHashMap;

use crate::calls::{Calls, Charge};
use crate::instruction::Instruction;
use crate::line::LineId;
use crate::memory::{Access, Memory, Outcome};
use crate::tree::NodeId;
use mutexlab_lens_recording::recording::{Code, Costs, Line, Node, Recording, VERSION};
use mutexlab_lens_recording::settings::Caches;

/// An instruction that was translated, as [`Watch::add`] numbered it.
pub type InstructionId = u32;

/// A translated instruction.
#[derive(Clone, Debug)]
struct Translated {
    instruction: Instruction,
    /// The lines that it lies in.
    lines: [LineId; 2],
    /// What it was last charged to, of which node and whether in a span.
    charged: Option<(NodeId, bool, Charge)>,
    /// The line of data that it accessed last, and the number by which it is known.
    accessed: Option<(u64, LineId)>,
}

/// What one CPU does.
#[derive(Clone, Debug, Default)]
struct Cpu {
    /// Instructions since the window opened.
    instructions: u64,
    /// The line of code that was fetched last.
    fetched: Option<LineId>,
    /// The instruction that it is at.
    at: Option<InstructionId>,
    /// The packet whose way it follows: the how manieth of all CPUs; 0 for none.
    packet: u64,
    /// Whether it is in a span of it.
    in_span: bool,
}

/// How a line was used, within spans or outside of them.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// The instruction that was the first.
    code: u64,
    last_packet: u64,
    packets: u64,
    last_packet_writing: u64,
    packets_writing: u64,
    bytes_read: u64,
    bytes_written: u64,
    cpus: u64,
    cpus_writing: u64,
    costs: Costs,
}

/// A line that was used as data since the window opened.
#[derive(Clone, Debug)]
struct Used {
    address: u64,
    usage: [Usage; 2],
}

/// An access to data.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Its virtual address.
    pub address: u64,
    /// Its physical address. What is in the next page virtually is taken to be so physically.
    pub physical: u64,
    /// How many bytes it is about.
    pub size: u64,
    /// Whether they are written.
    pub is_write: bool,
}

/// Counts what a guest does.
#[derive(Clone, Debug)]
pub struct Watch {
    caches: Caches,
    is_open: bool,
    is_paused: bool,
    instructions: Vec<Translated>,
    cpus: Vec<Cpu>,
    calls: Calls,
    memory: Memory,
    code: Vec<Code>,
    code_places: FxHashMap<(NodeId, u64, bool), Charge>,
    /// By the lines' ids; as long as it has to be.
    used: Vec<Option<Box<Used>>>,
    packets_begun: u64,
    packets: u64,
    torn: u64,
}

impl Watch {
    /// Nothing was seen yet of `cpus` CPUs, whose caches are empty. `None` if there are no such caches,
    /// or too many CPUs.
    pub fn new(caches: &Caches, cpus: usize) -> Option<Self> {
        Some(Self {
            caches: *caches,
            is_open: false,
            is_paused: false,
            instructions: Vec::new(),
            cpus: vec![Cpu::default(); cpus],
            calls: Calls::new(cpus),
            memory: Memory::new(caches, cpus)?,
            code: Vec::new(),
            code_places: FxHashMap::default(),
            used: Vec::new(),
            packets_begun: 0,
            packets: 0,
            torn: 0,
        })
    }

    /// Forgets what was seen, and empties the caches; what was translated stays.
    pub fn restart(&mut self) {
        self.is_open = false;
        self.calls.restart();
        self.memory.clear();
        self.clear();
        for cpu in &mut self.cpus {
            *cpu = Cpu::default();
        }
    }

    /// Takes in an instruction that was translated, and lies at that physical address.
    pub fn add(&mut self, instruction: Instruction, physical: u64) -> InstructionId {
        let last = instruction.next.wrapping_sub(instruction.address + 1);
        let lines =
            [physical, physical + last].map(|address| self.memory.line(address / Caches::LINE));
        self.instructions.push(Translated {
            instruction,
            lines,
            charged: None,
            accessed: None,
        });
        (self.instructions.len() - 1) as InstructionId
    }

    /// The instruction of that number.
    pub fn instruction(&self, id: InstructionId) -> &Instruction {
        &self.instructions[id as usize].instruction
    }

    /// `cpu` is about to execute an instruction. What was seen, if that closes the window.
    pub fn execute(&mut self, cpu: usize, id: InstructionId) -> Option<Recording> {
        let Translated {
            instruction, lines, ..
        } = self.instructions[id as usize];
        let step = self.calls.step(cpu, &instruction);
        if let Some(charge) = step.repeated {
            self.take_back(cpu, charge);
        }
        self.cpus[cpu].at = Some(id);
        self.cpus[cpu].in_span = step.in_span;
        match instruction.mark {
            Some(Mark::Close) if self.is_open => return Some(self.close()),
            Some(Mark::Pause) => self.is_paused = true,
            Some(Mark::SpanEnd) => self.set_span(cpu, false),
            Some(Mark::PacketOut) => self.packet_out(cpu),
            _ => {}
        }
        let counts = self.is_open && !self.is_paused;
        let charge = counts.then(|| self.charge(cpu, id, step.node));
        self.calls.charged(cpu, charge);
        for line in lines {
            if !self.is_paused && self.cpus[cpu].fetched != Some(line) {
                self.cpus[cpu].fetched = Some(line);
                let outcome = self.memory.access(cpu, line, Access::Fetch);
                if let Some(charge) = charge {
                    self.code[charge as usize].costs += costs(Access::Fetch, outcome);
                }
            }
        }
        match instruction.mark {
            Some(Mark::Open) => self.open(),
            Some(Mark::Resume) => self.is_paused = false,
            Some(Mark::PacketIn) => self.packet_in(cpu),
            Some(Mark::SpanBegin) => self.set_span(cpu, self.cpus[cpu].packet != 0),
            _ => {}
        }
        None
    }

    /// The instruction that `cpu` is at accesses memory.
    pub fn access(&mut self, cpu: usize, id: InstructionId, data: Data) {
        // QEMU 7.2 takes what an interrupt pushes for an access of an instruction before it, often of
        // a call: it forgets only sometimes whose accesses are to be told.
        if self.cpus[cpu].at != Some(id) {
            return;
        }
        let Data { size, is_write, .. } = data;
        let Instruction {
            flow,
            is_atomic,
            address: code,
            ..
        } = *self.instruction(id);
        if flow.uses_stack(is_write) && !self.calls.stack(cpu, data.address) {
            return;
        }
        if self.is_paused {
            return;
        }
        let mut done = 0;
        while done < size {
            let (address, physical) = (data.address + done, data.physical + done);
            let offset = physical % Caches::LINE;
            let length = (size - done).min(Caches::LINE - offset);
            done += length;
            let bytes = (u64::MAX >> (Caches::LINE - length)) << offset;
            let access = match (is_write, is_atomic) {
                (true, _) => Access::Write(bytes),
                (false, true) => Access::ReadToWrite(bytes),
                (false, false) => Access::Read(bytes),
            };
            let line = self.line(id, physical / Caches::LINE);
            let outcome = self.memory.access(cpu, line, access);
            self.charge_access(cpu, line, (code, address), access, outcome);
        }
    }

    /// The line of that number, which an instruction accesses.
    fn line(&mut self, id: InstructionId, number: u64) -> LineId {
        let accessed = &mut self.instructions[id as usize].accessed;
        match *accessed {
            Some((last, line)) if last == number => line,
            _ => {
                let line = self.memory.line(number);
                *accessed = Some((number, line));
                line
            }
        }
    }

    /// The instruction at the first of both addresses accessed the other.
    fn charge_access(
        &mut self,
        cpu: usize,
        line: LineId,
        (code, address): (u64, u64),
        access: Access,
        outcome: Outcome,
    ) {
        let Some(charge) = self.calls.charge(cpu) else {
            return;
        };
        let costs = costs(access, outcome);
        self.code[charge as usize].costs += costs;
        let Cpu {
            packet, in_span, ..
        } = self.cpus[cpu];
        let line = line as usize;
        if self.used.len() <= line {
            self.used.resize_with(line + 1, || None);
        }
        let used = self.used[line].get_or_insert_with(|| {
            Box::new(Used {
                address: address - address % Caches::LINE,
                usage: Default::default(),
            })
        });
        let usage = &mut used.usage[usize::from(in_span)];
        usage.costs += costs;
        if usage.cpus == 0 {
            usage.code = code;
        }
        usage.cpus |= 1 << cpu;
        if in_span && usage.last_packet != packet {
            usage.last_packet = packet;
            usage.packets += 1;
        }
        match access {
            Access::Fetch => {}
            Access::Read(bytes) | Access::ReadToWrite(bytes) => usage.bytes_read |= bytes,
            Access::Write(bytes) => {
                usage.bytes_written |= bytes;
                usage.cpus_writing |= 1 << cpu;
                if in_span && usage.last_packet_writing != packet {
                    usage.last_packet_writing = packet;
                    usage.packets_writing += 1;
                }
            }
        }
    }

    /// Counts an instruction; where.
    fn charge(&mut self, cpu: usize, id: InstructionId, node: NodeId) -> Charge {
        let translated = &mut self.instructions[id as usize];
        let in_span = self.cpus[cpu].in_span;
        let charge = match translated.charged {
            Some((of, within, charge)) if (of, within) == (node, in_span) => charge,
            _ => {
                let address = translated.instruction.address;
                let code = &mut self.code;
                *self
                    .code_places
                    .entry((node, address, in_span))
                    .or_insert_with(|| {
                        code.push(Code {
                            node,
                            address,
                            in_span,
                            costs: Costs::default(),
                        });
                        (code.len() - 1) as Charge
                    })
            }
        };
        translated.charged = Some((node, in_span, charge));
        self.code[charge as usize].costs.instructions += 1;
        self.cpus[cpu].instructions += 1;
        charge
    }

    /// An instruction of `cpu`'s that was charged there faulted.
    fn take_back(&mut self, cpu: usize, charge: Charge) {
        self.code[charge as usize].costs.instructions -= 1;
        self.cpus[cpu].instructions -= 1;
    }

    fn open(&mut self) {
        self.is_open = true;
        self.is_paused = false;
        self.calls.begin();
        self.clear();
        for cpu in &mut self.cpus {
            cpu.instructions = 0;
            cpu.packet = 0;
        }
    }

    /// Counts anew.
    fn clear(&mut self) {
        self.code.clear();
        self.code_places.clear();
        self.used.clear();
        self.packets = 0;
        self.torn = 0;
        for translated in &mut self.instructions {
            translated.charged = None;
        }
    }

    fn packet_in(&mut self, cpu: usize) {
        self.packets_begun += 1;
        let before = std::mem::replace(&mut self.cpus[cpu].packet, self.packets_begun);
        self.torn += u64::from(before != 0);
    }

    fn packet_out(&mut self, cpu: usize) {
        if std::mem::take(&mut self.cpus[cpu].packet) == 0 {
            self.torn += 1;
        } else {
            self.packets += 1;
        }
    }

    fn set_span(&mut self, cpu: usize, in_span: bool) {
        self.calls.set_span(cpu, in_span);
        self.cpus[cpu].in_span = in_span;
    }

    fn close(&mut self) -> Recording {
        self.is_open = false;
        let cut = self.cpus.iter().filter(|cpu| cpu.packet != 0).count();
        let (nodes, code) = self.pruned();
        Recording {
            version: VERSION,
            caches: self.caches,
            instructions: self.cpus.iter().map(|cpu| cpu.instructions).collect(),
            packets: self.packets,
            torn: self.torn + cut as u64,
            nodes,
            code,
            lines: self.lines(),
        }
    }

    /// The part of the tree that has costs or was called, and the costs.
    fn pruned(&self) -> (Vec<Node>, Vec<Code>) {
        let all = self.calls.tree().nodes();
        let mut is_needed: Vec<bool> = all.iter().map(|node| node.calls != 0).collect();
        is_needed[0] = true;
        for code in &self.code {
            is_needed[code.node as usize] = true;
        }
        for (place, node) in all.iter().enumerate().rev() {
            is_needed[node.parent as usize] |= is_needed[place];
        }
        let mut places = vec![0; all.len()];
        let mut nodes: Vec<Node> = Vec::new();
        for (place, node) in all.iter().enumerate() {
            if is_needed[place] {
                places[place] = nodes.len() as u32;
                nodes.push(Node {
                    parent: places[node.parent as usize],
                    ..*node
                });
            }
        }
        let place = |code: &Code| Code {
            node: places[code.node as usize],
            ..*code
        };
        let mut code: Vec<Code> = self
            .code
            .iter()
            .filter(|code| code.costs != Costs::default())
            .map(place)
            .collect();
        code.sort_unstable_by_key(|code| (code.node, code.address, code.in_span));
        (nodes, code)
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self
            .used
            .iter()
            .enumerate()
            .filter_map(|(line, used)| Some((line as LineId, used.as_deref()?)))
            .flat_map(|(line, used)| {
                let physical = self.memory.number(line) * Caches::LINE;
                let each = [false, true].into_iter().zip(&used.usage);
                each.filter(|(_, usage)| usage.cpus != 0)
                    .map(move |(in_span, usage)| Line {
                        physical,
                        address: used.address,
                        code: usage.code,
                        in_span,
                        packets: usage.packets,
                        packets_writing: usage.packets_writing,
                        bytes_read: usage.bytes_read,
                        bytes_written: usage.bytes_written,
                        cpus: usage.cpus,
                        cpus_writing: usage.cpus_writing,
                        costs: usage.costs,
                    })
            })
            .collect();
        lines.sort_unstable_by_key(|line| (line.physical, line.in_span));
        lines
    }
}

/// What an access costs.
fn costs(access: Access, outcome: Outcome) -> Costs {
    let (reads, writes) = match access {
        Access::Fetch => (0, 0),
        Access::Read(_) | Access::ReadToWrite(_) => (1, 0),
        Access::Write(_) => (0, 1),
    };
    let l1_miss = u64::from(outcome.l1_miss);
    let is_code = access == Access::Fetch;
    Costs {
        instructions: 0,
        reads,
        writes,
        l1i_misses: if is_code { l1_miss } else { 0 },
        l1d_misses: if is_code { 0 } else { l1_miss },
        l2_misses: u64::from(outcome.l2_miss),
        last_misses: u64::from(outcome.last_miss),
        transfers: u64::from(outcome.transfer),
        true_sharing: u64::from(outcome.true_sharing),
        invalidations: u64::from(outcome.invalidations),
    }
}

#[cfg(test)]
mod tests;
