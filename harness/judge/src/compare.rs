// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab compare`: what differs between two runs. docs/comparing.md tells how.

pub mod bootstrap;
pub mod comparable;
pub mod difference;
pub mod finding;
mod pairing;
