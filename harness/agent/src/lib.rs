// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's program: it carries an order out, tells events, and powers the guest off.
//!
//! Must not know: any crate of the host's. What host and guest say to each other is in `mutexlab-protocol`.

pub mod agent;
pub mod command;
pub mod init;
pub mod shell;
pub mod splice;
pub mod tell;
