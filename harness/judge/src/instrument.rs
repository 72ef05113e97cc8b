// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether the instrument can be trusted.

pub mod cells;
pub mod checks;
