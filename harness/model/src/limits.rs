// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much a cell may ask for: of the scenario that asks, and of the agent that does it.

/// The most flows of a cell.
pub const MAX_FLOWS: u32 = 1_000_000;
/// How many flows there are at most beside those that are measured.
pub const MAX_OTHER_FLOWS: u32 = MAX_FURTHER_FLOWS + 1;
/// From how many first packets a median is taken at most.
pub const MAX_FURTHER_FLOWS: u32 = 1_000;
/// The least payload: flow, sequence number and seed are in it.
pub const MIN_PAYLOAD: u16 = 16;
/// The most packets of a burst: UDP_MAX_SEGMENTS of linux/udp.h.
pub const MAX_BURST: u32 = 128;
/// The most bytes of all their payloads together, so that a packet of either IP version holds them.
pub const MAX_BURST_BYTES: u32 = 65_000;
