// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions of a call tree, each with all that it cost wherever it was called.

use mutexlab_lens_recording::recording::Costs;

use super::analysis::{Analysis, Frame, Function};

/// Which part of a window is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The spans of packets: what happens within netfilter's hooks.
    Spans,
    /// All of it.
    Window,
}

impl View {
    /// What a frame's own instructions cost.
    pub fn own(self, frame: &Frame) -> Costs {
        let mut costs = frame.span;
        if self == Self::Window {
            costs += frame.outside;
        }
        costs
    }
}

/// All of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    /// The function.
    pub function: &'a Function,
    /// What its own instructions cost.
    pub own: Costs,
    /// Instructions of its own and of all that it called.
    pub inclusive: u64,
}

/// The functions that cost something, the one with the most instructions of its own first.
pub fn rows(analysis: &Analysis, view: View) -> Vec<Row<'_>> {
    let inclusive = analysis.inclusive(|frame| view.own(frame).instructions);
    let mut rows: Vec<Row<'_>> = analysis
        .functions
        .iter()
        .map(|function| Row {
            function,
            own: Costs::default(),
            inclusive: 0,
        })
        .collect();
    for (index, frame) in analysis.frames.iter().enumerate() {
        let Some(function) = frame.function else {
            continue;
        };
        let row = &mut rows[function as usize];
        row.own += view.own(frame);
        // What a function called that called itself again is in the outer call already.
        if !is_recursive(analysis, index) {
            row.inclusive += inclusive[index];
        }
    }
    rows.retain(|row| row.own != Costs::default() || row.inclusive > 0);
    rows.sort_by(|a, b| {
        let key = |row: &Row<'_>| (row.own.instructions, row.inclusive);
        key(b).cmp(&key(a)).then_with(|| a.function.cmp(b.function))
    });
    rows
}

/// Whether one of a frame's callers is the same function.
fn is_recursive(analysis: &Analysis, index: usize) -> bool {
    let function = analysis.frames[index].function;
    let mut index = index;
    while index != 0 {
        index = analysis.frames[index].parent as usize;
        if analysis.frames[index].function == function {
            return true;
        }
    }
    false
}
