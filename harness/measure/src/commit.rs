// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commits: which there are, and what they cost.

pub mod measure;
mod work_tree;

pub use measure::{Measured, Measurer};
pub use work_tree::WorkTree;
