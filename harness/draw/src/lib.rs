// SPDX-License-Identifier: MIT OR Apache-2.0

//! TODO

pub mod chart;
pub mod figure;
pub mod table;

/// The style sheet of pages that have plots.
pub const STYLE: &str = include_str!("style.css");
