// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams that arrive all at once: sent as one packet, which the kernel cuts into pieces just
//! before the link (UDP_SEGMENT's way), so that the next machine receives them in one round.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use pnet::packet::ip::IpNextHeaderProtocols;

use super::vnet_socket::{VnetHeader, VnetSocket, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER};
use crate::net::layout::{Layout, CLIENT_LINK};
use crate::net::offload;
use crate::net::offload::Offload;
use mutexlab_wire::checksum::Sum;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, FRAME_MAX};

/// Bytes of the headers of UDP and Ethernet.
const UDP: usize = 8;
const ETHERNET: usize = 14;

/// Where the checksum stands in a UDP header.
const CHECKSUM: u16 = 6;

/// A packet socket on the client's link for bursts.
pub struct BurstSocket {
    socket: VnetSocket,
    frame: Vec<u8>,
}

impl BurstSocket {
    /// Opens it, and takes the client's link the ability to pass packets on in one piece.
    pub fn open(layout: &Layout) -> Result<Self> {
        offload::set(&layout.client, &CLIENT_LINK, Offload::TxChecksum, false)?;
        let socket = VnetSocket::open(&layout.client, &CLIENT_LINK)?;
        Ok(Self {
            socket,
            frame: Vec::new(),
        })
    }

    /// Sends `payloads`, each of `size` bytes, as a datagram each, all of which have `header`.
    pub fn send(&mut self, hop: Hop, header: &Header, payloads: &[u8], size: usize) -> Result<()> {
        let mut buffer = [0; FRAME_MAX];
        let first = payloads.get(..size).context("a burst of nothing")?;
        let first = frame::build(&mut buffer, hop, header, first)?;
        let headers = first.len() - size;
        let length = u16::try_from(UDP + payloads.len()).context("too large a burst")?;
        let fields = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_UDP_L4,
            header_length: u16::try_from(headers)?,
            gso_size: u16::try_from(size)?,
            checksum_start: u16::try_from(headers - UDP)?,
            checksum_offset: CHECKSUM,
        };
        fields.begin(&mut self.frame);
        self.frame.extend(&first[..headers]);
        self.frame.extend(payloads);
        let frame = &mut self.frame[VNET_HEADER..];
        // The kernel writes each piece's own lengths, and completes the checksum.
        let (source, destination) = (header.source.ip(), header.destination.ip());
        let protocol = IpNextHeaderProtocols::Udp;
        let pseudo = Sum::of_pseudo_header(source, destination, protocol, length);
        let udp = headers - UDP;
        let put = |frame: &mut [u8], at: usize, value: u16| {
            frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
        };
        put(frame, udp + 4, length);
        put(frame, udp + CHECKSUM as usize, pseudo.fold());
        match header.source {
            SocketAddr::V4(_) => put(frame, ETHERNET + 2, length + (udp - ETHERNET) as u16),
            SocketAddr::V6(_) => put(frame, ETHERNET + 4, length),
        }
        self.socket.send(&self.frame)
    }
}
