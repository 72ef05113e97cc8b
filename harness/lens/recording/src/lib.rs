// SPDX-License-Identifier: MIT OR Apache-2.0

//! TODO

pub mod recording;
pub mod settings;
