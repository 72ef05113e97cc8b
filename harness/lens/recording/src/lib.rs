// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files between the lens's plugin and its analysis: what the plugin is told, and what it recorded.
//!
//! Must not know: either of them.

pub mod recording;
pub mod settings;
