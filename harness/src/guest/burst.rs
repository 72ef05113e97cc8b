// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams that arrive all at once: sent as one packet, which the kernel cuts into pieces just
//! before the link (UDP_SEGMENT's way), so that the next machine receives them in one round.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};
use pnet::packet::ip::IpNextHeaderProtocols;

use super::checksum::Sum;
use super::layout::{Layout, CLIENT_LINK};
use super::offload::{self, Offload};
use super::vnet::Vnet;
use super::wire::{self, Header, Hop, FRAME_MAX};

/// Bytes of the headers of UDP and Ethernet.
const UDP: usize = 8;
const ETHERNET: usize = 14;

// Of linux/virtio_net.h.
const NEEDS_CSUM: u8 = 1;
const GSO_UDP_L4: u8 = 5;
const CHECKSUM: u16 = 6;

/// A packet socket on the client's link for bursts.
pub struct BurstSocket {
    socket: OwnedFd,
    frame: Vec<u8>,
}

impl BurstSocket {
    /// Opens it, and takes the client's link the ability to pass packets on in one piece.
    pub fn open(layout: &Layout) -> Result<Self> {
        offload::set(&layout.client, &CLIENT_LINK, Offload::TxChecksum, false)?;
        let socket = layout.client.run(|| {
            Ok(socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?)
        })?;
        Vnet::ask_for(&socket)?;
        Ok(Self {
            socket,
            frame: Vec::new(),
        })
    }

    /// Sends `payloads`, each of `size` bytes, as a datagram each, all of which have `header`.
    pub fn send(&mut self, hop: Hop, header: &Header, payloads: &[u8], size: usize) -> Result<()> {
        let mut buffer = [0; FRAME_MAX];
        let first = payloads.get(..size).context("a burst of nothing")?;
        let first = wire::build(&mut buffer, hop, header, first)?;
        let headers = first.len() - size;
        let length = u16::try_from(UDP + payloads.len()).context("too large a burst")?;
        // struct virtio_net_hdr.
        self.frame.clear();
        self.frame.extend([NEEDS_CSUM, GSO_UDP_L4]);
        for word in [headers, size, headers - UDP, CHECKSUM.into()] {
            self.frame.extend(u16::try_from(word)?.to_ne_bytes());
        }
        let start = self.frame.len();
        self.frame.extend(&first[..headers]);
        self.frame.extend(payloads);
        let frame = &mut self.frame[start..];
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
        // SAFETY: All bytes zero are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(CLIENT_LINK.index)?;
        address.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
        // SAFETY: the descriptor is open; frame and address outlive the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                self.frame.as_ptr().cast(),
                self.frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("cannot send a burst");
        }
        ensure!(sent as usize == self.frame.len(), "a burst was cut short");
        Ok(())
    }
}
