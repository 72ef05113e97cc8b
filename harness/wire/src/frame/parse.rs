// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames are taken apart.

use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, Ipv4Packet};
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::TcpPacket;
use pnet::packet::udp::UdpPacket;

use super::addresses::Addresses;
use super::packet::{
    Header, Hop, Layer, Malformed, Packet, Segment, Transport, ETHERNET, IPV4, IPV6, TCP, UDP,
};

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
