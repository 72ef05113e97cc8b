// SPDX-License-Identifier: GPL-2.0

//! A packet with right checksums, translated there and back: afterwards they are right still, when
//! everything is summed anew, by a receiver or by the device that was to do it.

use mutex_abi::proxy::{Family, Protocol};
use mutex_datapath::flow::{Direction, Flow, Owner};
use mutex_datapath::icmp::Icmp;
use mutex_datapath::packet::{header_length, Headers, Parsed};
use mutex_datapath::translate::{translate, Offload, SkbChecksum};
use mutex_datapath::tuple::{Tuple, V4, V6};

use super::checksum::{get, is_zero, put, same, sum};
use super::input::Input;
use super::version::{any_tuple, header_is_right, pseudo_header, sum_header};

/// Who sums the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Summed {
    /// The sender did.
    Whole,
    /// Nobody does: UDP without a checksum.
    Not,
    /// The device will, of the whole packet or, if it cuts that, of segments of so much data.
    ByDevice(Option<usize>),
    /// The sender did, and the device that received the packet summed all of it.
    AndCompared,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (summed, segment) = (input.u8(), 1 + usize::from(input.u8()));
    let summed = match summed % 5 {
        0 => Summed::Whole,
        1 => Summed::Not,
        2 => Summed::ByDevice(None),
        3 => Summed::ByDevice(Some(segment)),
        _ => Summed::AndCompared,
    };
    if input.u8() & 1 == 0 {
        there_and_back::<V4>(input, summed);
    } else {
        there_and_back::<V6>(input, summed);
    }
}

const fn field(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
    }
}

// What is summed of a transport's header and data beside them.
fn pseudo<A: Icmp>(bytes: &[u8], protocol: Protocol, length: usize) -> Vec<u8> {
    pseudo_header(A::FAMILY, bytes, protocol as u8, length)
}

fn there_and_back<A: Icmp>(mut input: Input<'_>, summed: Summed) {
    let mut to = any_tuple::<A>(Protocol::Tcp, &mut input);
    let mut bytes = input.rest().to_vec();
    let Parsed::Transport(packet) = A::parse(&bytes) else {
        return;
    };
    to.protocol = packet.tuple.protocol;
    let summed = match (summed, to.protocol) {
        (Summed::Not, Protocol::Tcp) => Summed::Whole,
        (summed, _) => summed,
    };
    prepare::<A>(&mut bytes, &packet, summed);
    are_right(&bytes, &packet, summed);
    let before = bytes.clone();
    let owner = Owner {
        context: 0,
        upstream: Owner::NOBODY.upstream,
    };
    let (_, flow) = Flow::<()>::new(&packet.tuple, &to, owner, 0);
    // The way back: the same words are exchanged as in the flow's answers.
    let go = |bytes: &mut Vec<u8>, direction, to: &Tuple<A>| {
        let kept = bytes.clone();
        let (network, transport) = bytes.split_at_mut(packet.transport);
        let offload = match summed {
            Summed::Whole | Summed::Not => Offload::None,
            Summed::ByDevice(_) => Offload::Partial,
            Summed::AndCompared => Offload::Complete,
        };
        let device = translate(
            network,
            transport,
            to,
            flow.checksum_fixup(direction),
            offload,
        );
        let now = Headers {
            tuple: *to,
            ..packet
        };
        assert_eq!(A::parse(bytes), Parsed::Transport(now));
        are_right(bytes, &now, summed);
        device_sum_is_right(device.expect("long enough"), summed, &kept, bytes);
        nothing_else_changed::<A>(&kept, bytes, &packet);
    };
    go(&mut bytes, Direction::Original, &to);
    go(&mut bytes, Direction::Reply, &packet.tuple);
    for (at, (was, is)) in before.iter().zip(&bytes).enumerate() {
        let checksum = at / 2 * 2;
        assert!(was == is || same(get(&before, checksum), get(&bytes, checksum)));
    }
}

// Puts right checksums in a packet.
fn prepare<A: Icmp>(bytes: &mut [u8], packet: &Headers<A>, summed: Summed) {
    sum_header(A::FAMILY, bytes);
    let (protocol, length) = (packet.tuple.protocol, bytes.len() - packet.transport);
    let at = packet.transport + field(protocol);
    put(bytes, at, 0);
    let pseudo = pseudo::<A>(bytes, protocol, length);
    let value = match summed {
        Summed::Not => 0,
        Summed::ByDevice(_) => sum(&[&pseudo]),
        Summed::Whole | Summed::AndCompared => match !sum(&[&pseudo, &bytes[packet.transport..]]) {
            0 if protocol == Protocol::Udp => !0,
            whole => whole,
        },
    };
    put(bytes, at, value);
}

fn are_right<A: Icmp>(bytes: &[u8], packet: &Headers<A>, summed: Summed) {
    assert!(header_is_right(A::FAMILY, bytes));
    let protocol = packet.tuple.protocol;
    let transport = &bytes[packet.transport..];
    let value = get(transport, field(protocol));
    let right = |transport: &[u8]| {
        let pseudo = pseudo::<A>(bytes, protocol, transport.len());
        is_zero(sum(&[&pseudo, transport]))
    };
    match summed {
        Summed::Not => assert_eq!(value, 0),
        Summed::Whole | Summed::AndCompared => {
            assert!(right(transport));
            assert!(protocol == Protocol::Tcp || value != 0);
        }
        Summed::ByDevice(None) => {
            let mut sent = transport.to_vec();
            put(&mut sent, field(protocol), !sum(&[transport]));
            assert!(right(&sent));
        }
        // As tcp_gso_segment() of net/ipv4/tcp_offload.c has it: the sum is for the length of the
        // whole, which that of a segment takes the place of.
        Summed::ByDevice(Some(size)) => {
            let (header, data) = transport.split_at(header_length(protocol));
            for data in data.chunks(size) {
                let mut sent = [header, data].concat();
                let lengths = [!(transport.len() as u16), sent.len() as u16];
                let [less, more] = lengths.map(u16::to_be_bytes);
                let partial = sum(&[&value.to_be_bytes(), &less, &more]);
                put(&mut sent, field(protocol), partial);
                let whole = !sum(&[&sent]);
                put(&mut sent, field(protocol), whole);
                assert!(right(&sent));
            }
        }
    }
}

fn device_sum_is_right(device: SkbChecksum, summed: Summed, before: &[u8], after: &[u8]) {
    match (summed, device) {
        (Summed::AndCompared, SkbChecksum::Keep) => assert!(same(sum(&[before]), sum(&[after]))),
        (Summed::AndCompared, SkbChecksum::Subtract(change)) => {
            // In the byte order of memory, as the kernel has it.
            let kept = change.subtract_from(u32::from(sum(&[before]).to_be()));
            assert!(same(sum(&[&kept.to_be_bytes()]).to_be(), sum(&[after])));
        }
        (_, device) => assert_eq!(device, SkbChecksum::Keep),
    }
}

// Addresses, ports and checksums apart.
fn nothing_else_changed<A: Icmp>(before: &[u8], after: &[u8], packet: &Headers<A>) {
    let addresses = super::version::addresses(A::FAMILY);
    let at = packet.transport + field(packet.tuple.protocol);
    let ports = packet.transport..packet.transport + 4;
    for (place, (was, is)) in before.iter().zip(after).enumerate() {
        let may = addresses.contains(&place)
            || ports.contains(&place)
            || (at..at + 2).contains(&place)
            || A::FAMILY == Family::V4 && (10..12).contains(&place);
        assert!(may || was == is, "byte {place}");
    }
}
