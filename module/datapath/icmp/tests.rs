// SPDX-License-Identifier: GPL-2.0

//! Messages before and after, each built from the start.

use super::super::flow::{Direction, Flow, Owner};
use super::super::tuple::tests::{any_v4, any_v6, ip};
use super::super::tuple::Ports;
use super::*;
use proptest::prelude::*;

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;

// A message but for its addresses and ports.
#[derive(Clone, Debug)]
struct Shape {
    kind: u8,
    offload: Offload,
    // Words of options, or extension headers, in the message's and in the packet's IP header.
    options: [usize; 2],
    // The packet is the first fragment of one.
    fragment: bool,
    // UDP without a checksum.
    unsummed: bool,
    // What follows the first eight bytes of the transport's header, and how much of it fitted.
    rest: Vec<u8>,
    kept: usize,
    // Something follows the packet (RFC 4884).
    extended: bool,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let offload = prop_oneof![
        Just(Offload::None),
        Just(Offload::Partial),
        Just(Offload::Complete)
    ];
    let numbers = (0..4_usize, [0..4_usize, 0..4_usize], 0..60_usize);
    let rest = prop::collection::vec(any::<u8>(), 12..60);
    (offload, numbers, any::<[bool; 3]>(), rest).prop_map(|(offload, numbers, flags, rest)| {
        Shape {
            kind: numbers.0 as u8,
            offload,
            options: numbers.1,
            fragment: flags[0],
            unsummed: flags[1],
            kept: match numbers.2.min(rest.len()) {
                // Nobody cuts a packet and fills it up again.
                _ if flags[2] => rest.len(),
                // Half a TCP checksum is none.
                9 => 8,
                kept => kept,
            },
            rest,
            extended: flags[2],
        }
    })
}

fn network<A: Header>(
    pair: A::Pair,
    protocol: u8,
    options: usize,
    fragment: bool,
    body: usize,
) -> Vec<u8> {
    let mut bytes = vec![0; A::LENGTH];
    match A::FAMILY {
        Family::V4 => {
            bytes.resize(20 + 4 * options, 1);
            bytes[0] = 0x45 + options as u8;
            bytes[3] = (bytes.len() + body) as u8;
            bytes[6] = if fragment { 0x20 } else { 0x40 };
            bytes[9] = protocol;
            A::readdress(&mut bytes, pair, Delta::default()).unwrap();
            bytes[10..12].fill(0);
            let sum = !Sum::of(&bytes).fold();
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
        }
        Family::V6 => {
            bytes[0] = 0x60;
            A::readdress(&mut bytes, pair, Delta::default()).unwrap();
            let mut chain = vec![HOP_BY_HOP, DESTINATION_OPTIONS, DESTINATION_OPTIONS];
            chain.truncate(options);
            if fragment {
                chain.insert(options / 2, FRAGMENT);
            }
            chain.push(protocol);
            bytes[6] = chain[0];
            for pair in chain.windows(2) {
                match pair[0] {
                    FRAGMENT => bytes.extend([pair[1], 0, 0, 1, 9, 9, 9, 9]),
                    _ => bytes.extend([&[pair[1], 1][..], &[0; 14]].concat()),
                }
            }
            bytes[5] = (bytes.len() - 40 + body) as u8;
        }
    }
    bytes
}

fn put_sum(bytes: &mut [u8], at: usize, sum: Sum) {
    bytes[at..at + 2].copy_from_slice(&(!sum.fold()).to_ne_bytes());
}

// The message with all checksums computed from the start, and where those are.
fn build<A: Icmp>(shape: &Shape, addresses: A::Pair, about: &Tuple<A>) -> (Vec<u8>, Vec<usize>) {
    let number = about.protocol as u8;
    let mut transport = about.ports.0.to_ne_bytes().to_vec();
    transport.extend([0; 4]);
    transport.extend(&shape.rest);
    let field = match about.protocol {
        Protocol::Tcp => TCP_CHECKSUM,
        Protocol::Udp => UDP_CHECKSUM,
    };
    transport[field..field + 2].fill(0);
    if about.protocol == Protocol::Tcp || !shape.unsummed {
        let pseudo = about.sums().0.add(u32::from(number).to_be());
        let sum = pseudo.add((transport.len() as u32).to_be());
        let sum = sum.and(Sum::of(&transport));
        put_sum(&mut transport, field, sum);
        if transport[field..field + 2] == [0, 0] {
            transport[field..field + 2].fill(!0);
        }
    }
    let [outer, inner] = shape.options;
    let mut datagram = network::<A>(
        about.addresses,
        number,
        inner,
        shape.fragment,
        transport.len(),
    );
    let mut sums = vec![datagram.len() + field];
    if field + 2 > LEAST + shape.kept {
        sums.clear();
    }
    datagram.extend(&transport[..LEAST + shape.kept]);
    let kinds: &[u8] = match A::FAMILY {
        Family::V4 => &[3, 11, 12],
        Family::V6 => &[1, 2, 3, 4],
    };
    let kind = kinds[usize::from(shape.kind) % kinds.len()];
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if let Some((at, unit)) = A::datagram_length(kind).filter(|_| shape.extended) {
        datagram.resize(datagram.len().max(128).next_multiple_of(unit), 0);
        message[at] = (datagram.len() / unit) as u8;
        datagram.extend([0x20, 0, 1, 2, 0, 8, 1, 1, 3, 4, 5, 6]);
    }
    message.extend(datagram);
    let pseudo = match A::FAMILY {
        Family::V4 => Sum::default(),
        Family::V6 => Tuple::<A> {
            addresses,
            ..*about
        }
        .sums()
        .0
        .add(u32::from(A::ICMP).to_be())
        .add((message.len() as u32).to_be()),
    };
    match shape.offload {
        Offload::Partial => message[2..4].copy_from_slice(&pseudo.fold().to_ne_bytes()),
        _ => {
            let sum = pseudo.and(Sum::of(&message));
            put_sum(&mut message, CHECKSUM, sum);
        }
    }
    let mut bytes = network::<A>(addresses, A::ICMP, outer, false, message.len());
    let start = bytes.len();
    sums.iter_mut().for_each(|at| *at += start + ICMP_HEADER);
    sums.push(start + CHECKSUM);
    if A::FAMILY == Family::V4 {
        sums.extend([10, start + ICMP_HEADER + 10]);
    }
    bytes.extend(message);
    (bytes, sums)
}

// Zero and 0xffff are the same number to a receiver, but for UDP's, of which that is asked apart.
fn normal(mut bytes: Vec<u8>, sums: &[usize]) -> Vec<u8> {
    for &at in sums {
        if bytes[at..at + 2] == [0xff, 0xff] {
            bytes[at..at + 2].fill(0);
        }
    }
    bytes
}

fn message_at<A: Header>(bytes: &[u8]) -> usize {
    match A::parse(bytes) {
        packet::Parsed::Icmp(at) => at,
        other => panic!("{other:?}"),
    }
}

fn becomes_what_it_should<A: Icmp>(shape: &Shape, from: Tuple<A>, mut to: Tuple<A>, reporter: A) {
    to.protocol = from.protocol;
    for (reporter, reported) in [(reporter, reporter), (from.source(), to.source())] {
        let addresses = A::pair(reporter, from.destination());
        let (mut bytes, sums) = build(shape, addresses, &from.reverse());
        let expected_addresses = if reporter == from.source() {
            A::pair(to.source(), to.destination())
        } else {
            A::pair(reported, to.destination())
        };
        let (expected, _) = build(shape, expected_addresses, &to.reverse());
        let at = message_at::<A>(&bytes);
        let error = Error::<A>::read(&bytes, at).unwrap();
        assert_eq!((error.from(), error.reporter), (from, reporter));
        // As much as it says is enough to read it, and to change it.
        let end = error.end();
        assert!(end <= at + REACH);
        assert_eq!(Error::read(&bytes[..end], at), Some(error));
        assert!(error
            .translate(&mut bytes[..end - 1].to_vec(), &to, shape.offload)
            .is_none());
        let device = error.translate(&mut bytes[..end], &to, shape.offload);
        let forgotten = shape.offload == Offload::Complete;
        assert_eq!(device == Some(SkbChecksum::Invalidate), forgotten);
        if from.protocol == Protocol::Udp {
            let has_sum = bytes[sums[0]..sums[0] + 2] != [0, 0];
            assert_eq!(has_sum, !shape.unsummed);
        }
        assert_eq!(normal(bytes, &sums), normal(expected, &sums), "{sums:?}");
    }
}

fn is_left_alone<A: Icmp>(shape: &Shape, about: Tuple<A>, other: A) {
    let addresses = A::pair(other, about.source());
    let (bytes, _) = build(shape, addresses, &about);
    let at = message_at::<A>(&bytes);
    let error = Error::<A>::read(&bytes, at).unwrap();
    let damaged = |offset: usize, by: u8| {
        let mut bytes = bytes.clone();
        bytes[at + offset] ^= by;
        Error::<A>::read(&bytes, at)
    };
    for kind in 0..=u8::MAX {
        let read = damaged(0, bytes[at] ^ kind);
        assert_eq!(read.is_some(), A::is_error(kind), "type {kind}");
    }
    // Another version of IP within; and another protocol, behind what may be a whole chain.
    assert_eq!(damaged(8, 0xf0), None);
    if A::FAMILY == Family::V4 {
        assert_eq!(damaged(8 + 9, 0x80), None);
        assert_eq!(damaged(8 + 7, 1), None, "a later fragment");
    }
    // To somebody else than who sent the packet.
    let (wrong, _) = build(shape, A::pair(other, about.destination()), &about);
    let same = about.source() == about.destination();
    assert_eq!(Error::<A>::read(&wrong, at).is_some(), same);
    // With fewer than eight bytes of the transport's header.
    let least = error.end() - error.length + LEAST;
    assert!(Error::<A>::read(&bytes[..least], at).is_some());
    assert_eq!(Error::<A>::read(&bytes[..least - 1], at), None);
}

proptest! {
    #[test]
    fn every_checksum_is_what_a_full_computation_gives(
        shape in any_shape(),
        four in [any_v4(), any_v4()],
        six in [any_v6(), any_v6()],
        others in any::<(u32, [u64; 2])>(),
    ) {
        becomes_what_it_should(&shape, four[0], four[1], V4(others.0));
        becomes_what_it_should(&shape, six[0], six[1], V6(others.1));
    }

    #[test]
    fn what_is_no_error_about_a_packet_of_the_receiver_is_left_alone(
        shape in any_shape(), four in any_v4(), six in any_v6(), other in any::<[u64; 2]>(),
    ) {
        is_left_alone(&shape, four, V4(other[0] as u32));
        is_left_alone(&shape, six, V6(other));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        shape in any_shape(),
        four in any_v4(),
        six in any_v6(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        fn read<A: Icmp>(mut bytes: Vec<u8>, at: usize, to: &Tuple<A>) {
            if let Some(error) = Error::<A>::read(&bytes, at) {
                assert!(error.end() <= bytes.len());
                let done = error.translate(&mut bytes, to, Offload::None);
                assert_eq!(done.is_some(), at >= A::LENGTH);
            }
        }
        let damage = |mut bytes: Vec<u8>| {
            for (at, value) in &noise {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        };
        for at in [0, 20, 24, 28, 32, 40, 56, 72, 88] {
            read(damage(build(&shape, four.reverse().addresses, &four).0), at, &four);
            read(damage(build(&shape, six.reverse().addresses, &six).0), at, &six);
            read::<V4>(noise.iter().map(|&(_, byte)| byte).collect(), at, &four);
        }
    }
}

#[test]
fn a_later_fragment_of_ipv6_tells_no_ports() {
    let mut packet = network::<V6>([1; 4], 17, 0, true, 8);
    packet.extend([0; 8]);
    assert_eq!(V6::find_transport(&packet), Some((17, 48)));
    packet[43] = 8;
    assert_eq!(V6::find_transport(&packet), None);
}

#[test]
fn the_packet_ends_where_the_message_says() {
    // Of 128 bytes the chain takes all but eight: what follows is no TCP checksum.
    let mut datagram = network::<V6>([1; 4], 6, 0, false, 80);
    datagram[6] = DESTINATION_OPTIONS;
    datagram.extend([&[6, 9][..], &[0; 78], &[7; 8], &[5; 12]].concat());
    for (stated, length) in [(0, 20), (16, 8), (15, 20)] {
        let mut packet = network::<V6>([1; 4], V6::ICMP, 0, false, 0);
        packet.extend([1, 0, 0, 0, stated, 0, 0, 0]);
        packet.extend(&datagram);
        let error = Error::<V6>::read(&packet, 40).unwrap();
        assert_eq!((error.length, error.transport), (length, 120), "{stated}");
    }
}

// One of them would be zero, which says that there is none.
#[test]
#[cfg_attr(miri, ignore = "many values")]
fn udp_with_a_checksum_stays_with_one() {
    let mut whole = network::<V4>(V4::pair(V4(1), V4(2)), V4::ICMP, 0, false, 36);
    whole.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    whole.extend(network::<V4>(V4::pair(V4(2), V4(3)), 17, 0, false, 8));
    whole.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    let error = Error::<V4>::read(&whole, 20).unwrap();
    let to = error.from().from_address(V4(9));
    for sum in 1..=u16::MAX {
        let mut bytes = whole.clone();
        bytes[54..].copy_from_slice(&sum.to_ne_bytes());
        assert!(error.translate(&mut bytes, &to, Offload::None).is_some());
        assert_ne!(bytes[54..], [0, 0], "{sum:#x}");
    }
}

#[test]
fn the_example_holds() {
    let [client, server, upstream, router] = [1, 2, 3, 4].map(|last| ip([192, 0, 2, last]));
    let there = Tuple::new(Protocol::Udp, client, server, Ports::new(1, 2));
    let owner = Owner {
        context: 0,
        upstream: Owner::NOBODY.upstream,
    };
    let to_upstream = there.to(upstream, 3);
    let (keys, _) = Flow::<()>::new(&there, &to_upstream, owner, 0);
    for (addresses, about, direction, addresses_after, about_after) in [
        (
            (upstream, client),
            to_upstream,
            Direction::Reply,
            (server, client),
            there,
        ),
        (
            (router, client),
            to_upstream,
            Direction::Reply,
            (router, client),
            there,
        ),
        (
            (client, server),
            there.reverse(),
            Direction::Original,
            (client, upstream),
            to_upstream.reverse(),
        ),
    ] {
        let shape = Shape {
            kind: 0,
            offload: Offload::None,
            options: [0, 0],
            fragment: false,
            unsummed: false,
            rest: vec![1; 40],
            kept: 0,
            extended: false,
        };
        let (mut bytes, _) = build(&shape, V4::pair(addresses.0, addresses.1), &about);
        let error = Error::<V4>::read(&bytes, 20).unwrap();
        assert_eq!(keys[direction as usize], error.from());
        let to = keys[direction.other() as usize].reverse();
        assert!(error.translate(&mut bytes, &to, Offload::None).is_some());
        let after = V4::pair(addresses_after.0, addresses_after.1);
        assert_eq!(bytes, build(&shape, after, &about_after).0);
    }
}
