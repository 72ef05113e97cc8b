// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files between the lens's plugin and its analysis: what the plugin is told, and what it recorded.
//!
//! Must not know: either of them.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod recording;
pub mod settings;
