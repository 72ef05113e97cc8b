// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames as they are on the wire: Ethernet, IPv4 or IPv6, and TCP or UDP, built and taken apart
//! with pnet. Nothing malformed is let in: every length and every checksum is checked.

mod addresses;
mod build;
mod packet;
mod parse;
#[cfg(test)]
mod tests;

pub use build::build;
pub use packet::{
    destination_mac, payload_max, transport_offset, Header, Hop, Layer, Malformed, Packet, Segment,
    Transport, FRAME_MAX, MTU,
};
pub use parse::parse;
