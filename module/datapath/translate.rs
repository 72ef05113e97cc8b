// SPDX-License-Identifier: GPL-2.0

//! Rewriting addresses and ports in a packet's headers.

use super::abi::proxy::{Family, Protocol};
use super::checksum::Delta;
use super::flow::ChecksumFixup;
use super::packet::{Header, TCP_HEADER, UDP_HEADER};
use super::tuple::Tuple;

/// Where the checksum stands in a TCP header.
pub(super) const TCP_CHECKSUM: usize = 16;
/// Where the checksum stands in a UDP header.
pub(super) const UDP_CHECKSUM: usize = 6;

/// Who computes the transport's checksum: `skb->ip_summed`, see include/linux/skbuff.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nobody: it stands in the header (CHECKSUM_NONE, CHECKSUM_UNNECESSARY).
    None,
    /// The device that sends it: this header, and not one within, holds the sum of its pseudo header
    /// alone.
    Partial,
    /// The device that received it computed a sum over all of the packet, kept beside it.
    Complete,
}

/// What has to be done to the sum that a device computed over the packet (CHECKSUM_COMPLETE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkbChecksum {
    /// Nothing: what changed cancels out.
    Keep,
    /// This is to be taken off.
    Subtract(Delta),
    /// It is no use any more.
    Invalidate,
}

/// Makes a packet look like `to`, whose IP header is `network` and whose transport header begins
/// with `transport`; `by` is what that changes in its checksums. `None` if a header is too short.
#[inline(always)]
pub fn translate<A: Header>(
    network: &mut [u8],
    transport: &mut [u8],
    to: &Tuple<A>,
    by: ChecksumFixup,
    offload: Offload,
) -> Option<SkbChecksum> {
    A::readdress(network, to.addresses, by.addresses)?;
    match to.protocol {
        Protocol::Tcp => {
            let header = transport.first_chunk_mut::<TCP_HEADER>()?;
            *header.first_chunk_mut::<4>()? = to.ports.0.to_ne_bytes();
            let field = header.get_mut(TCP_CHECKSUM..)?.first_chunk_mut::<2>()?;
            let sum = u16::from_ne_bytes(*field);
            if offload == Offload::Partial {
                // The ports are not in the pseudo header.
                *field = by.addresses.apply_to_sum(sum).to_ne_bytes();
                return Some(SkbChecksum::Keep);
            }
            *field = by.transport.apply(sum).to_ne_bytes();
        }
        Protocol::Udp => {
            let header = transport.first_chunk_mut::<UDP_HEADER>()?;
            *header.first_chunk_mut::<4>()? = to.ports.0.to_ne_bytes();
            let field = header.get_mut(UDP_CHECKSUM..)?.first_chunk_mut::<2>()?;
            let sum = u16::from_ne_bytes(*field);
            // RFC 768: zero says that there is no checksum, so a sum of zero is sent as its other
            // form. A packet without one may be several, with sums within them (VXLAN).
            if sum == 0 {
                return Some(match offload {
                    Offload::Complete => SkbChecksum::Invalidate,
                    Offload::None | Offload::Partial => SkbChecksum::Keep,
                });
            }
            if offload == Offload::Partial {
                *field = by.addresses.apply_to_sum(sum).to_ne_bytes();
                return Some(SkbChecksum::Keep);
            }
            let sum = match by.transport.apply(sum) {
                0 => !0,
                sum => sum,
            };
            *field = sum.to_ne_bytes();
        }
    }
    Some(match (offload, A::FAMILY) {
        // The IPv4 header sums to the same as before, but the transport's checksum made up for
        // the addresses, which are not in the transport. In IPv6 the two changes cancel out.
        (Offload::Complete, Family::V4) => SkbChecksum::Subtract(by.addresses),
        _ => SkbChecksum::Keep,
    })
}

#[cfg(test)]
mod tests {
    use super::super::checksum::Sum;
    use super::super::packet::Parsed;
    use super::super::tuple::{Address, Ports, V4, V6};
    use super::*;
    use proptest::prelude::*;

    fn pseudo_header<A: Address>(tuple: &Tuple<A>, length: usize) -> Sum {
        let (addresses, _) = tuple.sums();
        addresses
            .add(u32::from((tuple.protocol as u16).to_be()))
            .add(u32::from((length as u16).to_be()))
    }

    fn parse<A: Header>(bytes: &[u8]) -> (Tuple<A>, usize) {
        match A::parse(bytes) {
            Parsed::Transport(packet) => (packet.tuple, packet.transport),
            other => panic!("{other:?}"),
        }
    }

    const fn checksum_at(protocol: Protocol) -> usize {
        match protocol {
            Protocol::Tcp => TCP_CHECKSUM,
            Protocol::Udp => UDP_CHECKSUM,
        }
    }

    // A whole packet with all checksums right, or with the pseudo header's sum alone.
    fn build<A: Header>(
        protocol: Protocol,
        offload: Offload,
        addresses: &[u8; 32],
        rest: &[u8],
    ) -> Vec<u8> {
        let number = protocol as u8;
        let mut bytes = Vec::new();
        match A::FAMILY {
            Family::V6 => {
                bytes.extend([0x60, 0, 0, 0, 0, rest.len() as u8, number, 64]);
                bytes.extend(addresses);
            }
            Family::V4 => {
                bytes.extend([0x45, 0, 0, 20 + rest.len() as u8, 0, 0, 0x40, 0, 64, number]);
                bytes.extend([0, 0]);
                bytes.extend(&addresses[..8]);
                let sum = !Sum::of(&bytes).fold();
                bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
            }
        }
        let transport = bytes.len();
        bytes.extend(rest);
        let at = transport + checksum_at(protocol);
        bytes[at..at + 2].fill(0);
        let (tuple, _) = parse::<A>(&bytes);
        let pseudo = pseudo_header(&tuple, rest.len());
        let sum = if offload == Offload::Partial {
            pseudo.fold()
        } else {
            match !pseudo.and(Sum::of(&bytes[transport..])).fold() {
                0 if protocol == Protocol::Udp => !0,
                whole => whole,
            }
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    fn run<A: Header>(bytes: &mut [u8], to: &Tuple<A>, offload: Offload) -> Option<SkbChecksum> {
        let (from, transport) = parse::<A>(bytes);
        let (network, transport) = bytes.split_at_mut(transport);
        translate(
            network,
            transport,
            to,
            ChecksumFixup::between(&from, to),
            offload,
        )
    }

    fn is_right<A: Header>(
        protocol: Protocol,
        offload: Offload,
        addresses: &[u8; 32],
        rest: &[u8],
        to: &Tuple<A>,
    ) {
        let mut bytes = build::<A>(protocol, offload, addresses, rest);
        let sum = Sum::of(&bytes).fold();
        let device = run(&mut bytes, to, offload).unwrap();
        let (found, transport) = parse::<A>(&bytes);
        assert_eq!(found, *to);
        let mut addresses = [0; 32];
        let (at, length) = match A::FAMILY {
            Family::V4 => (12, 8),
            Family::V6 => (8, 32),
        };
        addresses[..length].copy_from_slice(&bytes[at..at + length]);
        let expected = build::<A>(protocol, offload, &addresses, &bytes[transport..]);
        let fields = |bytes: &[u8]| {
            let at = transport + checksum_at(protocol);
            let field = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            // Zero and 0xffff are the same number to a receiver.
            let network = if A::FAMILY == Family::V4 {
                field(10)
            } else {
                0
            };
            (field(at) % 0xffff, network % 0xffff)
        };
        assert_eq!(fields(&bytes), fields(&expected));
        if protocol == Protocol::Udp && offload != Offload::Partial {
            let at = transport + UDP_CHECKSUM;
            assert_ne!(
                &bytes[at..at + 2],
                &[0, 0],
                "no checksum where there was one"
            );
        }
        if offload == Offload::Complete {
            let kept = match device {
                SkbChecksum::Keep => u32::from(sum),
                SkbChecksum::Subtract(by) => by.subtract_from(sum.into()),
                SkbChecksum::Invalidate => panic!("had a checksum"),
            };
            let kept = Sum::default().add(kept).fold() % 0xffff;
            assert_eq!(kept, Sum::of(&bytes).fold() % 0xffff);
        }
    }

    fn any_offload() -> impl Strategy<Value = Offload> {
        prop_oneof![
            Just(Offload::None),
            Just(Offload::Partial),
            Just(Offload::Complete)
        ]
    }

    proptest! {
        #[test]
        fn every_checksum_is_what_a_full_computation_gives(
            tcp in any::<bool>(),
            offload in any_offload(),
            addresses in any::<[u8; 32]>(),
            mut rest in prop::collection::vec(any::<u8>(), 20..61),
            to in any::<[u64; 4]>(),
            ports in any::<u32>(),
        ) {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            if tcp {
                rest[12] = 5 << 4;
            }
            let [a, b, c, d] = to;
            let four = Tuple::new(protocol, V4(a as u32), V4(b as u32), Ports(ports));
            is_right(protocol, offload, &addresses, &rest, &four);
            let six = Tuple::new(protocol, V6([a, b]), V6([c, d]), Ports(ports));
            is_right(protocol, offload, &addresses, &rest, &six);
        }

        #[test]
        fn nothing_else_changes(rest in prop::collection::vec(any::<u8>(), 20..61)) {
            let mut bytes = build::<V4>(Protocol::Udp, Offload::None, &[7; 32], &rest);
            let before = bytes.clone();
            let (tuple, _) = parse::<V4>(&bytes);
            run(&mut bytes, &tuple.to(V4(9), 9), Offload::None);
            let kept = |bytes: &[u8]| [&bytes[..10], &bytes[24..26], &bytes[28..]].concat();
            prop_assert_eq!(kept(&bytes), kept(&before));
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        for (offload, device) in [
            (Offload::Complete, SkbChecksum::Invalidate),
            (Offload::None, SkbChecksum::Keep),
            (Offload::Partial, SkbChecksum::Keep),
        ] {
            let mut bytes = build::<V4>(Protocol::Udp, Offload::None, &[7; 32], &[1; 20]);
            bytes[26..28].fill(0);
            let (tuple, _) = parse::<V4>(&bytes);
            assert_eq!(run(&mut bytes, &tuple.to(V4(9), 9), offload), Some(device));
            assert_eq!(bytes[26..28], [0, 0]);
        }
    }

    // One of them would be zero, which says that there is none.
    #[test]
    #[cfg_attr(miri, ignore = "many values")]
    fn udp_with_a_checksum_stays_with_one() {
        let whole = build::<V4>(Protocol::Udp, Offload::None, &[7; 32], &[1; 20]);
        let (tuple, _) = parse::<V4>(&whole);
        for sum in 1..=u16::MAX {
            let mut bytes = whole.clone();
            bytes[26..28].copy_from_slice(&sum.to_ne_bytes());
            run(&mut bytes, &tuple.to(V4(9), 9), Offload::None);
            assert_ne!(bytes[26..28], [0, 0], "{sum:#x}");
        }
    }

    #[test]
    fn short_headers_are_told() {
        let whole = build::<V4>(Protocol::Tcp, Offload::None, &[7; 32], &[5 << 4; 20]);
        let (tuple, at) = parse::<V4>(&whole);
        for (network, transport) in [(at - 1, TCP_HEADER), (at, TCP_HEADER - 1)] {
            let (mut ip, mut tcp) = (
                whole[..network].to_vec(),
                whole[at..at + transport].to_vec(),
            );
            let change = ChecksumFixup::default();
            assert_eq!(
                translate(&mut ip, &mut tcp, &tuple, change, Offload::None),
                None
            );
        }
    }
}
