// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames built, taken apart and spoilt.
//!
//! Must not know: sockets, the guest's network, what is tested with them.

pub mod checksum;
pub mod frame;
pub mod mutate;
