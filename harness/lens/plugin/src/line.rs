// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of memory.

/// A line, as those who hold lines call it.
pub type LineId = u32;
