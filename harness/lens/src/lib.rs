// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens: a plugin of QEMU's that sees every instruction and every access to memory of a guest, and
//! tells where those of a packet go.
//!
//! It needs no symbols: what it records names addresses, which the harness turns into functions and
//! objects.

pub mod recording;
pub mod settings;
