// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames are put together.

use std::net::SocketAddr;

use anyhow::{bail, Context, Result};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::{MutableTcpPacket, TcpFlags, TcpOption, TcpOptionPacket};
use pnet::packet::udp::MutableUdpPacket;
use pnet::packet::Packet as _;

use super::addresses::{nonzero, Addresses};
use super::packet::{Header, Hop, Transport, ETHERNET, FRAME_MAX, IPV4, IPV6, MTU, TCP, UDP};
use crate::checksum::Sum;

/// Window of every segment: as large as it gets without scaling.
const WINDOW: u16 = u16::MAX;
const TTL: u8 = 64;

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
    match header.transport {
        Transport::Udp => {
            let size = u16::try_from(body.len())?;
            let mut udp = MutableUdpPacket::new(body).context("no room for UDP")?;
            udp.set_source(header.source.port());
            udp.set_destination(header.destination.port());
            udp.set_length(size);
            udp.set_checksum(0);
            let checksum = checksum(header, IpNextHeaderProtocols::Udp, udp.packet());
            udp.set_checksum(nonzero(checksum));
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
            tcp.set_checksum(0);
            let checksum = checksum(header, IpNextHeaderProtocols::Tcp, tcp.packet());
            tcp.set_checksum(checksum);
        }
    }
    Ok(())
}

/// The checksum of a transport protocol's `body`, in which there is none yet.
fn checksum(header: &Header, protocol: IpNextHeaderProtocol, body: &[u8]) -> u16 {
    let (source, destination) = (header.source.ip(), header.destination.ip());
    // A frame's length fits.
    Sum::of_pseudo_header(source, destination, protocol, body.len() as u16)
        .add(body)
        .checksum()
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
            let checksum = Sum::default().add(ip.packet()).checksum();
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
