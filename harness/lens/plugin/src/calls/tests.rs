// SPDX-License-Identifier: MIT OR Apache-2.0

//! Streams of instructions as kernels execute them, in which calls are known.

use proptest::prelude::*;

use super::*;

const STACK: u64 = 0xffff_8880_0010_0000;
const OTHER_STACK: u64 = 0xffff_8880_0020_0000;
/// Functions, 0x100 bytes apart.
const F: u64 = 0xffff_ffff_8100_0000;
const G: u64 = F + 0x100;
const H: u64 = F + 0x200;
/// Where interrupts begin.
const IRQ: u64 = F + 0x1000;
const USER: u64 = 0x40_1000;

/// Calls, and what is told of them.
struct Stream {
    calls: Calls,
    cpu: usize,
}

impl Stream {
    fn new() -> Self {
        Self {
            calls: Calls::new(2),
            cpu: 0,
        }
    }

    /// An instruction of four bytes, and what it accesses on the stack.
    fn go(&mut self, address: u64, flow: Flow, stack: u64) -> Step {
        let instruction = Instruction {
            address,
            next: address + 4,
            flow,
            is_atomic: false,
            mark: None,
        };
        let step = self.calls.step(self.cpu, &instruction);
        if stack != 0 {
            self.calls.stack(self.cpu, stack);
        }
        step
    }

    fn plain(&mut self, address: u64) -> Step {
        self.go(address, Flow::Next, 0)
    }

    /// The path to a node: how each was entered, and where.
    fn path(&self, step: Step) -> Vec<(Entry, u64)> {
        let nodes = self.calls.tree().nodes();
        let mut path = Vec::new();
        let mut place = step.node;
        while place != Tree::ROOT {
            let node = nodes[place as usize];
            path.push((node.entry, node.address));
            place = node.parent;
        }
        path.reverse();
        path
    }

    /// Into the kernel by a system call, which begins at F.
    fn enter(&mut self) {
        self.go(USER, Flow::SystemCall, 0);
        self.plain(F);
    }
}

fn path(entries: &[(Entry, u64)]) -> Vec<(Entry, u64)> {
    entries.to_vec()
}

const IN_F: (Entry, u64) = (Entry::SystemCall, F);
const IN_G: (Entry, u64) = (Entry::Call, G);
const IN_H: (Entry, u64) = (Entry::Call, H);

#[test]
fn calls_nest_and_return() {
    let mut stream = Stream::new();
    stream.enter();
    stream.go(F + 4, Flow::Call(G), STACK);
    let in_g = stream.go(G, Flow::CallAnywhere, STACK - 0x20);
    assert_eq!(stream.path(in_g), path(&[IN_F, IN_G]));
    let in_h = stream.go(H, Flow::Return, STACK - 0x20);
    assert_eq!(stream.path(in_h), path(&[IN_F, IN_G, IN_H]));
    let back = stream.go(G + 4, Flow::Return, STACK);
    assert_eq!(stream.path(back), path(&[IN_F, IN_G]));
    let back = stream.go(F + 8, Flow::SystemReturn, 0);
    assert_eq!(stream.path(back), path(&[IN_F]));
    let user = stream.plain(USER + 4);
    assert_eq!(stream.path(user), path(&[(Entry::User, 0)]));
}

#[test]
fn recursion_is_a_path_of_its_own() {
    let mut stream = Stream::new();
    stream.enter();
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.go(G, Flow::Call(G), STACK - 0x10);
    let deep = stream.go(G, Flow::Return, STACK - 0x10);
    assert_eq!(stream.path(deep), path(&[IN_F, IN_G, IN_G]));
    let back = stream.plain(G + 4);
    assert_eq!(stream.path(back), path(&[IN_F, IN_G]));
}

#[test]
fn a_tail_call_returns_to_the_caller() {
    let mut stream = Stream::new();
    stream.enter();
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.plain(G);
    stream.go(G + 4, Flow::Jump(H), 0);
    let in_h = stream.go(H, Flow::Return, STACK);
    assert_eq!(stream.path(in_h), path(&[IN_F, IN_G]));
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
}

#[test]
fn a_trampoline_is_no_caller() {
    let mut stream = Stream::new();
    stream.enter();
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.go(G, Flow::Jump(H), 0);
    let in_h = stream.go(H, Flow::Return, STACK);
    assert_eq!(stream.path(in_h), path(&[IN_F, IN_H]));
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
}

#[test]
fn a_retpoline_calls_where_it_returns_to() {
    let mut stream = Stream::new();
    stream.enter();
    // call thunk; thunk: call 1f; 1: mov %rax,(%rsp); ret
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.go(G, Flow::Call(G + 0x10), STACK - 8);
    stream.plain(G + 0x10);
    stream.go(G + 0x14, Flow::Return, STACK - 8);
    let in_h = stream.go(H, Flow::Return, STACK);
    assert_eq!(stream.path(in_h), path(&[IN_F, IN_H]));
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
}

#[test]
fn interrupts_are_what_nothing_explains() {
    let mut stream = Stream::new();
    stream.enter();
    stream.calls.set_span(0, true);
    assert!(stream.plain(F + 4).in_span);
    let interrupt = stream.plain(IRQ);
    assert_eq!(stream.path(interrupt), path(&[(Entry::Interrupt, IRQ)]));
    assert!(!interrupt.in_span);
    stream.go(IRQ + 4, Flow::Call(G), STACK - 0x100);
    let handler = stream.go(G, Flow::Return, STACK - 0x100);
    assert_eq!(stream.path(handler), path(&[(Entry::Interrupt, IRQ), IN_G]));
    stream.go(IRQ + 8, Flow::InterruptReturn, 0);
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
    assert!(back.in_span);
}

#[test]
fn known_interrupts_are_seen_between_a_call_and_its_function() {
    let mut stream = Stream::new();
    stream.enter();
    stream.plain(F + 4);
    stream.go(IRQ, Flow::InterruptReturn, 0);
    for (address, flow) in [(F + 8, Flow::Call(G)), (F + 12, Flow::CallAnywhere)] {
        stream.go(address, flow, STACK);
        let interrupt = stream.go(IRQ, Flow::InterruptReturn, 0);
        assert_eq!(stream.path(interrupt), path(&[(Entry::Interrupt, IRQ)]));
        let in_g = stream.go(G, Flow::Return, STACK);
        assert_eq!(stream.path(in_g), path(&[IN_F, IN_G]));
    }
    // And between a return and where it goes.
    let interrupt = stream.go(IRQ, Flow::InterruptReturn, 0);
    assert_eq!(stream.path(interrupt), path(&[(Entry::Interrupt, IRQ)]));
    let back = stream.plain(F + 16);
    assert_eq!(stream.path(back), path(&[IN_F]));
}

#[test]
fn an_instruction_that_faults_is_taken_back() {
    let mut stream = Stream::new();
    stream.enter();
    stream.plain(F + 4);
    stream.calls.charged(0, Some(7));
    stream.go(IRQ, Flow::InterruptReturn, 0);
    assert_eq!(stream.plain(F + 4).repeated, Some(7));
    // After an interrupt that was no fault it is the next one's turn.
    stream.calls.charged(0, Some(7));
    stream.go(IRQ, Flow::InterruptReturn, 0);
    assert_eq!(stream.plain(F + 8).repeated, None);
    // And what repeats itself may well go on with itself.
    stream.go(F + 12, Flow::Repeat, 0);
    stream.calls.charged(0, Some(7));
    stream.go(IRQ, Flow::InterruptReturn, 0);
    assert_eq!(stream.plain(F + 12).repeated, None);
}

#[test]
fn a_fault_of_user_space_is_taken_back() {
    let mut stream = Stream::new();
    stream.plain(USER);
    stream.calls.charged(0, Some(3));
    let fault = stream.go(IRQ, Flow::InterruptReturn, 0);
    assert_eq!(stream.path(fault), path(&[(Entry::Interrupt, IRQ)]));
    assert_eq!(stream.plain(USER).repeated, Some(3));
}

#[test]
fn tasks_go_on_where_they_were_on_whatever_cpu() {
    let mut stream = Stream::new();
    stream.enter();
    // G switches tasks: it is called on one stack and returns on the other.
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.go(G, Flow::Return, OTHER_STACK);
    let other = stream.plain(H);
    assert_eq!(stream.path(other), path(&[(Entry::Unseen, H)]));
    stream.go(H + 4, Flow::Call(G), OTHER_STACK - 0x40);
    stream.go(G, Flow::Return, STACK);
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
    // The other one on CPU 1, which was in a system call of its own.
    stream.cpu = 1;
    stream.enter();
    stream.go(F + 4, Flow::Call(G), OTHER_STACK + 0x10_0000);
    stream.go(G, Flow::Return, OTHER_STACK - 0x40);
    let other = stream.plain(H + 8);
    assert_eq!(stream.path(other), path(&[(Entry::Unseen, H)]));
}

#[test]
fn functions_that_were_not_seen_to_be_called_return_to_others() {
    let mut stream = Stream::new();
    let first = stream.go(H, Flow::Call(G), STACK - 0x80);
    assert_eq!(stream.path(first), path(&[(Entry::Unseen, H)]));
    stream.go(G, Flow::Return, STACK - 0x80);
    let back = stream.go(H + 4, Flow::Return, STACK);
    assert_eq!(stream.path(back), path(&[(Entry::Unseen, H)]));
    let caller = stream.plain(F);
    assert_eq!(stream.path(caller), path(&[(Entry::Unseen, F)]));
}

#[test]
fn a_softirq_on_its_own_stack_belongs_to_whoever_runs_it() {
    let mut stream = Stream::new();
    stream.enter();
    stream.go(F + 4, Flow::Call(G), STACK);
    stream.go(G, Flow::Call(H), OTHER_STACK);
    let softirq = stream.go(H, Flow::Return, OTHER_STACK);
    assert_eq!(stream.path(softirq), path(&[IN_F, IN_G, IN_H]));
    stream.go(G + 4, Flow::Return, STACK);
    let back = stream.plain(F + 8);
    assert_eq!(stream.path(back), path(&[IN_F]));
}

/// What a kernel does next.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Work,
    Call,
    CallAnywhere,
    Return,
    Interrupt,
}

proptest! {
    /// Whatever is called and interrupted, each instruction is where the calls that have not returned
    /// say; without interrupts in places that only known ones are seen in, since one was seen before.
    #[test]
    fn the_path_is_that_of_the_calls(deeds in prop::collection::vec(
        prop_oneof![
            3 => Just(Deed::Work), 3 => Just(Deed::Call), 2 => Just(Deed::CallAnywhere),
            4 => Just(Deed::Return), 1 => Just(Deed::Interrupt),
        ], 0..300))
    {
        let mut stream = Stream::new();
        stream.enter();
        stream.plain(F + 4);
        stream.go(IRQ, Flow::InterruptReturn, 0);
        // Where each function that has not returned goes on, and where its return address is.
        let mut frames: Vec<(u64, u64)> = Vec::new();
        let mut expected = vec![IN_F];
        let (mut at, mut stack) = (F + 8, STACK);
        for deed in deeds {
            let (flow, access, to) = match deed {
                Deed::Work | Deed::Interrupt => (Flow::Next, 0, at + 4),
                Deed::Call | Deed::CallAnywhere => {
                    let function = F + (frames.len() as u64 + 1) * 0x1_0000;
                    stack -= 0x18;
                    let flow = if matches!(deed, Deed::Call) {
                        Flow::Call(function)
                    } else {
                        Flow::CallAnywhere
                    };
                    (flow, stack, function)
                }
                Deed::Return => match frames.last() {
                    Some(&(to, at)) => (Flow::Return, at, to),
                    None => (Flow::Next, 0, at + 4),
                },
            };
            let step = stream.go(at, flow, access);
            prop_assert_eq!(stream.path(step), expected.clone());
            match deed {
                Deed::Call | Deed::CallAnywhere => {
                    frames.push((at + 4, stack));
                    expected.push((Entry::Call, to));
                }
                Deed::Return => {
                    if frames.pop().is_some() {
                        stack += 0x18;
                        expected.pop();
                    }
                }
                Deed::Interrupt => {
                    let step = stream.go(IRQ, Flow::Call(G), stack - 0x200);
                    prop_assert_eq!(stream.path(step), vec![(Entry::Interrupt, IRQ)]);
                    stream.go(G, Flow::Return, stack - 0x200);
                    stream.go(IRQ + 4, Flow::InterruptReturn, 0);
                }
                Deed::Work => {}
            }
            at = to;
        }
    }
}
