// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checksums of what is sent (RFC 1071), eight bytes at a time. What is received is verified by pnet's
//! own functions instead, so that a mistake made here shows as a damaged packet; those sum two bytes at
//! a time, which takes longer than all the rest of a large packet.

use std::net::IpAddr;

use pnet::packet::ip::IpNextHeaderProtocol;

/// A ones' complement sum of 16-bit words, not yet folded.
///
/// Words are summed as this machine loads them, in whichever byte order: RFC 1071, section 2 (B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Sum of the pseudo header (RFC 9293, section 3.1; RFC 768; RFC 8200, section 8.1) of a packet
    /// with `length` bytes from the transport header on.
    #[inline]
    pub fn of_pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: IpNextHeaderProtocol,
        length: u16,
    ) -> Self {
        [source, destination]
            .into_iter()
            .fold(Self::default(), |sum, address| match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            })
            .add(&[0, protocol.0])
            .add(&length.to_be_bytes())
    }

    /// With the words of `bytes`; an odd last byte is padded with zero.
    #[inline]
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "a sum of bytes is no sum of sums"
    )]
    pub fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // Carries gather in the upper half, which has room for those of 16 GiB.
        let halves = |word: &[u8; 8]| {
            let word = u64::from_ne_bytes(*word);
            (word & 0xffff_ffff) + (word >> 32)
        };
        Self(words.iter().map(halves).sum::<u64>() + halves(&last) + self.0)
    }

    /// The sum in 16 bits, as a header's field has it that whoever sends the packet shall complete.
    #[inline]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet::packet::ip::IpNextHeaderProtocols;
    use pnet::packet::util;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_that_of_pnet(
            bytes in prop::collection::vec(any::<u8>(), 1..1500),
            v4: [[u8; 4]; 2],
            v6: [[u8; 16]; 2],
        ) {
            // None of the words is the checksum.
            let none = bytes.len();
            prop_assert_eq!(Sum::default().add(&bytes).checksum(), util::checksum(&bytes, none));

            let (protocol, length) = (IpNextHeaderProtocols::Tcp, bytes.len() as u16);
            let [source, destination] = v4.map(Into::into);
            prop_assert_eq!(
                Sum::of_pseudo_header(IpAddr::V4(source), IpAddr::V4(destination), protocol, length)
                    .add(&bytes)
                    .checksum(),
                util::ipv4_checksum(&bytes, none, &[], &source, &destination, protocol)
            );
            let [source, destination] = v6.map(Into::into);
            prop_assert_eq!(
                Sum::of_pseudo_header(IpAddr::V6(source), IpAddr::V6(destination), protocol, length)
                    .add(&bytes)
                    .checksum(),
                util::ipv6_checksum(&bytes, none, &[], &source, &destination, protocol)
            );
        }

        #[test]
        fn parts_of_even_length_sum_like_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            at: prop::sample::Index,
        ) {
            let (a, b) = bytes.split_at(at.index(bytes.len() + 1) & !1);
            prop_assert_eq!(
                Sum::default().add(a).add(b).fold(),
                Sum::default().add(&bytes).fold()
            );
        }
    }

    #[test]
    fn example_of_rfc_1071() {
        // Section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().add(&bytes).fold(), 0xddf2);
    }

    #[test]
    fn all_carries_are_folded() {
        assert_eq!(Sum::default().add(&[0xff; 65_535]).fold(), 0xff00);
        assert_eq!(Sum::default().add(&[0xff; 65_536]).fold(), 0xffff);
    }
}
