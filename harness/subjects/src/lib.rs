// SPDX-License-Identifier: MIT OR Apache-2.0

//! Subjects as data: a directory with a `subject.toml`, which says how packets are led, becomes the steps of an order.
//!
//! Must not know: where programs lie on this machine, how a module is built, and what a guest does with a step.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

mod choice;
mod directory;
mod file;
mod steps;
mod subjects;
mod template;
#[cfg(test)]
mod tests;

pub use file::SubjectFile;
pub use subjects::{InGuest, OwnModule, Source, Subjects};
