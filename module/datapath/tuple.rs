// SPDX-License-Identifier: GPL-2.0

//! What identifies the packets of one direction of a flow.

use super::abi::proxy::{Family, Protocol};

/// Addresses, ports, IP version and transport protocol of a packet.
///
/// Everything is kept in network byte order, as it lies in the packet: comparing and rewriting
/// then need no swap. The words that IPv4 uses come first, so that telling two IPv4 tuples apart
/// costs two 64-bit comparisons.
#[derive(Clone, Copy, Debug, Eq)]
#[repr(C, align(8))]
pub struct Tuple {
    ports: Ports,
    kind: u32,
    /// Source word 0, destination word 0.
    first: [u32; 2],
    /// Source words 1 to 3, destination words 1 to 3; zero for IPv4.
    rest: [u32; 6],
}

/// Source and destination port in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ports {
    /// Where the packet comes from.
    pub source: u16,
    /// Where it goes.
    pub destination: u16,
}

/// An address as the four words of an IPv6 address; an IPv4 address is the first.
pub type Address = [u32; 4];

/// Words of an IPv4 address.
pub const fn v4(word: u32) -> Address {
    [word, 0, 0, 0]
}

/// Sixteen bytes as they lie in a packet, to words.
pub fn address_from_bytes(bytes: [u8; 16]) -> Address {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

const FAMILY_SHIFT: u32 = 8;

impl Tuple {
    /// Puts a tuple together.
    #[inline(always)]
    pub const fn new(
        family: Family,
        protocol: Protocol,
        source: Address,
        destination: Address,
        ports: Ports,
    ) -> Self {
        Self {
            ports,
            kind: (family as u32) << FAMILY_SHIFT | protocol as u32,
            first: [source[0], destination[0]],
            rest: [
                source[1],
                source[2],
                source[3],
                destination[1],
                destination[2],
                destination[3],
            ],
        }
    }

    /// The IP version.
    #[inline]
    pub const fn family(&self) -> Family {
        if self.kind >> FAMILY_SHIFT == Family::V4 as u32 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The transport protocol.
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        if self.kind as u8 == Protocol::Tcp as u8 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    /// Where the packet comes from.
    #[inline]
    pub const fn source(&self) -> Address {
        [self.first[0], self.rest[0], self.rest[1], self.rest[2]]
    }

    /// Where the packet goes.
    #[inline]
    pub const fn destination(&self) -> Address {
        [self.first[1], self.rest[3], self.rest[4], self.rest[5]]
    }

    /// Both ports.
    #[inline]
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// The tuple of packets that go the other way.
    pub const fn reverse(&self) -> Self {
        Self::new(
            self.family(),
            self.protocol(),
            self.destination(),
            self.source(),
            Ports {
                source: self.ports.destination,
                destination: self.ports.source,
            },
        )
    }

    /// The same tuple with another destination.
    pub const fn to(&self, destination: Address, port: u16) -> Self {
        Self::new(
            self.family(),
            self.protocol(),
            self.source(),
            destination,
            Ports {
                source: self.ports.source,
                destination: port,
            },
        )
    }

    /// The same tuple from another port.
    pub const fn from_port(&self, port: u16) -> Self {
        let mut tuple = *self;
        tuple.ports.source = port;
        tuple
    }

    /// The four words that every tuple has: ports, version and protocol, source, destination.
    #[inline(always)]
    pub(super) const fn head(&self) -> [u32; 4] {
        let ports = (self.ports.source as u32) | (self.ports.destination as u32) << 16;
        [ports, self.kind, self.first[0], self.first[1]]
    }

    /// The words that only IPv6 has.
    #[inline(always)]
    pub(super) const fn tail(&self) -> &[u32; 6] {
        &self.rest
    }
}

impl PartialEq for Tuple {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        // The kind is in the head: equal heads are of one IP version.
        self.head() == other.head()
            && (self.kind >> FAMILY_SHIFT == Family::V4 as u32 || self.rest == other.rest)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any tuple; with few different addresses and ports, so that collisions come up.
    pub fn any_tuple() -> impl Strategy<Value = Tuple> {
        let address = prop_oneof![Just(0_u32), Just(1), any::<u32>()];
        (
            any::<bool>(),
            any::<bool>(),
            [address.clone(), address.clone(), address.clone(), address],
            any::<[u16; 2]>(),
            any::<u32>(),
        )
            .prop_map(|(v6, tcp, words, [source, destination], low)| {
                let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                let ports = Ports {
                    source,
                    destination,
                };
                if v6 {
                    let other = [words[3], words[2], words[1], low];
                    Tuple::new(Family::V6, protocol, words, other, ports)
                } else {
                    Tuple::new(Family::V4, protocol, v4(words[0]), v4(words[1]), ports)
                }
            })
    }

    proptest! {
        #[test]
        fn fields_come_back(tuple in any_tuple()) {
            let again = Tuple::new(
                tuple.family(), tuple.protocol(), tuple.source(), tuple.destination(), tuple.ports(),
            );
            prop_assert_eq!(again, tuple);
            prop_assert_eq!(tuple.reverse().reverse(), tuple);
            prop_assert_eq!(tuple.reverse().source(), tuple.destination());
        }

        #[test]
        fn equality_sees_every_field(tuple in any_tuple(), bit in 0_u32..32) {
            let flip = 1_u32 << bit;
            let (family, protocol) = (tuple.family(), tuple.protocol());
            let words = if family == Family::V4 { 1 } else { 4 };
            for word in 0..words {
                let mut source = tuple.source();
                source[word] ^= flip;
                let other =
                    Tuple::new(family, protocol, source, tuple.destination(), tuple.ports());
                prop_assert_ne!(other, tuple);
                prop_assert_ne!(other.reverse(), tuple.reverse());
            }
            let port = tuple.ports().source ^ (flip >> 16 | flip) as u16;
            prop_assert_ne!(tuple.from_port(port), tuple);
        }
    }

    #[test]
    fn a_tuple_is_forty_bytes() {
        assert_eq!(size_of::<Tuple>(), 40);
    }
}
