// SPDX-License-Identifier: MIT OR Apache-2.0

//! The calls, interrupts and system calls of one task that have not returned, and where an interrupt may return to.

use crate::instruction::{Flow, Instruction};
use crate::tree::NodeId;

/// Stands for what an instruction was charged to, so that it can be taken back.
pub type Charge = u32;

/// What is known of where an interrupt returns to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resume {
    /// The interrupted instruction's own address (if it was a fault), the next one, and its target.
    OneOf([u64; 3]),
    /// The instruction before was a jump to anywhere.
    Anywhere,
}

impl Resume {
    #[inline]
    pub(super) fn admits(self, address: u64) -> bool {
        match self {
            Self::OneOf(addresses) => addresses.contains(&address),
            Self::Anywhere => true,
        }
    }
}

/// Where an instruction that was interrupted may go on.
#[inline]
pub(super) const fn candidates(instruction: &Instruction) -> Resume {
    let target = match instruction.flow {
        Flow::Jump(target) | Flow::Branch(target) | Flow::Call(target) => target,
        _ => instruction.next,
    };
    Resume::OneOf([instruction.address, instruction.next, target])
}

/// An interrupted instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupted {
    pub(super) resume: Resume,
    /// Its address, unless it may well be executed twice in a row.
    pub(super) once: Option<u64>,
    /// What it was charged to.
    pub(super) charge: Option<Charge>,
    /// It was a call whose target is not known yet: where the stack is, and where it returns to.
    pub(super) call: Option<(u64, u64)>,
    /// Whether it was in a packet's span.
    pub(super) in_span: bool,
}

impl Interrupted {
    /// What to take back if it returns `to` there.
    #[inline]
    pub(super) fn repeated(&self, to: u64) -> Option<Charge> {
        self.charge.filter(|_| self.once == Some(to))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A function, whose return address is there on the stack.
    Call {
        stack: u64,
        return_to: u64,
    },
    Interrupt(Interrupted),
    SystemCall,
}

/// A function, an interrupt or a system call that has not returned yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) node: NodeId,
    pub(super) kind: Kind,
}

/// The calls of one task that have not returned.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// What is below them.
    pub(super) base: NodeId,
    pub(super) frames: Vec<Frame>,
    /// Whether it is in a packet's span.
    pub(super) in_span: bool,
}

impl Chain {
    pub(super) const fn new(base: NodeId) -> Self {
        Self {
            base,
            frames: Vec::new(),
            in_span: false,
        }
    }

    #[inline]
    pub(super) fn node(&self) -> NodeId {
        self.frames.last().map_or(self.base, |frame| frame.node)
    }
}
