// SPDX-License-Identifier: GPL-2.0

//! Rewriting addresses and ports in a packet's headers.

use super::abi::proxy::{Family, Protocol};
use super::checksum::Delta;
use super::flow::Change;
use super::packet::{
    Packet, IPV4_ADDRESSES, IPV4_CHECKSUM, IPV6_ADDRESSES, TCP_CHECKSUM, UDP_CHECKSUM,
};
use super::tuple::Tuple;

/// Who computes the transport's checksum: `skb->ip_summed`, see include/linux/skbuff.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nobody: it stands in the header (CHECKSUM_NONE, CHECKSUM_UNNECESSARY).
    None,
    /// The device that sends it: the header holds the sum of the pseudo header alone.
    Partial,
    /// The device that received it computed a sum over all of the packet, kept beside it.
    Complete,
}

/// What has to be done to the sum that a device computed over the packet (CHECKSUM_COMPLETE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceSum {
    /// Nothing: what changed cancels out.
    Stays,
    /// This is to be taken off.
    Less(Delta),
    /// It is no use any more.
    Forget,
}

#[inline(always)]
fn put<const N: usize>(headers: &mut [u8], at: usize, bytes: [u8; N]) -> Option<()> {
    *headers.get_mut(at..)?.first_chunk_mut::<N>()? = bytes;
    Some(())
}

#[inline(always)]
fn change(headers: &mut [u8], at: usize, new: impl FnOnce(u16) -> u16) -> Option<()> {
    let field = headers.get_mut(at..)?.first_chunk_mut::<2>()?;
    *field = new(u16::from_ne_bytes(*field)).to_ne_bytes();
    Some(())
}

/// Makes `packet`, whose headers are `headers`, look like `to`; `by` is what that changes in its
/// checksums. `None` if the headers are shorter than [`Packet::translated`].
#[inline(always)]
pub fn translate(
    headers: &mut [u8],
    packet: &Packet,
    to: &Tuple,
    by: Change,
    offload: Offload,
) -> Option<DeviceSum> {
    // One check for all that follows.
    let headers = headers.get_mut(..packet.translated())?;
    let transport = usize::from(packet.transport);
    let family = packet.tuple.family();
    match family {
        Family::V4 => {
            put(headers, IPV4_ADDRESSES, to.source()[0].to_ne_bytes())?;
            put(
                headers,
                IPV4_ADDRESSES + 4,
                to.destination()[0].to_ne_bytes(),
            )?;
            change(headers, IPV4_CHECKSUM, |sum| by.addresses.apply(sum))?;
        }
        Family::V6 => {
            for (word, bytes) in to.source().into_iter().chain(to.destination()).enumerate() {
                put(headers, IPV6_ADDRESSES + 4 * word, bytes.to_ne_bytes())?;
            }
        }
    }
    put(headers, transport, to.ports().source.to_ne_bytes())?;
    put(headers, transport + 2, to.ports().destination.to_ne_bytes())?;

    let at = transport
        + match packet.tuple.protocol() {
            Protocol::Tcp => TCP_CHECKSUM,
            Protocol::Udp => UDP_CHECKSUM,
        };
    if offload == Offload::Partial {
        // The ports are not in the pseudo header.
        change(headers, at, |sum| by.addresses.apply_to_sum(sum))?;
        return Some(DeviceSum::Stays);
    }
    let mut summed = true;
    change(headers, at, |sum| match (packet.tuple.protocol(), sum) {
        // RFC 768: zero says that there is no checksum, so a sum of zero is sent as its other form.
        (Protocol::Udp, 0) => {
            summed = false;
            0
        }
        (Protocol::Udp, sum) => match by.transport.apply(sum) {
            0 => !0,
            sum => sum,
        },
        (Protocol::Tcp, sum) => by.transport.apply(sum),
    })?;
    Some(match (offload, family, summed) {
        (Offload::Complete, _, false) => DeviceSum::Forget,
        // The IPv4 header sums to the same as before, but the transport's checksum made up for
        // the addresses, which are not in the transport. In IPv6 the two changes cancel out.
        (Offload::Complete, Family::V4, true) => DeviceSum::Less(by.addresses),
        _ => DeviceSum::Stays,
    })
}

#[cfg(test)]
mod tests {
    use super::super::checksum::Sum;
    use super::super::flow::{Flow, Side};
    use super::super::packet::{parse_v4, parse_v6, Parsed};
    use super::super::tuple::v4;
    use super::*;
    use proptest::prelude::*;

    fn pseudo_header(tuple: &Tuple, length: usize) -> Sum {
        Sum::default()
            .add_address(tuple.source())
            .add_address(tuple.destination())
            .add(u32::from((tuple.protocol() as u16).to_be()))
            .add(u32::from((length as u16).to_be()))
    }

    // A whole packet with all checksums right, or with the pseudo header's sum alone.
    fn build(v6: bool, tcp: bool, offload: Offload, addresses: &[u8; 32], rest: &[u8]) -> Vec<u8> {
        let number = if tcp { 6 } else { 17 };
        let mut bytes = Vec::new();
        if v6 {
            bytes.extend([0x60, 0, 0, 0, 0, rest.len() as u8, number, 64]);
            bytes.extend(addresses);
        } else {
            bytes.extend([
                0x45,
                0,
                0,
                20 + rest.len() as u8,
                0,
                0,
                0x40,
                0,
                64,
                number,
                0,
                0,
            ]);
            bytes.extend(&addresses[..8]);
            let sum = !Sum::of(&bytes).fold();
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
        }
        let transport = bytes.len();
        bytes.extend(rest);
        let at = transport + if tcp { 16 } else { 6 };
        bytes[at..at + 2].fill(0);
        let packet = parse(&bytes);
        let pseudo = pseudo_header(&packet.tuple, rest.len());
        let sum = if offload == Offload::Partial {
            pseudo.fold()
        } else {
            let whole = !pseudo
                .add(Sum::of(&bytes[transport..]).fold().into())
                .fold();
            if whole == 0 && !tcp {
                !0
            } else {
                whole
            }
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Packet {
        match if bytes[0] >> 4 == 6 {
            parse_v6(bytes)
        } else {
            parse_v4(bytes)
        } {
            Parsed::Transport(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn every_checksum_is_what_a_full_computation_gives(
            v6 in any::<bool>(),
            tcp in any::<bool>(),
            offload in prop_oneof![
                Just(Offload::None), Just(Offload::Partial), Just(Offload::Complete)
            ],
            addresses in any::<[u8; 32]>(),
            mut rest in prop::collection::vec(any::<u8>(), 20..61),
            upstream in any::<[u32; 4]>(),
            ports in any::<[u16; 2]>(),
            reply in any::<bool>(),
        ) {
            if tcp {
                rest[12] = 5 << 4;
            }
            let mut bytes = build(v6, tcp, offload, &addresses, &rest);
            let before = bytes.clone();
            let packet = parse(&bytes);
            let upstream = if v6 { upstream } else { v4(upstream[0]) };
            let (flow, side) = if reply {
                let original = packet.tuple.reverse().to(upstream, ports[0]);
                (Flow::new(original, packet.tuple.reverse(), 0, 0), Side::Reply)
            } else {
                let to = packet.tuple.to(upstream, ports[0]).from_port(ports[1]);
                (Flow::new(packet.tuple, to, 0, 0), Side::Original)
            };
            let to = flow.translated(side);
            let sum = Sum::of(&before).fold();
            let device =
                translate(&mut bytes, &packet, &to, flow.change(side), offload).unwrap();

            prop_assert_eq!(parse(&bytes).tuple, to);
            let expected = build(v6, tcp, offload, &{
                let mut addresses = [0; 32];
                let at = if v6 { 8 } else { 12 };
                let length = if v6 { 32 } else { 8 };
                addresses[..length].copy_from_slice(&bytes[at..at + length]);
                addresses
            }, &bytes[usize::from(packet.transport)..]);
            let fields = |bytes: &[u8]| {
                let at = usize::from(packet.transport) + if tcp { 16 } else { 6 };
                let field = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
                // Zero and 0xffff are the same number to a receiver.
                (field(at) % 0xffff, if v6 { 0 } else { field(10) % 0xffff })
            };
            prop_assert_eq!(fields(&bytes), fields(&expected));
            if !tcp && offload != Offload::Partial {
                let at = usize::from(packet.transport) + 6;
                prop_assert_ne!(&bytes[at..at + 2], &[0, 0], "no checksum where there was one");
            }
            if offload == Offload::Complete {
                let kept = match device {
                    DeviceSum::Stays => u32::from(sum),
                    DeviceSum::Less(by) => by.take_off(sum.into()),
                    DeviceSum::Forget => return Err(TestCaseError::fail("had a checksum")),
                };
                let kept = Sum::default().add(kept).fold() % 0xffff;
                prop_assert_eq!(kept, Sum::of(&bytes).fold() % 0xffff);
            }
        }

        #[test]
        fn nothing_else_changes(rest in prop::collection::vec(any::<u8>(), 20..61)) {
            let mut bytes = build(false, false, Offload::None, &[7; 32], &rest);
            let before = bytes.clone();
            let packet = parse(&bytes);
            let flow = Flow::new(packet.tuple, packet.tuple.to(v4(9), 9), 0, 0);
            let to = flow.translated(Side::Original);
            translate(&mut bytes, &packet, &to, flow.change(Side::Original), Offload::None);
            let kept = |bytes: &[u8]| {
                [&bytes[..10], &bytes[24..26], &bytes[28..]].concat()
            };
            prop_assert_eq!(kept(&bytes), kept(&before));
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        let mut bytes = build(false, false, Offload::None, &[7; 32], &[1; 20]);
        bytes[26..28].fill(0);
        let packet = parse(&bytes);
        let flow = Flow::new(packet.tuple, packet.tuple.to(v4(9), 9), 0, 0);
        let (to, by) = (flow.translated(Side::Original), flow.change(Side::Original));
        let device = translate(&mut bytes, &packet, &to, by, Offload::Complete);
        assert_eq!(device, Some(DeviceSum::Forget));
        assert_eq!(bytes[26..28], [0, 0]);
    }

    #[test]
    fn short_headers_are_not_touched() {
        let whole = build(false, true, Offload::None, &[7; 32], &[5 << 4; 20]);
        let packet = parse(&whole);
        let flow = Flow::new(packet.tuple, packet.tuple.to(v4(9), 9), 0, 0);
        for length in 0..packet.translated() {
            let mut short = whole[..length].to_vec();
            let (to, by) = (flow.translated(Side::Original), flow.change(Side::Original));
            assert_eq!(translate(&mut short, &packet, &to, by, Offload::None), None);
            assert_eq!(short, whole[..length]);
        }
    }
}
