// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lab in the guest: network, subjects, generators, probe, and the measurement of one cell.
//!
//! Must not know: the host; scenarios, results and machines.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod fault;
pub mod kernel;
pub mod measure;
pub mod net;
pub mod patterns;
pub mod probe;
pub mod proxy;
pub mod subjects;
pub mod traffic;
