// SPDX-License-Identifier: GPL-2.0

//! What a TCP segment says, and how far its connection has come.

mod segment;
mod sequence;

pub use segment::{options, window_shift, Flags, Segment, Syn};
pub use sequence::{Opening, SeqState};
