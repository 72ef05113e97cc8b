// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables for a terminal and plots as SVG: numbers in, text out.

pub mod chart;
pub mod figure;
pub mod table;
