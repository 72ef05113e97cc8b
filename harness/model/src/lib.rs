// SPDX-License-Identifier: MIT OR Apache-2.0

//! The vocabulary of measuring: traffic, subjects, modes, limits, searches, histograms, verdicts, what is counted.
//!
//! Must not know: how anything is done. It starts no process, opens no file and no socket, and reads no clock.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod accelerator;
pub mod complaint;
pub mod facts;
pub mod histogram;
pub mod limits;
pub mod measured;
pub mod mode;
pub mod random;
pub mod rfc2544;
pub mod seed;
pub mod stand_in;
pub mod subject;
pub mod traffic;
pub mod verdict;
