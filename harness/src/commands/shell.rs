// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab shell`: a guest to look around in.

mod banner;
mod bridge;
mod command;
mod debugger;
mod escape;
mod parameter;

pub use command::ShellCommand;
