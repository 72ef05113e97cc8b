// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results and judgements as tables, for a terminal or as Markdown.

pub mod claims;
pub mod compare;
pub mod matrix;
pub mod moved;
pub mod series;
pub mod summary;
pub mod trees;
