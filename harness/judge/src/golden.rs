// SPDX-License-Identifier: MIT OR Apache-2.0

//! Golden counts: what packets cost, under version control, so that a change's cost is a part of
//! its diff.

pub mod counts;

pub use counts::Counts;
