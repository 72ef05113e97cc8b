// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bisect`: which commit changed what a packet costs.

mod command;
mod search;
mod value;

pub use command::BisectCommand;
