// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables for a terminal and plots as SVG: numbers in, text out.
//!
//! Must not know: what the numbers mean, results, the file system.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod chart;
pub mod figure;
pub mod table;

/// The style sheet of pages that have plots.
pub const STYLE: &str = include_str!("style.css");
