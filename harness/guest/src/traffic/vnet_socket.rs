// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames that leave checksums and segmentation to a device: sent with a header of virtio's before
//! them (PACKET_VNET_HDR), from which the kernel takes what it is to say of the packet.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use super::vnet::{self, Vnet};
use crate::net::namespace::Namespace;
use crate::net::netlink::VethEnd;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: somebody has to complete a checksum.
pub const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_GSO_UDP_L4: datagrams in one piece, to be cut.
pub const GSO_UDP_L4: u8 = 5;

/// Bytes of the header.
pub const VNET_HEADER: usize = vnet::SIZE;

/// struct virtio_net_hdr: what is said of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// VIRTIO_NET_HDR_F_….
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_….
    pub gso_type: u8,
    /// Bytes of all headers.
    pub header_length: u16,
    /// Bytes of each piece.
    pub gso_size: u16,
    /// Where the sum begins, from the frame's start on.
    pub checksum_start: u16,
    /// Where it goes, from there on.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Puts it before a frame that is to be put together in `bytes`.
    pub fn begin(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend([self.flags, self.gso_type]);
        for word in [
            self.header_length,
            self.gso_size,
            self.checksum_start,
            self.checksum_offset,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
    }

    /// `frame` with it before.
    pub fn before(&self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(VNET_HEADER + frame.len());
        self.begin(&mut bytes);
        bytes.extend(frame);
        bytes
    }
}

/// A packet socket for such frames on one link.
pub struct VnetSocket {
    socket: OwnedFd,
    index: u32,
}

impl VnetSocket {
    /// Opens it on `link` of `namespace`.
    pub fn open(namespace: &Namespace, link: &VethEnd) -> Result<Self> {
        let socket = namespace.run(|| {
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
            index: link.index,
        })
    }

    /// Sends a frame with the header before it.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let sent = self.try_send(bytes)?;
        ensure!(sent, "the kernel refuses a frame's header");
        Ok(())
    }

    /// The same; false if the kernel finds that the header makes no sense (EINVAL), that the frame is too
    /// large, or, when it is to be cut or summed for the device, that this cannot be done (ENOMEM, of
    /// `__dev_queue_xmit()`), or if the device drops it (ENOBUFS).
    pub fn try_send(&self, bytes: &[u8]) -> Result<bool> {
        let at = VNET_HEADER + 12;
        let ether_type = bytes.get(at..at + 2).context("a frame without a type")?;
        // SAFETY: All bytes zero are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(self.index)?;
        address.sll_protocol = u16::from_ne_bytes([ether_type[0], ether_type[1]]);
        // SAFETY: the descriptor is open; frame and address outlive the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            let refused = [libc::EINVAL, libc::EMSGSIZE, libc::ENOMEM, libc::ENOBUFS].map(Some);
            if refused.contains(&error.raw_os_error()) {
                return Ok(false);
            }
            return Err(error).context("cannot send a frame");
        }
        ensure!(sent as usize == bytes.len(), "a frame was cut short");
        Ok(true)
    }
}
