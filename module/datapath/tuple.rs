// SPDX-License-Identifier: GPL-2.0

//! What identifies the packets of one direction of a flow.
//!
//! Everything is kept in network byte order, as it lies in the packet: comparing and rewriting
//! then need no swap.

use core::fmt::Debug;

use super::abi::proxy::Protocol;
use super::address::LITTLE;
use super::checksum::Sum;

pub use super::address::{Address, V4, V6};

/// Source and destination port, as they lie in the header.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ports(pub u32);

impl Ports {
    /// From two ports in network byte order.
    #[inline(always)]
    pub const fn new(source: u16, destination: u16) -> Self {
        if LITTLE {
            Self(source as u32 | (destination as u32) << 16)
        } else {
            Self(destination as u32 | (source as u32) << 16)
        }
    }

    /// Where the packet comes from, in network byte order.
    #[inline(always)]
    pub const fn source(self) -> u16 {
        if LITTLE {
            self.0 as u16
        } else {
            (self.0 >> 16) as u16
        }
    }

    /// Where it goes, in network byte order.
    #[inline(always)]
    pub const fn destination(self) -> u16 {
        self.reverse().source()
    }

    /// The ports of packets of the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(self) -> Self {
        Self(self.0.rotate_left(16))
    }
}

impl Debug for Ports {
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [source, destination] = [self.source(), self.destination()].map(u16::from_be);
        write!(to, "{source}:{destination}")
    }
}

/// Addresses, ports and transport protocol of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tuple<A: Address> {
    /// Source and destination address.
    pub addresses: A::Pair,
    /// Source and destination port.
    pub ports: Ports,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl<A: Address> Tuple<A> {
    /// Puts a tuple together.
    pub fn new(protocol: Protocol, source: A, destination: A, ports: Ports) -> Self {
        Self {
            addresses: A::pair(source, destination),
            ports,
            protocol,
        }
    }

    /// Where the packet comes from.
    #[inline(always)]
    pub fn source(&self) -> A {
        A::split(self.addresses).0
    }

    /// Where the packet goes.
    #[inline(always)]
    pub fn destination(&self) -> A {
        A::split(self.addresses).1
    }

    /// The tuple of packets of the other direction.
    #[inline(always)]
    #[must_use]
    pub fn reverse(&self) -> Self {
        Self {
            addresses: A::reverse(self.addresses),
            ports: self.ports.reverse(),
            protocol: self.protocol,
        }
    }

    /// Whether its destination port is one of those that IANA assigns to system services: below 1024
    /// (RFC 6335, section 6).
    pub fn goes_to_well_known_port(&self) -> bool {
        u16::from_be(self.ports.destination()) < 1024
    }

    /// The same tuple from where `other` comes.
    #[must_use]
    pub fn from_source_of(&self, other: &Self) -> Self {
        Self {
            addresses: A::pair(other.source(), self.destination()),
            ports: Ports::new(other.ports.source(), self.ports.destination()),
            ..*self
        }
    }

    /// The same tuple with another destination.
    #[must_use]
    pub fn to(&self, destination: A, port: u16) -> Self {
        let ports = Ports::new(self.ports.source(), port);
        Self::new(self.protocol, self.source(), destination, ports)
    }

    /// The same tuple from another port.
    #[must_use]
    pub fn from_port(&self, port: u16) -> Self {
        Self {
            ports: Ports::new(port, self.ports.destination()),
            ..*self
        }
    }

    /// The same tuple from another address.
    #[must_use]
    pub fn from_address(&self, source: A) -> Self {
        Self {
            addresses: A::pair(source, self.destination()),
            ..*self
        }
    }

    /// Its hash. The protocol is not in it: a TCP and a UDP tuple that are else the same share a
    /// bucket.
    #[inline(always)]
    pub fn hash(&self, seed: &A::Seed) -> u32 {
        A::hash(&self.addresses, self.ports.0, seed)
    }

    /// How many bytes addresses and ports add to a checksum: the sum of their words.
    pub fn sums(&self) -> (Sum, Sum) {
        let (source, destination) = A::split(self.addresses);
        let addresses = source.sum().and(destination.sum());
        (addresses, Sum::default().add(self.ports.0))
    }
}

impl<A: Address> PartialEq for Tuple<A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        A::same(&self.addresses, &other.addresses)
            && self.ports == other.ports
            && self.protocol as u8 == other.protocol as u8
    }
}

impl<A: Address> Eq for Tuple<A> {}

#[cfg(test)]
pub(super) mod tests {
    use super::super::hash::Seed;
    use super::*;
    use proptest::prelude::*;

    /// An IPv4 address as it is written.
    pub fn ip(bytes: [u8; 4]) -> V4 {
        V4(u32::from_ne_bytes(bytes))
    }

    fn any_word() -> impl Strategy<Value = u64> + Clone {
        prop_oneof![Just(0_u64), Just(1), any::<u64>()]
    }

    fn any_tuple<A: Address>(
        address: impl Strategy<Value = A> + Clone,
    ) -> impl Strategy<Value = Tuple<A>> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        (protocol, address.clone(), address, any::<[u16; 2]>()).prop_map(
            |(protocol, source, destination, [from, to])| {
                Tuple::new(protocol, source, destination, Ports::new(from, to))
            },
        )
    }

    /// Any tuple; with few different addresses, so that collisions come up.
    pub fn any_v4() -> impl Strategy<Value = Tuple<V4>> {
        any_tuple(any_word().prop_map(|word| V4(word as u32)))
    }

    /// As [`any_v4`].
    pub fn any_v6() -> impl Strategy<Value = Tuple<V6>> {
        any_tuple([any_word(), any_word()].prop_map(V6))
    }

    fn fields_come_back<A: Address>(tuple: Tuple<A>) {
        let (source, destination) = (tuple.source(), tuple.destination());
        let again = Tuple::new(tuple.protocol, source, destination, tuple.ports);
        assert_eq!(again, tuple);
        assert_eq!(tuple.reverse().reverse(), tuple);
        assert_eq!(tuple.reverse().source(), destination);
        assert_eq!(tuple.reverse().ports.source(), tuple.ports.destination());
        let ports = Ports::new(tuple.ports.source(), tuple.ports.destination());
        assert_eq!(ports, tuple.ports);
        assert_eq!(tuple.from_address(destination).source(), destination);
    }

    proptest! {
        #[test]
        fn fields_come_back_v4(tuple in any_v4()) {
            fields_come_back(tuple);
        }

        #[test]
        fn fields_come_back_v6(tuple in any_v6()) {
            fields_come_back(tuple);
        }

        #[test]
        fn equality_and_hash_see_every_bit(four in any_v4(), six in any_v6(), bit in 0_u32..64) {
            let (seed, seed_six) = (Seed::from(7), Seed::from(7));
            let other = Tuple { addresses: four.addresses ^ 1 << bit, ..four };
            prop_assert_ne!(other, four);
            prop_assert_ne!(other.hash(&seed), four.hash(&seed));
            for word in 0..4 {
                let mut other = six;
                other.addresses[word] ^= 1 << bit;
                prop_assert_ne!(other, six);
                prop_assert_ne!(other.hash(&seed_six), six.hash(&seed_six));
            }
            let ports = Ports(four.ports.0 ^ 1 << (bit % 32));
            let other = Tuple { ports, ..four };
            prop_assert_ne!(other, four);
            prop_assert_ne!(other.hash(&seed), four.hash(&seed));
        }
    }

    #[test]
    fn protocols_differ() {
        let of = |protocol| Tuple::new(protocol, ip([1; 4]), ip([2; 4]), Ports::new(3, 4));
        assert_ne!(of(Protocol::Tcp), of(Protocol::Udp));
    }

    #[test]
    fn sizes_are_those_that_the_flow_is_laid_out_for() {
        assert_eq!(size_of::<Tuple<V4>>(), 16);
        assert_eq!(size_of::<Tuple<V6>>(), 40);
    }
}
