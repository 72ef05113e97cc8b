// SPDX-License-Identifier: MIT OR Apache-2.0

//! The addresses of a packet, which its transport's checksum covers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{bail, Result};
use pnet::packet::tcp::{self, TcpPacket};
use pnet::packet::udp::{self, UdpPacket};

use super::packet::Header;

/// Source and destination of one IP version.
pub enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Addresses {
    pub fn of(header: &Header) -> Result<Self> {
        match (header.source.ip(), header.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Ok(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(Self::V6(source, destination)),
            (source, destination) => bail!("no packet goes from {source} to {destination}"),
        }
    }

    pub fn with_ports(&self, (from, to): (u16, u16)) -> (SocketAddr, SocketAddr) {
        match *self {
            Self::V4(source, destination) => ((source, from).into(), (destination, to).into()),
            Self::V6(source, destination) => ((source, from).into(), (destination, to).into()),
        }
    }

    /// What the checksum of a segment that was received should be, by pnet.
    pub fn tcp_checksum(&self, packet: &TcpPacket<'_>) -> u16 {
        match self {
            Self::V4(source, destination) => tcp::ipv4_checksum(packet, source, destination),
            Self::V6(source, destination) => tcp::ipv6_checksum(packet, source, destination),
        }
    }

    /// The same of a datagram.
    pub fn udp_checksum(&self, packet: &UdpPacket<'_>) -> u16 {
        let checksum = match self {
            Self::V4(source, destination) => udp::ipv4_checksum(packet, source, destination),
            Self::V6(source, destination) => udp::ipv6_checksum(packet, source, destination),
        };
        nonzero(checksum)
    }
}

/// RFC 768: zero means that there is no checksum, so one of zero is sent as its other form.
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 {
        u16::MAX
    } else {
        checksum
    }
}
