// SPDX-License-Identifier: GPL-2.0

//! Where a flow is in its life, and how long it may stay there without a packet.

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// The client has sent, nobody has answered.
    Opening = 0,
    /// Both have sent.
    Established = 1,
    /// One end has sent its FIN.
    Closing = 2,
    /// Both have sent their FIN, or one a RST.
    Closed = 3,
}

impl FlowState {
    /// From its number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            2 => Self::Closing,
            _ => Self::Closed,
        }
    }
}

/// How long flows may be idle, in the unit of [`Flow::idle`](super::flow::Flow::idle).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Units a second.
    pub hz: u32,
    /// UDP that was not answered, or once: to a well-known port (below 1024), and to others (RFC 4787,
    /// requirement 5); and UDP that lasts.
    pub udp: [u32; 3],
    /// TCP: opening, established, after one FIN, after both or a RST.
    pub tcp: [u32; 4],
}
