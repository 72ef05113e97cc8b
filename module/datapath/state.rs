// SPDX-License-Identifier: GPL-2.0

//! Where a flow is in its life, and how long it may stay there without a packet.

use super::abi::proxy::Protocol;

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The client has sent, nobody has answered.
    Opening = 0,
    /// Both have sent.
    Established = 1,
    /// One side has sent its FIN.
    Closing = 2,
    /// Both have sent their FIN, or one a RST.
    Closed = 3,
}

impl State {
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

/// How long a flow may be idle, in the unit of [`Flow::idle`](super::flow::Flow::idle).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// UDP, before and after an answer.
    pub udp: [u32; 2],
    /// TCP: opening, established, after one FIN, after both or a RST.
    pub tcp: [u32; 4],
}

impl Timeouts {
    /// The one for a flow of `protocol` in `state`.
    pub const fn of(&self, protocol: Protocol, state: State) -> u32 {
        match (protocol, state) {
            (Protocol::Udp, State::Opening) => self.udp[0],
            (Protocol::Udp, _) => self.udp[1],
            (Protocol::Tcp, State::Opening) => self.tcp[0],
            (Protocol::Tcp, State::Established) => self.tcp[1],
            (Protocol::Tcp, State::Closing) => self.tcp[2],
            (Protocol::Tcp, State::Closed) => self.tcp[3],
        }
    }
}
