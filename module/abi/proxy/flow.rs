// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Connections that the rules were asked about, as they are told, and which of them somebody means.

use super::{Endpoint, Family, Protocol};

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Nobody has answered.
    Opening = 0,
    /// Its packets go both ways.
    Established = 1,
    /// One end of a TCP connection has sent its FIN.
    Closing = 2,
    /// Both have, or one a RST.
    Closed = 3,
}

impl FlowState {
    /// From its number.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Opening),
            1 => Some(Self::Established),
            2 => Some(Self::Closing),
            3 => Some(Self::Closed),
            _ => None,
        }
    }
}

/// Where a flow is redirected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The upstream.
    pub upstream: Endpoint,
    /// Whom the upstream takes the client for: the client, unless the upstream would answer that by another way, or another
    /// connection had its port there.
    pub source: Endpoint,
    /// The place of the upstream's group among those of its context, as that was configured when the flow began.
    pub group: u8,
    /// The place of the upstream in there.
    pub member: u8,
}

/// A connection that the rules were asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP version of its addresses.
    pub family: Family,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub client: Endpoint,
    /// Where it was to go.
    pub original: Endpoint,
    /// Where it goes; `None`: there, too.
    pub redirection: Option<Redirection>,
    /// How far it has come.
    pub state: FlowState,
    /// Packets of the client, and to it.
    pub packets: [u64; 2],
    /// Bytes of these, from the IP header on.
    pub bytes: [u64; 2],
    /// For how many milliseconds no packet has come.
    pub idle: u64,
}

/// A network: an address and the number of its bits that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// The address; other bits than those do not matter.
    pub address: [u8; 16],
    /// How many bits.
    pub length: u8,
}

impl Prefix {
    /// Whether `address` is in there.
    pub fn has(&self, address: &[u8; 16]) -> bool {
        let length = u32::from(self.length.min(128));
        // A shift by all 128 bits leaves nothing to compare.
        let rest = 128_u32.saturating_sub(length);
        let [one, other] = [&self.address, address].map(|bytes| u128::from_be_bytes(*bytes));
        (one ^ other).checked_shr(rest).unwrap_or(0) == 0
    }
}

/// Which flows are meant: those of which all is so that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// IP version.
    pub family: Option<Family>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Where the client is.
    pub source: Prefix,
    /// Where it was to go.
    pub destination: Prefix,
    /// To which ports, the last one included.
    pub ports: (u16, u16),
}

impl FlowFilter {
    /// All of them.
    pub const ALL: Self = Self {
        family: None,
        protocol: None,
        source: Prefix {
            address: [0; 16],
            length: 0,
        },
        destination: Prefix {
            address: [0; 16],
            length: 0,
        },
        ports: (0, u16::MAX),
    };

    /// Whether a flow is meant that looks so.
    pub fn has(
        &self,
        family: Family,
        protocol: Protocol,
        client: &Endpoint,
        original: &Endpoint,
    ) -> bool {
        let (first, last) = self.ports;
        self.family.is_none_or(|one| one == family)
            && self.protocol.is_none_or(|one| one == protocol)
            && (first..=last).contains(&original.port)
            && self.source.has(&client.address)
            && self.destination.has(&original.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> [u8; 16] {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, last]);
        address
    }

    #[test]
    fn a_prefix_has_what_begins_so() {
        let network = |length| Prefix {
            address: v4(0b1010_0000),
            length,
        };
        assert!(network(27).has(&v4(0b1010_0000)));
        assert!(network(27).has(&v4(0b1011_1111)));
        assert!(!network(27).has(&v4(0b1100_0000)));
        assert!(network(0).has(&[0xff; 16]));
        assert!(!network(32).has(&v4(1)));
        let one = Prefix {
            address: [7; 16],
            length: 128,
        };
        assert!(one.has(&[7; 16]));
        let mut other = [7; 16];
        other[15] = 6;
        assert!(!one.has(&other));
    }

    #[test]
    fn a_filter_has_what_all_of_it_is_so() {
        let end = |last, port| Endpoint {
            address: v4(last),
            port,
        };
        let all = FlowFilter::ALL;
        let has = |filter: FlowFilter| {
            filter.has(Family::V4, Protocol::Tcp, &end(1, 40_000), &end(2, 80))
        };
        assert!(has(all));
        let host = |last| Prefix {
            address: v4(last),
            length: 32,
        };
        for (good, bad) in [
            (
                FlowFilter {
                    family: Some(Family::V4),
                    ..all
                },
                FlowFilter {
                    family: Some(Family::V6),
                    ..all
                },
            ),
            (
                FlowFilter {
                    protocol: Some(Protocol::Tcp),
                    ..all
                },
                FlowFilter {
                    protocol: Some(Protocol::Udp),
                    ..all
                },
            ),
            (
                FlowFilter {
                    source: host(1),
                    ..all
                },
                FlowFilter {
                    source: host(2),
                    ..all
                },
            ),
            (
                FlowFilter {
                    destination: host(2),
                    ..all
                },
                FlowFilter {
                    destination: host(1),
                    ..all
                },
            ),
            (
                FlowFilter {
                    ports: (80, 80),
                    ..all
                },
                FlowFilter {
                    ports: (81, 40_000),
                    ..all
                },
            ),
        ] {
            assert!(has(good), "{good:?}");
            assert!(!has(bad), "{bad:?}");
        }
    }
}
