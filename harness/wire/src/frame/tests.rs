// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built is parsed, and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};

use std::net::SocketAddr;

use mutexlab_model::traffic::{Family, Protocol};
use pnet::util::MacAddr;

use super::packet::*;
use super::*;
use proptest::prelude::*;

const HOP: Hop = Hop {
    source: MacAddr(2, 0, 0, 0, 0, 1),
    destination: MacAddr(2, 0, 0, 0, 0, 2),
};

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<(Ipv4Addr, u16, Ipv4Addr, u16)>()
        .prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    let v6 = any::<(Ipv6Addr, u16, Ipv6Addr, u16)>()
        .prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    prop_oneof![v4, v6]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        Just(Transport::Udp),
        any::<(u32, u32, u8)>().prop_map(|(sequence, acknowledgement, flags)| {
            Transport::Tcp(Segment {
                sequence,
                acknowledgement,
                flags,
            })
        })
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (addresses(), transport()).prop_map(|((source, destination), transport)| Header {
        source,
        destination,
        transport,
    })
}

#[test]
fn both_zeros_of_a_tcp_checksum_are_right() {
    let header = Header {
        source: (Ipv4Addr::new(192, 0, 2, 1), 1).into(),
        destination: (Ipv4Addr::new(192, 0, 2, 2), 2).into(),
        transport: Transport::Tcp(Segment {
            sequence: 1,
            acknowledgement: 0,
            flags: 2,
        }),
    };
    let at = ETHERNET + IPV4 + 16;
    let mut buffer = [0; FRAME_MAX];
    // Some payload of two bytes makes the sum zero.
    let found = (0..=u16::MAX).any(|payload| {
        let length = build(&mut buffer, HOP, &header, &payload.to_be_bytes())
            .unwrap()
            .len();
        let mut frame = buffer[..length].to_vec();
        if frame[at..at + 2] != [0, 0] {
            return false;
        }
        assert!(parse(&frame).is_ok());
        frame[at..at + 2].fill(0xff);
        assert!(parse(&frame).is_ok());
        true
    });
    assert!(found);
}

proptest! {
    #[test]
    fn what_is_built_is_parsed(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..1400),
    ) {
        let mut buffer = [0xaa; FRAME_MAX];
        let frame = build(&mut buffer, HOP, &header, &payload).unwrap();
        let packet = parse(frame).unwrap();
        prop_assert_eq!(packet, Packet { hop: HOP, header, payload: &payload });
    }

    #[test]
    fn a_flipped_bit_is_noticed(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        bit: prop::sample::Index,
    ) {
        let mut buffer = [0; FRAME_MAX];
        let length = build(&mut buffer, HOP, &header, &payload).unwrap().len();
        let mut frame = buffer[..length].to_vec();
        let bit = bit.index(8 * length);
        // IPv6 does not protect its traffic class, flow label and hop limit. Nor does Ethernet
        // anything here, but that shows in the hop.
        let at = bit.checked_sub(8 * ETHERNET);
        let unprotected = header.source.is_ipv6()
            && matches!(at, Some(0..4 | 8..32 | 56..64));
        prop_assume!(!unprotected);
        frame[bit / 8] ^= 1 << (bit % 8);
        let noticed = match parse(&frame) {
            Err(_) => true,
            Ok(packet) => packet.hop != HOP,
        };
        prop_assert!(noticed, "bit {} of {:02x?}", bit, frame);
    }

    #[test]
    fn no_bytes_make_it_panic(frame in prop::collection::vec(any::<u8>(), 0..128)) {
        let _ = parse(&frame);
    }

    #[test]
    fn a_cut_frame_is_refused(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        cut: prop::sample::Index,
    ) {
        let mut buffer = [0; FRAME_MAX];
        let frame = build(&mut buffer, HOP, &header, &payload).unwrap();
        prop_assert!(parse(&frame[..cut.index(frame.len())]).is_err());
    }
}

#[test]
fn the_longest_payload_fits_and_no_more() {
    let source: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let header = Header {
        source,
        destination: source,
        transport: Transport::Udp,
    };
    let max = payload_max(Family::V4, Protocol::Udp);
    let mut buffer = [0; FRAME_MAX];
    assert!(build(&mut buffer, HOP, &header, &vec![0; max]).is_ok());
    assert!(build(&mut buffer, HOP, &header, &vec![0; max + 1]).is_err());
}

#[test]
fn addresses_of_two_versions_are_refused() {
    let header = Header {
        source: "192.0.2.1:1".parse().unwrap(),
        destination: "[2001:db8::1]:1".parse().unwrap(),
        transport: Transport::Udp,
    };
    assert!(build(&mut [0; FRAME_MAX], HOP, &header, &[]).is_err());
}
