// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab compare`: what differs between two runs. docs/comparing.md tells how.

pub mod bootstrap;
pub mod command;
pub mod comparable;
pub mod difference;
pub mod finding;
mod pairing;
pub mod run;
pub mod text;
