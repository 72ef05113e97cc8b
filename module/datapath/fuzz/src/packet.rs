// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as a packet: what the datapath finds in them is there, and etherparse finds it,
//! too.

use etherparse::{Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice};
use mutex_datapath::packet::{
    header_length, Header, Headers, Parsed, MAX_EXTENSIONS, MAX_HEADERS, TCP_HEADER,
};
use mutex_datapath::tuple::{Address, V4, V6};

pub fn run(data: &[u8]) {
    read::<V4>(data);
    read::<V6>(data);
    with_etherparse_v4(data);
    with_etherparse_v6(data);
}

fn read<A: Header>(data: &[u8]) {
    let parsed = A::parse(data);
    match &parsed {
        Parsed::Short(needed) => {
            assert!((data.len() + 1..=MAX_HEADERS + TCP_HEADER).contains(needed));
        }
        Parsed::Transport(packet) => {
            let end = packet.transport + header_length(packet.tuple.protocol);
            assert!(packet.transport >= A::LENGTH && end <= data.len());
        }
        Parsed::Icmp(at) => assert!((A::LENGTH..=MAX_HEADERS).contains(at)),
        Parsed::Fragment | Parsed::Other | Parsed::Malformed => {}
    }
    // `parse_fast` sees what `parse` sees in a packet of the usual shape, and nothing else.
    let usual = match &parsed {
        Parsed::Transport(packet) if packet.transport == A::LENGTH => Some(packet.tuple),
        _ => None,
    };
    match (A::parse_fast(data), &parsed) {
        (Some(_), Parsed::Short(needed)) => assert_eq!(*needed, A::LENGTH + TCP_HEADER),
        (parse_fast, _) => assert_eq!(parse_fast, usual),
    }
    // Whoever has less of the packet asks for more, and never sees something else.
    for length in 0..data.len().min(MAX_HEADERS + TCP_HEADER) {
        match A::parse(&data[..length]) {
            Parsed::Short(needed) => assert!(needed > length),
            whole => assert_eq!(whole, parsed),
        }
    }
}

fn ports_agree<A: Address>(data: &[u8], packet: &Headers<A>) {
    let (tuple, at) = (packet.tuple, packet.transport);
    let [source, destination] = [tuple.ports.source(), tuple.ports.destination()];
    assert_eq!(source.to_ne_bytes(), data[at..at + 2]);
    assert_eq!(destination.to_ne_bytes(), data[at + 2..at + 4]);
}

fn with_etherparse_v4(data: &[u8]) {
    let parsed = V4::parse(data);
    let Ok(header) = Ipv4HeaderSlice::from_slice(data) else {
        // Etherparse wants all of the options.
        let whole = data.len() >= 20 && data.len() >= usize::from(data[0] & 0xf) * 4;
        match parsed {
            Parsed::Transport(packet) => panic!("{packet:?}"),
            Parsed::Malformed | Parsed::Short(_) => {}
            other => assert!(!whole, "{other:?}"),
        }
        return;
    };
    let protocol = header.protocol().0;
    if header.is_fragmenting_payload() {
        assert_eq!(parsed, Parsed::Fragment);
        return;
    }
    match parsed {
        Parsed::Transport(packet) => {
            let tuple = packet.tuple;
            assert_eq!(tuple.protocol as u8, protocol);
            assert_eq!(tuple.source().0.to_ne_bytes(), header.source());
            assert_eq!(tuple.destination().0.to_ne_bytes(), header.destination());
            assert_eq!(packet.transport, header.slice().len());
            ports_agree(data, &packet);
        }
        Parsed::Icmp(at) => assert_eq!((at, protocol), (header.slice().len(), 1)),
        Parsed::Short(_) => assert!(matches!(protocol, 6 | 17)),
        Parsed::Other => assert!(!matches!(protocol, 1 | 6 | 17)),
        wrong => panic!("{wrong:?}"),
    }
}

fn with_etherparse_v6(data: &[u8]) {
    let parsed = V6::parse(data);
    let Ok(header) = Ipv6HeaderSlice::from_slice(data) else {
        assert!(matches!(parsed, Parsed::Malformed | Parsed::Short(_)));
        return;
    };
    let first = header.next_header();
    // Etherparse takes a header of hop-by-hop options for the first one only.
    let Ok((extensions, last, rest)) = Ipv6ExtensionsSlice::from_slice(first, &data[40..]) else {
        return;
    };
    let behind = data.len() - rest.len();
    let agree = |at: usize, protocol: u8| assert_eq!((at, protocol), (behind, last.0));
    match parsed {
        Parsed::Transport(packet) => {
            let tuple = packet.tuple;
            agree(packet.transport, tuple.protocol as u8);
            let is = |address: V6, bytes: [u8; 16]| assert_eq!(address, V6::from_bytes(bytes));
            is(tuple.source(), header.source());
            is(tuple.destination(), header.destination());
            for extension in extensions.clone() {
                match extension {
                    // The second byte behind the header's length.
                    Ipv6ExtensionSlice::Routing(routing) => assert_eq!(routing.payload()[1], 0),
                    Ipv6ExtensionSlice::Fragment(_) => panic!("{packet:?}"),
                    _ => {}
                }
            }
            ports_agree(data, &packet);
        }
        Parsed::Icmp(at) => agree(at, 58),
        // No headers but those that etherparse knows are followed.
        Parsed::Short(_) => assert!(matches!(last.0, 6 | 17), "{last:?}"),
        Parsed::Malformed => assert!(extensions.into_iter().count() > MAX_EXTENSIONS),
        Parsed::Fragment | Parsed::Other => {}
    }
}
