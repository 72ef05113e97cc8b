// SPDX-License-Identifier: GPL-2.0

//! What identifies the packets of one direction of a flow.
//!
//! Everything is kept in network byte order, as it lies in the packet: comparing and rewriting
//! then need no swap. The two versions of IP are two types, so that code for one never asks which
//! it is.

use core::fmt::Debug;

use super::abi::proxy::{Family, Protocol};
use super::checksum::Sum;
use super::hash::{hash_3_words, hash_9_words, Secret, Seed};
use super::range::Number;

/// An address of one version of IP, in network byte order.
pub trait Address: Copy + Eq + Debug + Send + Sync + 'static {
    /// The version.
    const FAMILY: Family;
    /// Source and destination, as they lie in the header.
    type Pair: Copy + Debug + Send + Sync;
    /// What a hash depends on beside them.
    type Seed: Secret + Copy + Debug + Send + Sync;
    /// As a number: addresses of a network are behind each other.
    type Number: Number;

    /// As a number, which begins with the first byte.
    fn number(self) -> Self::Number;
    /// From the bytes of an address in the ABI, of which IPv4 uses the first four.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// The bytes of an address in the ABI.
    fn to_bytes(self) -> [u8; 16];
    /// The bits that the first `prefix` bits of `mask` select.
    #[must_use]
    fn and(self, mask: Self) -> Self;
    /// It with ones where `mask` has zeros.
    #[must_use]
    fn or_not(self, mask: Self) -> Self;
    /// Ones in the first `prefix` bits.
    fn mask(prefix: u8) -> Self;
    /// The sum of its words.
    fn sum(self) -> Sum;
    /// Its bit in a Bloom filter of 64 bits with one hash: by its last bytes.
    fn bloom_bit(self) -> u64;
    /// Whether it is nobody's own: of a group, of all on a link, or none.
    fn is_shared(self) -> bool;

    /// Puts a pair together.
    fn pair(source: Self, destination: Self) -> Self::Pair;
    /// Takes a pair apart, source first.
    fn split(pair: Self::Pair) -> (Self, Self);
    /// The pair of packets of the other direction.
    fn reverse(pair: Self::Pair) -> Self::Pair;
    /// Whether two pairs are the same.
    fn same(one: &Self::Pair, other: &Self::Pair) -> bool;
    /// A hash of a pair and a word.
    fn hash(pair: &Self::Pair, ports: u32, seed: &Self::Seed) -> u32;
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address, as two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct V6(pub [u64; 2]);

const LITTLE: bool = cfg!(target_endian = "little");

impl Address for V4 {
    const FAMILY: Family = Family::V4;
    // Both in one word, in the order in which they lie in memory: one load, one comparison.
    type Pair = u64;
    type Seed = Seed<3>;
    type Number = u32;

    #[inline(always)]
    fn number(self) -> u32 {
        u32::from_be(self.0)
    }

    fn from_bytes([a, b, c, d, ..]: [u8; 16]) -> Self {
        Self(u32::from_ne_bytes([a, b, c, d]))
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let [a, b, c, d] = self.0.to_ne_bytes();
        bytes[..4].copy_from_slice(&[a, b, c, d]);
        bytes
    }

    fn and(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    fn or_not(self, mask: Self) -> Self {
        Self(self.0 | !mask.0)
    }

    fn mask(prefix: u8) -> Self {
        let ones = match prefix {
            0 => 0,
            32.. => u32::MAX,
            prefix => u32::MAX << (32 - prefix),
        };
        Self(ones.to_be())
    }

    fn sum(self) -> Sum {
        Sum::default().add(self.0)
    }

    #[inline(always)]
    fn bloom_bit(self) -> u64 {
        // The last byte is the highest of a number in network byte order.
        1_u64.wrapping_shl(self.0 >> 24 ^ self.0 >> 16)
    }

    // RFC 1112, section 4; RFC 919, section 7.
    fn is_shared(self) -> bool {
        let address = u32::from_be(self.0);
        address >> 28 == 0xe || address == u32::MAX || address == 0
    }

    fn pair(source: Self, destination: Self) -> u64 {
        if LITTLE {
            source.0 as u64 | (destination.0 as u64) << 32
        } else {
            destination.0 as u64 | (source.0 as u64) << 32
        }
    }

    #[inline(always)]
    fn split(pair: u64) -> (Self, Self) {
        let (low, high) = (Self(pair as u32), Self((pair >> 32) as u32));
        if LITTLE {
            (low, high)
        } else {
            (high, low)
        }
    }

    #[inline(always)]
    fn reverse(pair: u64) -> u64 {
        pair.rotate_left(32)
    }

    #[inline(always)]
    fn same(one: &u64, other: &u64) -> bool {
        one == other
    }

    #[inline(always)]
    fn hash(pair: &u64, ports: u32, seed: &Seed<3>) -> u32 {
        hash_3_words(*pair, ports, seed)
    }
}

impl Address for V6 {
    const FAMILY: Family = Family::V6;
    type Pair = [u64; 4];
    type Seed = Seed<6>;
    type Number = u128;

    #[inline(always)]
    fn number(self) -> u128 {
        let [high, low] = self.0.map(u64::from_be);
        u128::from(high) << 64 | u128::from(low)
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        let high = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        Self([high, u64::from_ne_bytes(rest)])
    }

    fn to_bytes(self) -> [u8; 16] {
        self.number().to_be_bytes()
    }

    fn and(self, mask: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, mask.0);
        Self([a & c, b & d])
    }

    fn or_not(self, mask: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, mask.0);
        Self([a | !c, b | !d])
    }

    fn mask(prefix: u8) -> Self {
        let ones = match prefix {
            0 => 0,
            128.. => u128::MAX,
            prefix => u128::MAX << (128 - prefix),
        };
        Self::from_bytes(ones.to_be_bytes())
    }

    fn sum(self) -> Sum {
        let [a, b] = self.0;
        [a, b].iter().fold(Sum::default(), |sum, &half| {
            sum.add(half as u32).add((half >> 32) as u32)
        })
    }

    #[inline(always)]
    fn bloom_bit(self) -> u64 {
        let [_, low] = self.0;
        1_u64.wrapping_shl((low >> 56 ^ low >> 48) as u32)
    }

    // RFC 4291, sections 2.5.2 and 2.7.
    fn is_shared(self) -> bool {
        let [high, low] = self.0;
        u64::from_be(high) >> 56 == 0xff || high | low == 0
    }

    fn pair(source: Self, destination: Self) -> [u64; 4] {
        let ([a, b], [c, d]) = (source.0, destination.0);
        [a, b, c, d]
    }

    #[inline(always)]
    fn split([a, b, c, d]: [u64; 4]) -> (Self, Self) {
        (Self([a, b]), Self([c, d]))
    }

    #[inline(always)]
    fn reverse([a, b, c, d]: [u64; 4]) -> [u64; 4] {
        [c, d, a, b]
    }

    // Without a branch for each word, and without a call of memcmp.
    #[inline(always)]
    fn same(one: &[u64; 4], other: &[u64; 4]) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (one, other);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    #[inline(always)]
    fn hash(pair: &[u64; 4], ports: u32, seed: &Seed<6>) -> u32 {
        hash_9_words(*pair, ports, seed)
    }
}

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
    fn masks_of_every_length() {
        assert_eq!(V6::mask(0), V6([0; 2]));
        assert_eq!(V6::mask(128), V6([u64::MAX; 2]));
        assert_eq!(V6::mask(65).0.map(u64::from_be), [u64::MAX, 1 << 63]);
        assert_eq!(V4::mask(0), V4(0));
        assert_eq!(V4::mask(32), V4(u32::MAX));
        assert_eq!(V4::mask(9), ip([255, 128, 0, 0]));
    }

    #[test]
    fn sizes_are_those_that_the_flow_is_laid_out_for() {
        assert_eq!(size_of::<Tuple<V4>>(), 16);
        assert_eq!(size_of::<Tuple<V6>>(), 40);
    }
}
