// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reproducible performance engineering for in-kernel networking: the host's program, and the
//! agent that it runs in the guest.

pub mod cli;
pub mod commands;
