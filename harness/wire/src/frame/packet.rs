// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a frame holds: its ways, headers, layers and sizes.

use std::fmt;
use std::net::SocketAddr;

use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::TcpPacket;
use pnet::packet::udp::UdpPacket;
use pnet::util::MacAddr;

use mutexlab_model::traffic::{Family, Protocol};

/// The largest IP packet.
pub const MTU: usize = 1500;
/// The longest frame.
pub const FRAME_MAX: usize = ETHERNET + MTU;

pub(super) const ETHERNET: usize = EthernetPacket::minimum_packet_size();
pub(super) const IPV4: usize = Ipv4Packet::minimum_packet_size();
pub(super) const IPV6: usize = Ipv6Packet::minimum_packet_size();
pub(super) const TCP: usize = TcpPacket::minimum_packet_size();
pub(super) const UDP: usize = UdpPacket::minimum_packet_size();

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

/// Where the transport header begins in a frame that was built.
pub const fn transport_offset(header: &Header) -> usize {
    match header.source {
        SocketAddr::V4(_) => ETHERNET + IPV4,
        SocketAddr::V6(_) => ETHERNET + IPV6,
    }
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
    /// Set of [`TcpFlags`](pnet::packet::tcp::TcpFlags).
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
