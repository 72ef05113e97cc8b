// SPDX-License-Identifier: MIT OR Apache-2.0

//! Follows calls, returns, interrupts, system calls and switches of tasks, so that each
//! instruction belongs to a node of the call tree.
//!
//! Only instructions and the addresses of what calls and returns write to and read from the stack are
//! looked at. Calls and returns are matched by that address, not by counting them: it is
//! unique among all kernel stacks. A return that reads from where a task was when it was switched
//! away goes on with that task's calls. What could not come from the instruction before is an
//! interrupt or an exception. Behind an indirect jump, a call or a return anything could come:
//! there, interrupts are known by where they were seen to begin before.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::instruction::{Flow, Instruction};
use crate::tree::{NodeId, Tree};
use mutexlab_lens_recording::recording::Entry;

mod chain;

pub use chain::Charge;
use chain::{candidates, Chain, Frame, Interrupted, Kind, Resume};

/// Deeper than this no kernel calls: what is, was not understood, and is forgotten.
const MAX_DEPTH: usize = 512;
/// How far two addresses may be apart on one stack, in bytes: THREAD_SIZE of a kernel with KASAN
/// (arch/x86/include/asm/page_64_types.h).
const STACK_SIZE: u64 = 32 << 10;

/// What one CPU does.
#[derive(Clone, Debug)]
struct Walk {
    chain: Chain,
    previous: Option<Instruction>,
    /// Where the last call or return accessed the stack.
    stack: u64,
    /// Where the previous instruction, a call or a return, did so; zero if it did not.
    moved: u64,
    /// Whether the previous instruction was the first of its function.
    was_first: bool,
    /// What the previous instruction was charged to.
    charge: Option<Charge>,
}

/// Where an instruction belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node.
    pub node: NodeId,
    /// Whether it is in a packet's span.
    pub in_span: bool,
    /// An instruction that turned out not to have been executed: it faulted, and comes again. What it
    /// was charged to.
    pub repeated: Option<Charge>,
}

/// The calls of all CPUs.
#[derive(Clone, Debug)]
pub struct Calls {
    tree: Tree,
    walks: Vec<Walk>,
    /// Tasks that were switched away, by the stack address of their last call.
    parked: FxHashMap<u64, Chain>,
    /// Where interrupts and exceptions were seen to begin.
    entries: FxHashSet<u64>,
}

impl Calls {
    /// Nothing is known of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        let walk = Walk {
            chain: Chain::new(Tree::ROOT),
            previous: None,
            stack: 0,
            moved: 0,
            was_first: false,
            charge: None,
        };
        Self {
            tree: Tree::default(),
            walks: vec![walk; cpus],
            parked: FxHashMap::default(),
            entries: FxHashSet::default(),
        }
    }

    /// The nodes so far.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Forgets everything but where interrupts begin.
    pub fn restart(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        *self = Self {
            entries,
            ..Self::new(self.walks.len())
        };
    }

    /// From now on calls are counted anew, and all that was charged is forgotten.
    pub fn begin(&mut self) {
        self.tree.begin();
        let walks = self.walks.iter_mut().map(|walk| {
            walk.charge = None;
            &mut walk.chain
        });
        for frame in walks
            .chain(self.parked.values_mut())
            .flat_map(|chain| &mut chain.frames)
        {
            if let Kind::Interrupt(interrupted) = &mut frame.kind {
                interrupted.charge = None;
            }
        }
    }

    /// Tells that the instruction that `cpu` is at accesses the stack as a call or a return does; whether
    /// that was its first such access.
    pub fn stack(&mut self, cpu: usize, address: u64) -> bool {
        let moved = &mut self.walks[cpu].moved;
        let is_first = *moved == 0;
        if is_first {
            *moved = address;
        }
        is_first
    }

    /// Tells what the instruction that `cpu` is at was charged to.
    pub fn charged(&mut self, cpu: usize, charge: Option<Charge>) {
        self.walks[cpu].charge = charge;
    }

    /// What the instruction that `cpu` is at was charged to.
    pub fn charge(&self, cpu: usize) -> Option<Charge> {
        self.walks[cpu].charge
    }

    /// From the next instruction on `cpu` is in a packet's span, or no longer.
    pub fn set_span(&mut self, cpu: usize, in_span: bool) {
        self.walks[cpu].chain.in_span = in_span;
    }

    /// `cpu` comes to an instruction.
    pub fn step(&mut self, cpu: usize, instruction: &Instruction) -> Step {
        let walk = &mut self.walks[cpu];
        let mut repeated = None;
        match walk.previous {
            Some(previous)
                if previous.flow == Flow::Next && previous.next == instruction.address =>
            {
                walk.was_first = false;
            }
            previous => {
                let mut walker = Walker {
                    tree: &mut self.tree,
                    parked: &mut self.parked,
                    entries: &mut self.entries,
                    walk,
                    to: instruction.address,
                    is_first: false,
                    repeated: None,
                };
                walker.go(previous.as_ref());
                repeated = walker.repeated;
                let is_first = walker.is_first;
                walk.was_first = is_first;
            }
        }
        walk.previous = Some(*instruction);
        walk.moved = 0;
        Step {
            node: walk.chain.node(),
            in_span: walk.chain.in_span,
            repeated,
        }
    }
}

/// One step of one CPU.
struct Walker<'a> {
    tree: &'a mut Tree,
    parked: &'a mut FxHashMap<u64, Chain>,
    entries: &'a mut FxHashSet<u64>,
    walk: &'a mut Walk,
    /// Where it goes.
    to: u64,
    /// Whether that is the first instruction of a function.
    is_first: bool,
    repeated: Option<Charge>,
}

impl Walker<'_> {
    fn go(&mut self, previous: Option<&Instruction>) {
        let to_user = crate::instruction::is_user(self.to);
        let Some(previous) = previous else {
            let base = if to_user { Tree::USER } else { self.unseen() };
            self.walk.chain = Chain::new(base);
            return;
        };
        match (previous.is_user(), to_user) {
            (true, true) => {}
            (true, false) => self.enter(previous),
            (false, true) => self.leave(),
            (false, false) => self.inside(previous),
        }
    }

    /// From user space into the kernel.
    fn enter(&mut self, previous: &Instruction) {
        self.walk.chain = Chain::new(Tree::ROOT);
        if previous.flow == Flow::SystemCall {
            let node = self.tree.child(Tree::ROOT, Entry::SystemCall, self.to);
            self.push(node, Kind::SystemCall);
        } else {
            self.interrupt(candidates(previous), previous, None);
        }
    }

    /// From the kernel to user space.
    fn leave(&mut self) {
        if let Some(Frame {
            kind: Kind::Interrupt(interrupted),
            ..
        }) = self.walk.chain.frames.first()
        {
            self.repeated = interrupted.repeated(self.to);
        }
        self.walk.chain = Chain::new(Tree::USER);
    }

    /// From one instruction of the kernel's to another.
    fn inside(&mut self, previous: &Instruction) {
        let is_entry = self.entries.contains(&self.to);
        let moved = self.walk.moved;
        match previous.flow {
            Flow::Next | Flow::Halt => self.expect(previous, &[previous.next]),
            Flow::Repeat => self.expect(previous, &[previous.next, previous.address]),
            Flow::Branch(target) => self.expect(previous, &[previous.next, target]),
            Flow::Jump(target) if self.to == target => self.jump(),
            Flow::Jump(_) | Flow::Exception => {
                self.interrupt(candidates(previous), previous, None);
            }
            Flow::JumpAnywhere if is_entry => self.interrupt(Resume::Anywhere, previous, None),
            Flow::JumpAnywhere => self.jump(),
            Flow::Call(target) if self.to == target => self.call(moved, previous.next),
            Flow::Call(target) if moved != 0 => {
                let node = self.callee(target);
                self.push_call(node, moved, previous.next);
                self.interrupt(Resume::OneOf([target; 3]), previous, None);
            }
            // It faulted.
            Flow::Call(_) => self.interrupt(candidates(previous), previous, None),
            Flow::CallAnywhere if is_entry => {
                let call = (moved != 0).then_some((moved, previous.next));
                self.interrupt(Resume::Anywhere, previous, call);
            }
            Flow::CallAnywhere => self.call(moved, previous.next),
            Flow::Return if is_entry => {
                self.ret(moved, None);
                self.interrupt(Resume::Anywhere, previous, None);
            }
            Flow::Return => self.ret(moved, Some(self.to)),
            Flow::InterruptReturn if is_entry => {
                // It returned, and at once there was another.
                self.end_interrupt(|_| true);
                self.interrupt(Resume::Anywhere, previous, None);
            }
            Flow::InterruptReturn => {
                let to = self.to;
                if !self.end_interrupt(|interrupted| interrupted.resume.admits(to)) {
                    self.end_interrupt(|_| true);
                }
            }
            // User space was interrupted before its first instruction.
            Flow::SystemReturn => {
                self.walk.chain = Chain::new(Tree::ROOT);
                self.interrupt(Resume::Anywhere, previous, None);
            }
            Flow::SystemCall => self.jump(),
        }
    }

    /// It went to one of these, or it was interrupted.
    fn expect(&mut self, previous: &Instruction, targets: &[u64]) {
        if !targets.contains(&self.to) {
            self.interrupt(candidates(previous), previous, None);
        }
    }

    fn unseen(&mut self) -> NodeId {
        self.tree.child(Tree::ROOT, Entry::Unseen, self.to)
    }

    fn callee(&mut self, address: u64) -> NodeId {
        let caller = self.walk.chain.node();
        self.tree.child(caller, Entry::Call, address)
    }

    fn push(&mut self, node: NodeId, kind: Kind) {
        let frames = &mut self.walk.chain.frames;
        if frames.len() == MAX_DEPTH {
            frames.clear();
        }
        frames.push(Frame { node, kind });
        self.tree.called(node);
        self.is_first = true;
    }

    fn push_call(&mut self, node: NodeId, stack: u64, return_to: u64) {
        // Functions below which another one returns to have been left otherwise.
        let frames = &mut self.walk.chain.frames;
        while let Some(Frame {
            kind: Kind::Call { stack: old, .. },
            ..
        }) = frames.last()
        {
            if *old > stack || stack - *old > STACK_SIZE {
                break;
            }
            frames.pop();
        }
        self.push(node, Kind::Call { stack, return_to });
        self.walk.stack = stack;
    }

    fn call(&mut self, stack: u64, return_to: u64) {
        let node = self.callee(self.to);
        self.push_call(node, stack, return_to);
    }

    /// A jump. That of a function which begins with it, such as the trampoline of a static call, is
    /// a call of its target by whoever called the function.
    fn jump(&mut self) {
        if self.walk.was_first {
            self.divert();
        }
    }

    fn divert(&mut self) {
        let Some(frame) = self.walk.chain.frames.last_mut() else {
            return;
        };
        if matches!(frame.kind, Kind::Call { .. }) {
            let caller = self.tree.parent(frame.node);
            frame.node = self.tree.child(caller, Entry::Call, self.to);
            self.tree.called(frame.node);
            self.is_first = true;
        }
    }

    fn interrupt(&mut self, resume: Resume, previous: &Instruction, call: Option<(u64, u64)>) {
        self.entries.insert(self.to);
        let may_repeat = match previous.flow {
            Flow::Repeat => true,
            Flow::Jump(target) | Flow::Branch(target) => target == previous.address,
            _ => false,
        };
        let chain = &mut self.walk.chain;
        let interrupted = Interrupted {
            resume,
            once: (!may_repeat).then_some(previous.address),
            charge: self.walk.charge,
            call,
            in_span: std::mem::take(&mut chain.in_span),
        };
        let node = self.tree.child(Tree::ROOT, Entry::Interrupt, self.to);
        self.push(node, Kind::Interrupt(interrupted));
        self.is_first = false;
    }

    /// Ends the innermost interrupt of the kernel's that `which` admits; whether there was one.
    fn end_interrupt(&mut self, which: impl Fn(&Interrupted) -> bool) -> bool {
        let frames = &mut self.walk.chain.frames;
        let found = frames.iter().enumerate().rev().find_map(|(place, frame)| {
            let Kind::Interrupt(interrupted) = frame.kind else {
                return None;
            };
            which(&interrupted).then_some((place, interrupted))
        });
        let Some((place, interrupted)) = found else {
            return false;
        };
        frames.truncate(place);
        self.walk.chain.in_span = interrupted.in_span;
        self.repeated = interrupted.repeated(self.to);
        if let (Some((stack, return_to)), None) = (interrupted.call, self.repeated) {
            self.call(stack, return_to);
        }
        true
    }

    /// A return that read its target at `stack`. `to` is that target, unless an interrupt came before
    /// it.
    fn ret(&mut self, stack: u64, to: Option<u64>) {
        let before = std::mem::replace(&mut self.walk.stack, stack);
        let is_it =
            |frame: &Frame| matches!(frame.kind, Kind::Call { stack: at, .. } if at == stack);
        let frames = &mut self.walk.chain.frames;
        let place = frames.iter().rposition(is_it);
        if let Some(place) = place {
            let is_last = place + 1 == frames.len();
            let expected = match frames[place].kind {
                Kind::Call { return_to, .. } => Some(return_to),
                _ => None,
            };
            frames.truncate(place);
            // A return to elsewhere, as in a retpoline, is a jump.
            if is_last && to.is_some() && to != expected {
                self.divert();
            }
            return;
        }
        let parked = self.parked.remove(&stack);
        if parked.is_none() && before.abs_diff(stack) < STACK_SIZE {
            // A function that was not seen to be called.
            while let Some(Frame {
                kind: Kind::Call { stack: at, .. },
                ..
            }) = frames.last()
                && *at < stack
            {
                frames.pop();
            }
            if frames.is_empty() {
                self.walk.chain.base = self.unseen();
            }
            return;
        }
        // A switch of tasks.
        let now = parked.unwrap_or_else(|| Chain::new(self.unseen()));
        let then = std::mem::replace(&mut self.walk.chain, now);
        self.parked.insert(before, then);
        let frames = &mut self.walk.chain.frames;
        if let Some(place) = frames.iter().rposition(is_it) {
            frames.truncate(place);
        }
    }
}

#[cfg(test)]
mod tests;
