// SPDX-License-Identifier: GPL-2.0

//! What a TCP segment says, and how far its connection has come.

pub mod segment;
mod sequence;

pub use segment::{Flags, Segment, Syn};
pub use sequence::{Opening, SeqState};
