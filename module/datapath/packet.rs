// SPDX-License-Identifier: GPL-2.0

//! What the headers of a packet say: RFC 791, RFC 8200, RFC 9293, RFC 768.

use super::abi::proxy::{Family, Protocol};
use super::tcp::Flags;
use super::tuple::{address_from_bytes, v4, Ports, Tuple};

/// Length of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Length of the fixed IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Length of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// No chain of IPv6 extension headers is followed further than this, in bytes from the start.
pub const MAX_HEADERS: usize = 512;

/// Offset of the checksum in an IPv4 header.
pub const IPV4_CHECKSUM: usize = 10;
/// Offset of the source address in an IPv4 header; the destination follows.
pub const IPV4_ADDRESSES: usize = 12;
/// Offset of the source address in an IPv6 header; the destination follows.
pub const IPV6_ADDRESSES: usize = 8;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What identifies its flow and direction.
    pub tuple: Tuple,
    /// Where the TCP or UDP header starts, in bytes from the IP header.
    pub transport: u16,
    /// The control bits of TCP; none for UDP.
    pub flags: Flags,
}

impl Packet {
    /// How many bytes, from the IP header on, have to be writable to translate the packet: up to
    /// and with the checksum.
    #[inline]
    pub fn translated(&self) -> usize {
        usize::from(self.transport)
            + match self.tuple.protocol() {
                Protocol::Tcp => TCP_CHECKSUM + 2,
                Protocol::Udp => UDP_HEADER,
            }
    }
}

/// What can be told from the first bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A TCP or UDP packet.
    Transport(Packet),
    /// More bytes are needed: so many from the IP header on. Always more than were given.
    Short(usize),
    /// Another protocol, or a fragment.
    Other,
    /// The headers contradict themselves.
    Malformed,
}

#[inline(always)]
fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk::<N>().copied()
}

/// Reads an IPv4 packet, given from its first byte.
#[inline(always)]
pub fn parse_v4(packet: &[u8]) -> Parsed {
    let Some(header) = packet.first_chunk::<IPV4_HEADER>() else {
        return Parsed::Short(IPV4_HEADER);
    };
    let length = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || length < IPV4_HEADER {
        return Parsed::Malformed;
    }
    // More fragments, or an offset: there may be no ports here.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Parsed::Other;
    }
    let word = |at: usize| bytes::<4>(header, at).map_or(0, u32::from_ne_bytes);
    let (source, destination) = (word(IPV4_ADDRESSES), word(IPV4_ADDRESSES + 4));
    transport(packet, length, header[9], |protocol, ports| {
        Tuple::new(Family::V4, protocol, v4(source), v4(destination), ports)
    })
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads an IPv6 packet, given from its first byte.
#[inline(always)]
pub fn parse_v6(packet: &[u8]) -> Parsed {
    let Some(header) = packet.first_chunk::<IPV6_HEADER>() else {
        return Parsed::Short(IPV6_HEADER);
    };
    if header[0] >> 4 != 6 {
        return Parsed::Malformed;
    }
    let (next, at) = match header[6] {
        next @ (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) => {
            match skip_extensions(packet, next) {
                Ok(found) => found,
                Err(parsed) => return parsed,
            }
        }
        next => (next, IPV6_HEADER),
    };
    let address = |at: usize| bytes::<16>(header, at).map_or([0; 4], address_from_bytes);
    let (source, destination) = (address(IPV6_ADDRESSES), address(IPV6_ADDRESSES + 16));
    transport(packet, at, next, |protocol, ports| {
        Tuple::new(Family::V6, protocol, source, destination, ports)
    })
}

// Follows the extension headers that may stand before a transport header (RFC 8200, section 4).
#[cold]
fn skip_extensions(packet: &[u8], mut next: u8) -> Result<(u8, usize), Parsed> {
    let mut at = IPV6_HEADER;
    while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS = next {
        let [following, length] = bytes(packet, at).ok_or(Parsed::Short(at.wrapping_add(2)))?;
        // A packet with a routing header left to follow goes somewhere else than it says.
        if next == ROUTING {
            let [segments_left] =
                bytes(packet, at.wrapping_add(3)).ok_or(Parsed::Short(at.wrapping_add(4)))?;
            if segments_left != 0 {
                return Err(Parsed::Other);
            }
        }
        next = following;
        // Cannot wrap: at most MAX_HEADERS so far. The compiler does not see it.
        at = at.wrapping_add((usize::from(length) + 1) * 8);
        if at > MAX_HEADERS {
            return Err(Parsed::Malformed);
        }
    }
    Ok((next, at))
}

#[inline(always)]
fn transport(
    packet: &[u8],
    at: usize,
    protocol: u8,
    tuple: impl FnOnce(Protocol, Ports) -> Tuple,
) -> Parsed {
    let Some(protocol) = Protocol::from_number(protocol) else {
        return Parsed::Other;
    };
    let (needed, flags_at) = match protocol {
        Protocol::Tcp => (TCP_HEADER, 13),
        Protocol::Udp => (UDP_HEADER, 0),
    };
    let Some(header) = packet.get(at..).filter(|rest| rest.len() >= needed) else {
        return Parsed::Short(at.wrapping_add(needed));
    };
    let port = |at: usize| bytes::<2>(header, at).map_or(0, u16::from_ne_bytes);
    let ports = Ports {
        source: port(0),
        destination: port(2),
    };
    let flags = match protocol {
        Protocol::Tcp => header.get(flags_at).copied().unwrap_or(0),
        Protocol::Udp => 0,
    };
    Parsed::Transport(Packet {
        tuple: tuple(protocol, ports),
        transport: at as u16,
        flags: Flags(flags),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ipv4(ihl: u8, fragment: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x40 | ihl, 0, 0, 0, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
        packet.resize(usize::from(ihl) * 4, 0);
        packet.extend(rest);
        packet
    }

    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend(1..=32);
        packet.extend(rest);
        packet
    }

    const UDP: [u8; 8] = [0x12, 0x34, 0, 53, 0, 8, 0, 0];

    fn transport_of(parsed: Parsed) -> Packet {
        match parsed {
            Parsed::Transport(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_udp_over_ipv4_with_and_without_options() {
        for ihl in [5, 6, 15] {
            let packet = transport_of(parse_v4(&ipv4(ihl, 0x4000, 17, &UDP)));
            assert_eq!(packet.transport, u16::from(ihl) * 4);
            assert_eq!(packet.tuple.source()[0].to_ne_bytes(), [192, 0, 2, 1]);
            assert_eq!(
                packet.tuple.destination()[0].to_ne_bytes(),
                [198, 51, 100, 2]
            );
            assert_eq!(u16::from_be(packet.tuple.ports().source), 0x1234);
            assert_eq!(u16::from_be(packet.tuple.ports().destination), 53);
        }
    }

    #[test]
    fn reads_tcp_flags() {
        let mut tcp = [0_u8; TCP_HEADER];
        tcp[13] = 0x12;
        let packet = transport_of(parse_v4(&ipv4(5, 0, 6, &tcp)));
        assert!(packet.flags.syn() && packet.flags.ack() && !packet.flags.fin());
    }

    #[test]
    fn leaves_fragments_alone() {
        for fragment in [0x2000, 0x0001, 0x3fff] {
            assert_eq!(parse_v4(&ipv4(5, fragment, 17, &UDP)), Parsed::Other);
        }
        let mut first_fragment = vec![17, 0, 0, 1, 0, 0, 0, 0];
        first_fragment.extend(UDP);
        assert_eq!(parse_v6(&ipv6(44, &first_fragment)), Parsed::Other);
    }

    #[test]
    fn follows_extension_headers() {
        let mut rest = vec![60, 0, 0, 0, 0, 0, 0, 0, 17, 1];
        rest.extend([0; 14]);
        rest.extend(UDP);
        let packet = transport_of(parse_v6(&ipv6(0, &rest)));
        assert_eq!(packet.transport, 64);
        assert_eq!(u16::from_be(packet.tuple.ports().destination), 53);
        let mut source_routed = vec![17, 0, 4, 1, 0, 0, 0, 0];
        source_routed.extend(UDP);
        assert_eq!(parse_v6(&ipv6(43, &source_routed)), Parsed::Other);
    }

    #[test]
    fn an_endless_chain_ends() {
        let rest: Vec<u8> = [60, 7]
            .into_iter()
            .chain([0; 62])
            .collect::<Vec<_>>()
            .repeat(20);
        assert_eq!(parse_v6(&ipv6(60, &rest)), Parsed::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(packet in prop::collection::vec(any::<u8>(), 0..128)) {
            for parsed in [parse_v4(&packet), parse_v6(&packet)] {
                match parsed {
                    Parsed::Short(needed) => prop_assert!(needed > packet.len()),
                    Parsed::Transport(found) => prop_assert!(found.translated() <= packet.len()),
                    Parsed::Other | Parsed::Malformed => {}
                }
            }
        }

        #[test]
        fn a_cut_packet_asks_for_more_until_it_is_whole(tcp in any::<bool>(), ihl in 5_u8..16) {
            let packet = ipv4(ihl, 0, if tcp { 6 } else { 17 }, &[0; TCP_HEADER]);
            let mut have = 0;
            loop {
                match parse_v4(&packet[..have]) {
                    Parsed::Short(needed) => have = needed,
                    Parsed::Transport(_) => break,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
