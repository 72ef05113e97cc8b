// SPDX-License-Identifier: GPL-2.0

//! What the headers of a packet say: RFC 791, RFC 8200, RFC 9293, RFC 768.

use super::abi::proxy::Protocol;
use super::checksum::Delta;
use super::tuple::{Address, Ports, Tuple, V4, V6};

/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Length of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// No more IPv6 extension headers than so many are followed, each of 2,048 bytes at most; RFC 8200,
/// section 4.1, asks for each of them once at most, but for two.
pub const MAX_EXTENSIONS: usize = 8;
/// So far from its start, in bytes, may the transport header of a packet begin.
pub const MAX_HEADERS: usize = 40 + MAX_EXTENSIONS * 2048;

const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: usize = 12;
const IPV6_ADDRESSES: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Says in a chain of IPv6 headers that the next one is a fragment's.
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A TCP or UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<A: Address> {
    /// What identifies its flow and direction.
    pub tuple: Tuple<A>,
    /// Where the TCP or UDP header starts, in bytes from the IP header.
    pub transport: usize,
}

/// What can be told from the first bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<A: Address> {
    /// A TCP or UDP packet, with all of its TCP or UDP header but options.
    Transport(Headers<A>),
    /// A message of ICMP over IPv4 or of ICMPv6 over IPv6, which starts so many bytes from the IP header.
    Icmp(usize),
    /// Only a part of a packet.
    Fragment,
    /// More bytes are needed: so many from the IP header on. Always more than were given.
    Short(usize),
    /// Another protocol, or nothing that has one place to go to.
    Other,
    /// The headers contradict themselves.
    Malformed,
}

/// The header of one version of IP.
pub trait Header: Address {
    /// Its length without options or extension headers.
    const LENGTH: usize;
    /// What it calls the version of ICMP that belongs to it.
    const ICMP: u8;

    /// Reads what identifies a packet of the usual shape: nothing between the IP header and that of
    /// UDP or TCP, at least eight bytes of which are there. Everything else is for
    /// [`Self::parse`].
    fn parse_fast(packet: &[u8]) -> Option<Tuple<Self>>;

    /// The addresses of a packet, given from its first byte; `None` if it is too short.
    fn addresses(packet: &[u8]) -> Option<Self::Pair>;

    /// The byte of an IPv4 header that has the DSCP; zero of IPv6, whose routes do not depend on it.
    fn tos(packet: &[u8]) -> u8;
    /// The differentiated services code point of a packet, given from its first byte: RFC 2474.
    fn dscp(packet: &[u8]) -> u8;

    /// Reads any packet, given from its first byte.
    fn parse(packet: &[u8]) -> Parsed<Self>;

    /// Puts the addresses and ports of `tuple` into headers, of which the transport's starts at
    /// `transport`, and tells what was there. Checksums stay. `None`, and nothing changed, if the
    /// headers are too short.
    fn replace_tuple(
        headers: &mut [u8],
        transport: usize,
        tuple: &Tuple<Self>,
    ) -> Option<Tuple<Self>> {
        let own = Tuple {
            addresses: Self::addresses(headers)?,
            ports: ports(headers.get(transport..)?)?,
            protocol: tuple.protocol,
        };
        *headers.get_mut(transport..)?.first_chunk_mut::<4>()? = tuple.ports.0.to_ne_bytes();
        Self::set_addresses(headers, tuple.addresses)?;
        Some(own)
    }

    /// Puts new addresses into a header, whose checksum stays. `None` if it is too short.
    fn set_addresses(header: &mut [u8], to: Self::Pair) -> Option<()>;

    /// Puts new addresses into a header; `by` is what that changes in a checksum. `None`, and
    /// nothing changed, if the header is too short.
    fn readdress(header: &mut [u8], to: Self::Pair, by: Delta) -> Option<()>;
}

#[inline(always)]
fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk::<N>().copied()
}

/// The ports at the beginning of a transport header; `None` if it is too short.
#[inline(always)]
pub fn ports(transport: &[u8]) -> Option<Ports> {
    bytes(transport, 0).map(|bytes| Ports(u32::from_ne_bytes(bytes)))
}

/// Length of a transport's header without options.
#[inline(always)]
pub const fn header_length(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => TCP_HEADER,
        Protocol::Udp => UDP_HEADER,
    }
}

/// The headers of a packet of the usual shape, see [`Header::parse_fast`], with all of its TCP header.
#[inline(always)]
pub fn usual<A: Header>(packet: &[u8]) -> Option<Headers<A>> {
    let tuple = A::parse_fast(packet)?;
    let end = A::LENGTH.wrapping_add(header_length(tuple.protocol));
    (packet.len() >= end).then_some(Headers {
        tuple,
        transport: A::LENGTH,
    })
}

#[inline(always)]
fn identified<A: Header>(protocol: u8, addresses: A::Pair, ports: Ports) -> Option<Tuple<A>> {
    Some(Tuple {
        addresses,
        ports,
        protocol: Protocol::from_number(protocol)?,
    })
}

fn transport<A: Header>(packet: &[u8], at: usize, next: u8, addresses: A::Pair) -> Parsed<A> {
    let protocol = match next {
        next if next == A::ICMP => return Parsed::Icmp(at),
        next => match Protocol::from_number(next) {
            Some(protocol) => protocol,
            None => return Parsed::Other,
        },
    };
    let end = at.wrapping_add(header_length(protocol));
    if packet.len() < end {
        return Parsed::Short(end);
    }
    let Some(ports) = packet.get(at..).and_then(ports) else {
        return Parsed::Short(end);
    };
    Parsed::Transport(Headers {
        tuple: Tuple {
            addresses,
            ports,
            protocol,
        },
        transport: at,
    })
}

impl Header for V4 {
    const LENGTH: usize = 20;
    const ICMP: u8 = 1;

    #[inline(always)]
    fn parse_fast(packet: &[u8]) -> Option<Tuple<Self>> {
        let header = packet.first_chunk::<{ Self::LENGTH + UDP_HEADER }>()?;
        // Version 4, no options; neither more fragments nor an offset.
        let fragment = u16::from_ne_bytes(bytes(header, 6)?);
        if header[0] != 0x45 || fragment & NOT_WHOLE != 0 {
            return None;
        }
        let addresses = Self::addresses(header)?;
        let ports = ports(header.get(Self::LENGTH..)?)?;
        identified(header[9], addresses, ports)
    }

    fn parse(packet: &[u8]) -> Parsed<Self> {
        let Some(header) = packet.first_chunk::<{ Self::LENGTH }>() else {
            return Parsed::Short(Self::LENGTH);
        };
        let length = usize::from(header[0] & 0xf) * 4;
        if header[0] >> 4 != 4 || length < Self::LENGTH {
            return Parsed::Malformed;
        }
        if u16::from_ne_bytes([header[6], header[7]]) & NOT_WHOLE != 0 {
            return Parsed::Fragment;
        }
        let addresses = Self::addresses(header).unwrap_or_default();
        transport(packet, length, header[9], addresses)
    }

    #[inline(always)]
    fn tos(packet: &[u8]) -> u8 {
        bytes(packet, 1).map_or(0, |[tos]| tos)
    }

    fn dscp(packet: &[u8]) -> u8 {
        Self::tos(packet) >> 2
    }

    #[inline(always)]
    fn addresses(packet: &[u8]) -> Option<u64> {
        bytes(packet, IPV4_ADDRESSES).map(u64::from_ne_bytes)
    }

    #[inline(always)]
    fn set_addresses(header: &mut [u8], to: u64) -> Option<()> {
        let header = header.first_chunk_mut::<{ Self::LENGTH }>()?;
        *header.last_chunk_mut::<8>()? = to.to_ne_bytes();
        Some(())
    }

    #[inline(always)]
    fn readdress(header: &mut [u8], to: u64, by: Delta) -> Option<()> {
        let header = header.first_chunk_mut::<{ Self::LENGTH }>()?;
        let sum = u16::from_ne_bytes(bytes(header, IPV4_CHECKSUM)?);
        let [a, b] = by.apply(sum).to_ne_bytes();
        header[IPV4_CHECKSUM] = a;
        header[IPV4_CHECKSUM + 1] = b;
        *header.last_chunk_mut::<8>()? = to.to_ne_bytes();
        Some(())
    }
}

/// More fragments, or an offset, in the third word of an IPv4 header as it lies there.
const NOT_WHOLE: u16 = 0x3fff_u16.to_be();

impl Header for V6 {
    const LENGTH: usize = 40;
    const ICMP: u8 = 58;

    #[inline(always)]
    fn parse_fast(packet: &[u8]) -> Option<Tuple<Self>> {
        let header = packet.first_chunk::<{ Self::LENGTH + UDP_HEADER }>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let ports = ports(header.get(Self::LENGTH..)?)?;
        identified(header[6], Self::addresses(header)?, ports)
    }

    fn parse(packet: &[u8]) -> Parsed<Self> {
        let Some(header) = packet.first_chunk::<{ Self::LENGTH }>() else {
            return Parsed::Short(Self::LENGTH);
        };
        if header[0] >> 4 != 6 {
            return Parsed::Malformed;
        }
        match skip_extensions(packet, header[6], Self::LENGTH) {
            Ok((FRAGMENT, _)) => Parsed::Fragment,
            Ok((next, at)) => {
                let addresses = Self::addresses(header).unwrap_or_default();
                transport(packet, at, next, addresses)
            }
            Err(parsed) => parsed,
        }
    }

    #[inline(always)]
    fn tos(_: &[u8]) -> u8 {
        0
    }

    // The traffic class is the eight bits behind the version's four.
    fn dscp(packet: &[u8]) -> u8 {
        bytes(packet, 0).map_or(0, |head| (u16::from_be_bytes(head) >> 6 & 0x3f) as u8)
    }

    #[inline(always)]
    fn addresses(packet: &[u8]) -> Option<[u64; 4]> {
        let word = |at| bytes::<8>(packet, at).map(u64::from_ne_bytes);
        let at = IPV6_ADDRESSES;
        Some([word(at)?, word(at + 8)?, word(at + 16)?, word(at + 24)?])
    }

    #[inline(always)]
    fn readdress(header: &mut [u8], to: [u64; 4], _: Delta) -> Option<()> {
        Self::set_addresses(header, to)
    }

    #[inline(always)]
    fn set_addresses(header: &mut [u8], to: [u64; 4]) -> Option<()> {
        let header = header.first_chunk_mut::<{ Self::LENGTH }>()?;
        for (word, bytes) in to
            .into_iter()
            .zip(header[IPV6_ADDRESSES..].chunks_exact_mut(8))
        {
            *bytes.first_chunk_mut::<8>()? = word.to_ne_bytes();
        }
        Some(())
    }
}

// Follows the extension headers that may stand before a transport header (RFC 8200, section 4), the
// first of which is a `next` and starts `at` bytes from the IP header. What stands behind them, and
// where it starts.
pub(super) fn skip_extensions(
    packet: &[u8],
    mut next: u8,
    mut at: usize,
) -> Result<(u8, usize), Parsed<V6>> {
    let mut count = 0_usize;
    while let HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS = next {
        count = count.wrapping_add(1);
        if count > MAX_EXTENSIONS {
            return Err(Parsed::Malformed);
        }
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
        // Cannot wrap: at most MAX_HEADERS. The compiler does not see it.
        at = at.wrapping_add((usize::from(length) + 1) * 8);
    }
    Ok((next, at))
}

#[cfg(test)]
mod tests {
    use super::super::tuple::tests::ip;
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

    fn transport_of<A: Address>(parsed: Parsed<A>) -> Headers<A> {
        match parsed {
            Parsed::Transport(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_udp_over_ipv4_with_and_without_options() {
        for ihl in [5, 6, 15] {
            let bytes = ipv4(ihl, 0x4000, 17, &UDP);
            let packet = transport_of(V4::parse(&bytes));
            assert_eq!(packet.transport, usize::from(ihl) * 4);
            assert_eq!(packet.tuple.source(), ip([192, 0, 2, 1]));
            assert_eq!(packet.tuple.destination(), ip([198, 51, 100, 2]));
            assert_eq!(u16::from_be(packet.tuple.ports.source()), 0x1234);
            assert_eq!(u16::from_be(packet.tuple.ports.destination()), 53);
            assert_eq!(V4::parse_fast(&bytes), (ihl == 5).then_some(packet.tuple));
        }
    }

    #[test]
    fn reads_addresses_of_ipv6() {
        let packet = transport_of(V6::parse(&ipv6(17, &UDP)));
        let mut source = [0; 16];
        source.copy_from_slice(&(1..=16).collect::<Vec<u8>>());
        assert_eq!(packet.tuple.source(), V6::from_bytes(source));
        assert_eq!(packet.tuple.reverse().destination(), V6::from_bytes(source));
        assert_eq!(packet.transport, 40);
    }

    #[test]
    fn tells_fragments_and_icmp() {
        for fragment in [0x2000, 0x0001, 0x3fff] {
            assert_eq!(V4::parse(&ipv4(5, fragment, 17, &UDP)), Parsed::Fragment);
            assert_eq!(V4::parse_fast(&ipv4(5, fragment, 17, &UDP)), None);
        }
        let mut first_fragment = vec![17, 0, 0, 1, 0, 0, 0, 0];
        first_fragment.extend(UDP);
        assert_eq!(V6::parse(&ipv6(44, &first_fragment)), Parsed::Fragment);
        // In IPv4 that is the number of another protocol.
        assert_eq!(V4::parse(&ipv4(5, 0, 44, &first_fragment)), Parsed::Other);
        assert_eq!(V4::parse(&ipv4(7, 0, 1, &[])), Parsed::Icmp(28));
        assert_eq!(V6::parse(&ipv6(58, &[])), Parsed::Icmp(40));
        assert_eq!(V4::parse(&ipv4(5, 0, 58, &[])), Parsed::Other);
        assert_eq!(V6::parse(&ipv6(1, &[])), Parsed::Other);
        assert_eq!(V6::parse(&ipv6(132, &[])), Parsed::Other);
    }

    #[test]
    fn follows_extension_headers() {
        let mut rest = vec![60, 0, 0, 0, 0, 0, 0, 0, 17, 1];
        rest.extend([0; 14]);
        rest.extend(UDP);
        let packet = transport_of(V6::parse(&ipv6(0, &rest)));
        assert_eq!(packet.transport, 64);
        assert_eq!(u16::from_be(packet.tuple.ports.destination()), 53);
        assert_eq!(V6::parse_fast(&ipv6(0, &rest)), None);
        for segments_left in [1, 2, 255] {
            let mut source_routed = vec![17, 0, 4, segments_left, 0, 0, 0, 0];
            source_routed.extend(UDP);
            assert_eq!(V6::parse(&ipv6(43, &source_routed)), Parsed::Other);
        }
    }

    #[test]
    fn an_endless_chain_ends() {
        let rest: Vec<u8> = [60, 7]
            .into_iter()
            .chain([0; 62])
            .collect::<Vec<_>>()
            .repeat(20);
        assert_eq!(V6::parse(&ipv6(60, &rest)), Parsed::Malformed);
    }

    fn read<A: Header>(packet: &[u8]) {
        match A::parse(packet) {
            Parsed::Short(needed) => assert!(needed > packet.len()),
            Parsed::Transport(found) => {
                let end = found.transport + header_length(found.tuple.protocol);
                assert!(end <= packet.len());
            }
            _ => {}
        }
        // `parse_fast` sees nothing that `parse` does not.
        if let Some(found) = A::parse_fast(packet) {
            match A::parse(packet) {
                Parsed::Transport(packet) => {
                    assert_eq!((packet.tuple, packet.transport), (found, A::LENGTH));
                }
                parsed => assert_eq!(parsed, Parsed::Short(A::LENGTH + TCP_HEADER)),
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut packet in prop::collection::vec(any::<u8>(), 0..128), likely in any::<bool>(),
        ) {
            for (first, protocol, at) in [(0x45, 17, 9), (0x45, 6, 9), (0x60, 17, 6), (0x60, 6, 6)] {
                if likely && packet.len() > 10 {
                    packet[0] = first;
                    packet[at] = protocol;
                    if first == 0x45 {
                        packet[6] = 0x40;
                        packet[7] = 0;
                    }
                }
                read::<V4>(&packet);
                read::<V6>(&packet);
            }
        }

        #[test]
        fn a_cut_packet_asks_for_more_until_it_is_whole(tcp in any::<bool>(), ihl in 5_u8..16) {
            let packet = ipv4(ihl, 0, if tcp { 6 } else { 17 }, &[0; TCP_HEADER]);
            let mut have = 0;
            loop {
                match V4::parse(&packet[..have]) {
                    Parsed::Short(needed) => have = needed,
                    Parsed::Transport(_) => break,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
