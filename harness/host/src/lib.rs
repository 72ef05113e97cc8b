// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is asked of the machine that this runs on: programs that end with us, locks, terminals, hashes, git.
//!
//! Must not know: kernels, guests, anything that is measured.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod files;
pub mod git;
pub mod guard;
pub mod hash;
pub mod interrupt;
pub mod leash;
pub mod parent;
pub mod paths;
pub mod pipe;
pub mod pty;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod surroundings;
pub mod terminal;
