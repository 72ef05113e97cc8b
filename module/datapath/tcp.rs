// SPDX-License-Identifier: GPL-2.0

//! How far a connection has come, for choosing its time-out.

use super::abi::proxy::Protocol;
use super::flow::Side;

/// The control bits of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    const FIN: u8 = 1 << 0;
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    const ACK: u8 = 1 << 4;

    /// The sender has no more data.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// The sender opens the connection.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// The sender gives the connection up.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// The acknowledgement number counts.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// The first segment of a connection: SYN and nothing that contradicts it.
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// Nothing in the segment changes the state of an established connection.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (Self::SYN | Self::RST | Self::FIN) == 0
    }
}

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
    /// How many states there are.
    pub const COUNT: usize = 4;

    /// From its number; what is no state's number is [`State::Closed`].
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            2 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// The state after a packet of `side`; `fins` are the sides whose FIN was seen, this packet's
    /// included.
    pub const fn after(self, protocol: Protocol, side: Side, flags: Flags, fins: Fins) -> Self {
        match (protocol, self) {
            (Protocol::Udp, Self::Opening) => match side {
                Side::Original => Self::Opening,
                Side::Reply => Self::Established,
            },
            (Protocol::Udp, state) => state,
            (Protocol::Tcp, _) if flags.rst() => Self::Closed,
            (Protocol::Tcp, Self::Closed) => Self::Closed,
            (Protocol::Tcp, _) if fins.both() => Self::Closed,
            (Protocol::Tcp, _) if fins.any() => Self::Closing,
            (Protocol::Tcp, Self::Opening) => match side {
                Side::Original => Self::Opening,
                Side::Reply => Self::Established,
            },
            (Protocol::Tcp, state) => state,
        }
    }
}

/// Which sides have sent their FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fins(pub u8);

impl Fins {
    /// Adds the FIN of `side`, if `flags` has one.
    pub const fn with(self, side: Side, flags: Flags) -> Self {
        if flags.fin() {
            Self(self.0 | 1 << side as u8)
        } else {
            self
        }
    }

    const fn any(self) -> bool {
        self.0 != 0
    }

    const fn both(self) -> bool {
        self.0 & 3 == 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Original, Reply};

    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FIN: u8 = 17;
    const RST: u8 = 4;

    fn walk(protocol: Protocol, packets: &[(Side, u8)]) -> State {
        let mut fins = Fins::default();
        packets
            .iter()
            .fold(State::Opening, |state, &(side, flags)| {
                fins = fins.with(side, Flags(flags));
                state.after(protocol, side, Flags(flags), fins)
            })
    }

    #[test]
    fn a_connection_opens_and_closes() {
        let life = [
            (Original, SYN),
            (Reply, SYN | ACK),
            (Original, ACK),
            (Reply, FIN),
            (Original, ACK),
            (Original, FIN),
        ];
        let states: Vec<State> = (1..=life.len())
            .map(|n| walk(Protocol::Tcp, &life[..n]))
            .collect();
        use State::*;
        assert_eq!(
            states,
            [Opening, Established, Established, Closing, Closing, Closed]
        );
    }

    #[test]
    fn a_reset_closes_and_stays() {
        assert_eq!(
            walk(
                Protocol::Tcp,
                &[(Original, SYN), (Reply, RST), (Reply, ACK)]
            ),
            State::Closed
        );
    }

    #[test]
    fn both_fins_of_one_side_do_not_close() {
        let packets = [
            (Original, SYN),
            (Reply, SYN | ACK),
            (Reply, FIN),
            (Reply, FIN),
        ];
        assert_eq!(walk(Protocol::Tcp, &packets), State::Closing);
    }

    #[test]
    fn udp_is_established_by_an_answer() {
        assert_eq!(
            walk(Protocol::Udp, &[(Original, 0), (Original, 0)]),
            State::Opening
        );
        assert_eq!(
            walk(Protocol::Udp, &[(Original, 0), (Reply, 0)]),
            State::Established
        );
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(Flags(SYN).opens());
        // ECN bits (RFC 3168) belong to a SYN.
        assert!(Flags(SYN | 0xc0).opens());
        for flags in [0, ACK, SYN | ACK, SYN | FIN, SYN | RST, RST] {
            assert!(!Flags(flags).opens(), "{flags:#x}");
        }
    }
}
