// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host's side of the lens: where the instructions and the cache lines of a packet go.
//!
//! A plugin of QEMU's (the crate `mutexlab-lens-plugin`) records addresses; here they become functions and
//! objects, tables, flame graphs and metrics.
//!
//! Must not know: kernels and guests; it gets files.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod analysis;
pub mod branches;
pub mod cycles;
pub mod difference;
pub mod flame;
pub mod functions;
pub mod looker;
pub mod metrics;
pub mod moved;
pub mod names;
pub mod objects;
pub mod page;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod symbols;
pub mod text;

/// What an analysis of a cell is called, below the directory of a run's logs.
pub fn file_name(cell: &str, repetition: u32) -> String {
    format!("{}.boot{repetition}.lens.json", cell.replace('/', "-"))
}
