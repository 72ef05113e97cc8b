// SPDX-License-Identifier: MIT OR Apache-2.0

//! What follows from results: comparisons, golden counts, bisection, the claims, kernels beside each other, whether the
//! instrument can be trusted.
//!
//! Must not know: how results are made, and how a judgement is shown. It boots nothing.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod bisect;
pub mod claims;
pub mod compare;
pub mod golden;
pub mod instrument;
pub mod matrix;
pub mod series;
pub mod trees;
