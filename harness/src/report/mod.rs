// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report: results of many runs as one page with plots.

pub mod chart;
