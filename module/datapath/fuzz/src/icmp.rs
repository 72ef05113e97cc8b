// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as an error about a packet; if they are one, its checksums are made right, it is
//! translated, and they have to be right still, and the error the one that it should be.

use mutex_abi::proxy::{Family, Protocol};
use mutex_datapath::icmp::{Error, Icmp, ICMP_HEADER, REACH};
use mutex_datapath::packet::Parsed;
use mutex_datapath::translate::{Offload, SkbChecksum};
use mutex_datapath::tuple::{Tuple, V4, V6};

use super::checksum::{get, is_zero, put, same, sum};
use super::input::Input;
use super::version::{addresses, any_tuple, header_is_right, pseudo_header, sum_header};

const CHECKSUM: usize = 2;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let offload = match input.below(3) {
        0 => Offload::None,
        1 => Offload::Partial,
        _ => Offload::Complete,
    };
    let anywhere = usize::from(input.u8());
    if input.u8() & 1 == 0 {
        read::<V4>(input, offload, anywhere);
    } else {
        read::<V6>(input, offload, anywhere);
    }
}

fn read<A: Icmp>(mut input: Input<'_>, offload: Offload, anywhere: usize) {
    let mut to = any_tuple::<A>(Protocol::Tcp, &mut input);
    let bytes = input.rest();
    // No place is one that it cannot stand.
    if let Some(error) = Error::<A>::read(bytes, anywhere) {
        assert!(error.end() <= bytes.len() && error.end() > anywhere + ICMP_HEADER);
        to.protocol = error.about.protocol;
        let mut there = bytes.to_vec();
        let done = error.translate(&mut there, &to, offload);
        assert_eq!(done.is_some(), anywhere >= A::LENGTH);
        assert_eq!(there[error.end()..], bytes[error.end()..]);
    }
    let Parsed::Icmp(at) = A::parse(bytes) else {
        return;
    };
    if let Some(error) = Error::<A>::read(bytes, at) {
        to.protocol = error.about.protocol;
        assert!(error.end() <= bytes.len().min(at + REACH));
        let mut bytes = bytes.to_vec();
        sum_header(A::FAMILY, &mut bytes);
        sum_header(A::FAMILY, &mut bytes[at + ICMP_HEADER..]);
        put(&mut bytes, at + CHECKSUM, 0);
        let value = match offload {
            Offload::Partial => sum(&[&pseudo::<A>(&bytes, at)]),
            _ => !sum(&[&pseudo::<A>(&bytes, at), &bytes[at..]]),
        };
        put(&mut bytes, at + CHECKSUM, value);
        assert_eq!(Error::read(&bytes, at), Some(error));
        translated(bytes, at, &error, &to, offload);
    }
}

// Only ICMPv6 has one.
fn pseudo<A: Icmp>(bytes: &[u8], message: usize) -> Vec<u8> {
    match A::FAMILY {
        Family::V4 => Vec::new(),
        Family::V6 => pseudo_header(A::FAMILY, bytes, A::ICMP, bytes.len() - message),
    }
}

fn translated<A: Icmp>(
    before: Vec<u8>,
    at: usize,
    error: &Error<A>,
    to: &Tuple<A>,
    offload: Offload,
) {
    let end = error.end();
    let mut bytes = before.clone();
    let device = error.translate(&mut bytes, to, offload);
    let expected = match offload {
        Offload::Complete => SkbChecksum::Invalidate,
        _ => SkbChecksum::Keep,
    };
    assert_eq!(device, Some(expected));
    // So much of it is enough, and less is not.
    let mut part = before[..end].to_vec();
    assert_eq!(error.translate(&mut part, to, offload), device);
    assert_eq!(part, bytes[..end]);
    assert_eq!(error.translate(&mut part[..end - 1], to, offload), None);

    // It is what it should be now.
    let now = Error::<A>::read(&bytes, at).expect("an error");
    assert_eq!((now.from(), now.end()), (*to, end));
    let reporter = if error.reporter == error.from().source() {
        to.source()
    } else {
        error.reporter
    };
    assert_eq!(now.reporter, reporter);

    let datagram = at + ICMP_HEADER;
    assert!(header_is_right(A::FAMILY, &bytes));
    assert!(header_is_right(A::FAMILY, &bytes[datagram..]));
    let (message, pseudo) = (&bytes[at..], pseudo::<A>(&bytes, at));
    match offload {
        Offload::Partial => {
            // What a device makes of it.
            let mut sent = message.to_vec();
            put(&mut sent, CHECKSUM, !sum(&[message]));
            assert!(is_zero(sum(&[&pseudo, &sent])));
        }
        _ => assert!(is_zero(sum(&[&pseudo, message]))),
    }
    inside_is_right(&before[datagram..end], &bytes[datagram..end], error);
    assert_eq!(before[end..], bytes[end..]);
}

// The checksum of a transport's header whose data is not there cannot be summed anew, but what it
// makes up for can: addresses, ports and checksum together sum to what they did.
fn inside_is_right<A: Icmp>(before: &[u8], after: &[u8], error: &Error<A>) {
    let (_, transport) = A::find_transport(before).expect("was found");
    let field = transport
        + match error.about.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        };
    let of = |bytes: &[u8]| sum(&[&bytes[addresses(A::FAMILY)], &bytes[transport..]]);
    let there = field + 2 <= before.len();
    if there && error.about.protocol == Protocol::Udp && get(before, field) == 0 {
        assert_eq!(get(after, field), 0);
    } else if there {
        assert!(same(of(before), of(after)));
        assert!(error.about.protocol == Protocol::Tcp || get(after, field) != 0);
    }
    for (place, (was, is)) in before.iter().zip(after).enumerate() {
        let may = addresses(A::FAMILY).contains(&place)
            || (transport..transport + 4).contains(&place)
            || there && (field..field + 2).contains(&place)
            || A::FAMILY == Family::V4 && (10..12).contains(&place);
        assert!(may || was == is, "byte {place}");
    }
}
