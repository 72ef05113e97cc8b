// SPDX-License-Identifier: MIT OR Apache-2.0

//! Boots one guest with an order, and says how it ended.
//!
//! Must not know: scenarios, subjects' results, what is measured. It gets an order, files to install, and deadlines.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod agent;
pub mod attended;
pub mod baggage;
pub mod boot;
pub mod console;
pub mod decode;
pub mod guest_files;
pub mod guest_root;
pub mod kvm;
pub mod mp_table;
pub mod program;
pub mod qemu;
pub mod repeatable;
pub mod stub;
pub mod taken;
pub mod tools;
mod tsc;
pub mod virtme;
