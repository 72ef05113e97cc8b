// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames built, taken apart and spoilt.
//!
//! Must not know: sockets, the guest's network, what is tested with them.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod checksum;
pub mod frame;
pub mod mutate;
