// SPDX-License-Identifier: GPL-2.0

//! Marks for the lens: where packets are; see [`crate::abi::marks`].

use super::arch;
use crate::abi::marks::Mark;

struct In;
struct Begin;
struct End;
struct Out;

impl arch::Place for In {
    const MARK: Mark = Mark::PacketIn;
}

impl arch::Place for Begin {
    const MARK: Mark = Mark::SpanBegin;
}

impl arch::Place for End {
    const MARK: Mark = Mark::SpanEnd;
}

impl arch::Place for Out {
    const MARK: Mark = Mark::PacketOut;
}

/// A packet begins its way through the hooks.
#[inline(always)]
pub(crate) fn packet_in() {
    arch::mark::<In>();
}

/// A span of a packet begins.
#[inline(always)]
pub(crate) fn span_begin() {
    arch::mark::<Begin>();
}

/// That span ends.
#[inline(always)]
pub(crate) fn span_end() {
    arch::mark::<End>();
}

/// The packet's way is over.
#[inline(always)]
pub(crate) fn packet_out() {
    arch::mark::<Out>();
}
