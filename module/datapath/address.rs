// SPDX-License-Identifier: GPL-2.0

//! Addresses of the two versions of IP, in network byte order: two types, so that code for one never asks which it is.

use core::fmt::Debug;

use super::abi::proxy::Family;
use super::checksum::Sum;
use super::hash::{hash_3_words, hash_9_words, Secret, Seed};
use super::set::Key;

/// An address of one version of IP, in network byte order.
pub trait Address: Copy + Eq + Debug + Send + Sync + 'static {
    /// The version.
    const FAMILY: Family;
    /// Source and destination, as they lie in the header.
    type Pair: Copy + Debug + Send + Sync;
    /// What a hash depends on beside them.
    type Seed: Secret + Copy + Debug + Send + Sync;
    /// As a number: addresses of a network are behind each other.
    type Number: Key;

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

/// Whether the machine has the low byte of a number first.
pub(super) const LITTLE: bool = cfg!(target_endian = "little");

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

#[cfg(test)]
mod tests {
    use super::super::tuple::tests::ip;
    use super::*;

    #[test]
    fn masks_of_every_length() {
        assert_eq!(V6::mask(0), V6([0; 2]));
        assert_eq!(V6::mask(128), V6([u64::MAX; 2]));
        assert_eq!(V6::mask(65).0.map(u64::from_be), [u64::MAX, 1 << 63]);
        assert_eq!(V4::mask(0), V4(0));
        assert_eq!(V4::mask(32), V4(u32::MAX));
        assert_eq!(V4::mask(9), ip([255, 128, 0, 0]));
    }
}
