// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames as they are on the wire: Ethernet, IPv4 or IPv6, and TCP or UDP, built and taken apart
//! with pnet. Nothing malformed is let in: every length and every checksum is checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{bail, Context, Result};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::tcp::{self, MutableTcpPacket, TcpFlags, TcpOption, TcpOptionPacket, TcpPacket};
use pnet::packet::udp::{self, MutableUdpPacket, UdpPacket};
use pnet::util::MacAddr;

use super::protocol::{Family, Protocol};

/// The largest IP packet.
pub const MTU: usize = 1500;
/// The longest frame.
pub const FRAME_MAX: usize = ETHERNET + MTU;

const ETHERNET: usize = EthernetPacket::minimum_packet_size();
const IPV4: usize = Ipv4Packet::minimum_packet_size();
const IPV6: usize = Ipv6Packet::minimum_packet_size();
const TCP: usize = TcpPacket::minimum_packet_size();
const UDP: usize = UdpPacket::minimum_packet_size();

/// Window of every segment: as large as it gets without scaling.
const WINDOW: u16 = u16::MAX;
const TTL: u8 = 64;

/// The longest payload that fits into one frame.
pub const fn payload_max(family: Family, protocol: Protocol) -> usize {
    let network = match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    };
    let transport = match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    MTU - network - transport
}

/// From which Ethernet address to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who sends the frame.
    pub source: MacAddr,
    /// Who shall take it.
    pub destination: MacAddr,
}

/// What a packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Address and port of the sender.
    pub source: SocketAddr,
    /// Address and port of the receiver, of the same IP version.
    pub destination: SocketAddr,
    /// The rest of the transport header.
    pub transport: Transport,
}

/// Transport header without its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP has nothing else.
    Udp,
    /// TCP has its segment's place in the connection.
    Tcp(Segment),
}

/// Place of a TCP segment in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// The next sequence number expected from the peer.
    pub acknowledgement: u32,
    /// Set of [`TcpFlags`].
    pub flags: u8,
}

impl Segment {
    /// Whether the given flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its last hop.
    pub hop: Hop,
    /// Its headers.
    pub header: Header,
    /// What the transport protocol carries.
    pub payload: &'a [u8],
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet.
    Ethernet,
    /// IPv4 or IPv6.
    Network,
    /// TCP or UDP.
    Transport,
}

/// Why a frame is not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A header or what it announces reaches past the frame's end.
    Truncated(Layer),
    /// The layer's checksum is wrong.
    Checksum(Layer),
    /// Not IP, but this EtherType.
    EtherType(u16),
    /// Another IP version than the EtherType says.
    Version(u8),
    /// Not TCP or UDP, but this protocol of IP.
    Protocol(u8),
    /// A piece of a fragmented packet.
    Fragment,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(layer) => write!(formatter, "{layer:?} header or payload cut short"),
            Self::Checksum(layer) => write!(formatter, "wrong {layer:?} checksum"),
            Self::EtherType(number) => write!(formatter, "unexpected EtherType {number:#06x}"),
            Self::Version(number) => write!(formatter, "unexpected IP version {number}"),
            Self::Protocol(number) => write!(formatter, "unexpected IP protocol {number}"),
            Self::Fragment => write!(formatter, "unexpected fragment"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Who takes the frame, without a look at the rest of it.
pub fn destination_mac(frame: &[u8]) -> Option<MacAddr> {
    EthernetPacket::new(frame).map(|ethernet| ethernet.get_destination())
}

/// Builds a frame in `buffer` and returns it. The checksums are right.
///
/// Fails if the payload does not fit or the addresses are of different versions.
pub fn build<'a>(
    buffer: &'a mut [u8],
    hop: Hop,
    header: &Header,
    payload: &[u8],
) -> Result<&'a [u8]> {
    let network = match header.source {
        SocketAddr::V4(_) => IPV4,
        SocketAddr::V6(_) => IPV6,
    };
    // A SYN says that it takes full segments: without the option the peer assumes 536 bytes.
    let (transport, options) = match header.transport {
        Transport::Udp => (UDP, [].as_slice()),
        Transport::Tcp(segment) if segment.has(TcpFlags::SYN) => {
            let option = TcpOption::mss((MTU - network - TCP) as u16);
            let length = TcpOptionPacket::packet_size(&option);
            (TCP + length, &[option] as &[_])
        }
        Transport::Tcp(_) => (TCP, [].as_slice()),
    };
    let length = ETHERNET + network + transport + payload.len();
    if length > FRAME_MAX {
        bail!("{} bytes of payload do not fit into a frame", payload.len());
    }
    let frame = buffer
        .get_mut(..length)
        .context("buffer is smaller than a frame")?;
    frame[length - payload.len()..].copy_from_slice(payload);

    let (ethernet, rest) = frame.split_at_mut(ETHERNET);
    let (ip, body) = rest.split_at_mut(network);
    put_transport(body, header, transport, options)?;
    put_network(ip, header, body.len())?;
    let mut ethernet = MutableEthernetPacket::new(ethernet).context("no room for Ethernet")?;
    ethernet.set_source(hop.source);
    ethernet.set_destination(hop.destination);
    ethernet.set_ethertype(match header.source {
        SocketAddr::V4(_) => EtherTypes::Ipv4,
        SocketAddr::V6(_) => EtherTypes::Ipv6,
    });
    Ok(&*frame)
}

fn put_transport(
    body: &mut [u8],
    header: &Header,
    length: usize,
    options: &[TcpOption],
) -> Result<()> {
    let addresses = Addresses::of(header)?;
    match header.transport {
        Transport::Udp => {
            let size = u16::try_from(body.len())?;
            let mut udp = MutableUdpPacket::new(body).context("no room for UDP")?;
            udp.set_source(header.source.port());
            udp.set_destination(header.destination.port());
            udp.set_length(size);
            let checksum = addresses.udp_checksum(&udp.to_immutable());
            udp.set_checksum(checksum);
        }
        Transport::Tcp(segment) => {
            let mut tcp = MutableTcpPacket::new(body).context("no room for TCP")?;
            tcp.set_source(header.source.port());
            tcp.set_destination(header.destination.port());
            tcp.set_sequence(segment.sequence);
            tcp.set_acknowledgement(segment.acknowledgement);
            tcp.set_data_offset((length / 4) as u8);
            tcp.set_reserved(0);
            tcp.set_flags(segment.flags);
            tcp.set_window(WINDOW);
            tcp.set_urgent_ptr(0);
            tcp.set_options(options);
            let checksum = addresses.tcp_checksum(&tcp.to_immutable());
            tcp.set_checksum(checksum);
        }
    }
    Ok(())
}

fn put_network(ip: &mut [u8], header: &Header, payload: usize) -> Result<()> {
    let protocol = match header.transport {
        Transport::Udp => IpNextHeaderProtocols::Udp,
        Transport::Tcp(_) => IpNextHeaderProtocols::Tcp,
    };
    match Addresses::of(header)? {
        Addresses::V4(source, destination) => {
            ip.fill(0);
            let total = u16::try_from(IPV4 + payload)?;
            let mut ip = MutableIpv4Packet::new(ip).context("no room for IPv4")?;
            ip.set_version(4);
            ip.set_header_length((IPV4 / 4) as u8);
            ip.set_total_length(total);
            ip.set_flags(ipv4::Ipv4Flags::DontFragment);
            ip.set_ttl(TTL);
            ip.set_next_level_protocol(protocol);
            ip.set_source(source);
            ip.set_destination(destination);
            let checksum = ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(checksum);
        }
        Addresses::V6(source, destination) => {
            ip.fill(0);
            let mut ip = MutableIpv6Packet::new(ip).context("no room for IPv6")?;
            ip.set_version(6);
            ip.set_payload_length(u16::try_from(payload)?);
            ip.set_next_header(protocol);
            ip.set_hop_limit(TTL);
            ip.set_source(source);
            ip.set_destination(destination);
        }
    }
    Ok(())
}

/// Takes a frame apart and checks it.
pub fn parse(frame: &[u8]) -> Result<Packet<'_>, Malformed> {
    let ethernet = EthernetPacket::new(frame).ok_or(Malformed::Truncated(Layer::Ethernet))?;
    let hop = Hop {
        source: ethernet.get_source(),
        destination: ethernet.get_destination(),
    };
    let (addresses, protocol, body) = match ethernet.get_ethertype() {
        EtherTypes::Ipv4 => parse_ipv4(&frame[ETHERNET..])?,
        EtherTypes::Ipv6 => parse_ipv6(&frame[ETHERNET..])?,
        other => return Err(Malformed::EtherType(other.0)),
    };
    let (ports, transport, payload) = match protocol {
        IpNextHeaderProtocols::Udp => parse_udp(body, &addresses)?,
        IpNextHeaderProtocols::Tcp => parse_tcp(body, &addresses)?,
        other => return Err(Malformed::Protocol(other.0)),
    };
    let (source, destination) = addresses.with_ports(ports);
    Ok(Packet {
        hop,
        header: Header {
            source,
            destination,
            transport,
        },
        payload,
    })
}

type Body<'a> = (Addresses, IpNextHeaderProtocol, &'a [u8]);

fn parse_ipv4(bytes: &[u8]) -> Result<Body<'_>, Malformed> {
    let truncated = Malformed::Truncated(Layer::Network);
    let ip = Ipv4Packet::new(bytes).ok_or(truncated)?;
    if ip.get_version() != 4 {
        return Err(Malformed::Version(ip.get_version()));
    }
    let header = 4 * usize::from(ip.get_header_length());
    let body = bytes
        .get(header..usize::from(ip.get_total_length()))
        .ok_or(truncated)?;
    if header < IPV4 {
        return Err(truncated);
    }
    if !sums_agree(ipv4::checksum(&ip), ip.get_checksum()) {
        return Err(Malformed::Checksum(Layer::Network));
    }
    let more = ip.get_flags() & ipv4::Ipv4Flags::MoreFragments != 0;
    if more || ip.get_fragment_offset() != 0 {
        return Err(Malformed::Fragment);
    }
    let addresses = Addresses::V4(ip.get_source(), ip.get_destination());
    Ok((addresses, ip.get_next_level_protocol(), body))
}

// Ones' complement has two zeros, and a checksum that was changed incrementally (RFC 1624) may be the
// one that a full computation does not give. UDP tells them apart (RFC 768), TCP and IPv4 do not.
fn sums_agree(computed: u16, found: u16) -> bool {
    computed % u16::MAX == found % u16::MAX
}

fn parse_ipv6(bytes: &[u8]) -> Result<Body<'_>, Malformed> {
    let truncated = Malformed::Truncated(Layer::Network);
    let ip = Ipv6Packet::new(bytes).ok_or(truncated)?;
    if ip.get_version() != 6 {
        return Err(Malformed::Version(ip.get_version()));
    }
    let body = bytes
        .get(IPV6..IPV6 + usize::from(ip.get_payload_length()))
        .ok_or(truncated)?;
    if ip.get_next_header() == IpNextHeaderProtocols::Ipv6Frag {
        return Err(Malformed::Fragment);
    }
    let addresses = Addresses::V6(ip.get_source(), ip.get_destination());
    Ok((addresses, ip.get_next_header(), body))
}

type Parsed<'a> = ((u16, u16), Transport, &'a [u8]);

fn parse_udp<'a>(body: &'a [u8], addresses: &Addresses) -> Result<Parsed<'a>, Malformed> {
    let truncated = Malformed::Truncated(Layer::Transport);
    let udp = UdpPacket::new(body).ok_or(truncated)?;
    if usize::from(udp.get_length()) != body.len() {
        return Err(truncated);
    }
    if addresses.udp_checksum(&udp) != udp.get_checksum() {
        return Err(Malformed::Checksum(Layer::Transport));
    }
    let ports = (udp.get_source(), udp.get_destination());
    Ok((ports, Transport::Udp, &body[UDP..]))
}

fn parse_tcp<'a>(body: &'a [u8], addresses: &Addresses) -> Result<Parsed<'a>, Malformed> {
    let truncated = Malformed::Truncated(Layer::Transport);
    let tcp = TcpPacket::new(body).ok_or(truncated)?;
    let header = 4 * usize::from(tcp.get_data_offset());
    let payload = body.get(header..).ok_or(truncated)?;
    if header < TCP {
        return Err(truncated);
    }
    if !sums_agree(addresses.tcp_checksum(&tcp), tcp.get_checksum()) {
        return Err(Malformed::Checksum(Layer::Transport));
    }
    let ports = (tcp.get_source(), tcp.get_destination());
    let segment = Segment {
        sequence: tcp.get_sequence(),
        acknowledgement: tcp.get_acknowledgement(),
        flags: tcp.get_flags(),
    };
    Ok((ports, Transport::Tcp(segment), payload))
}

/// Source and destination of one IP version.
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    fn of(header: &Header) -> Result<Self> {
        match (header.source.ip(), header.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Ok(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(Self::V6(source, destination)),
            (source, destination) => bail!("no packet goes from {source} to {destination}"),
        }
    }

    fn with_ports(&self, (from, to): (u16, u16)) -> (SocketAddr, SocketAddr) {
        match *self {
            Self::V4(source, destination) => ((source, from).into(), (destination, to).into()),
            Self::V6(source, destination) => ((source, from).into(), (destination, to).into()),
        }
    }

    fn tcp_checksum(&self, packet: &TcpPacket<'_>) -> u16 {
        match self {
            Self::V4(source, destination) => tcp::ipv4_checksum(packet, source, destination),
            Self::V6(source, destination) => tcp::ipv6_checksum(packet, source, destination),
        }
    }

    fn udp_checksum(&self, packet: &UdpPacket<'_>) -> u16 {
        let checksum = match self {
            Self::V4(source, destination) => udp::ipv4_checksum(packet, source, destination),
            Self::V6(source, destination) => udp::ipv6_checksum(packet, source, destination),
        };
        // RFC 768: zero means that there is none, so a sum of zero is sent as its other form.
        if checksum == 0 {
            u16::MAX
        } else {
            checksum
        }
    }
}

#[cfg(test)]
mod tests {
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
}
