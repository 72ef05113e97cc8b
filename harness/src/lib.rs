// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reproducible performance engineering for in-kernel networking: the program `mutexlab`, the outermost crate.
//!
//! It reads command lines, asks the crates below, and prints. What they are, and which may use which, is in
//! docs/architecture.md.

pub mod cli;
pub mod commands;
pub mod environment;
