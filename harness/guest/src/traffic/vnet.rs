// SPDX-License-Identifier: MIT OR Apache-2.0

//! The header before frames of a packet socket with PACKET_VNET_HDR (linux/virtio_net.h): what is known of
//! their checksums.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{bail, Context, Result};
use nix::libc;
use pnet::packet::ip::IpNextHeaderProtocols;

use mutexlab_model::traffic::Checksum;
use mutexlab_wire::checksum::Sum;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Transport};

/// Its bytes.
pub const SIZE: usize = 10;

// Of linux/if_packet.h and linux/virtio_net.h.
const PACKET_VNET_HDR: libc::c_int = 15;
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

// Where checksums are in their headers.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// What it says about a frame's checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    flags: u8,
    /// Where in the frame the sum begins.
    start: u16,
    /// Where from there it is put.
    offset: u16,
}

impl Vnet {
    /// Has each frame of a packet socket begin with such a header, those that are sent as well.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ask_for(socket: &OwnedFd) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the option is an int that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("PACKET_VNET_HDR");
        }
        Ok(())
    }

    /// Leaves the checksum of the transport protocol to whoever sends the `frame`, which was built for
    /// `header`: of the sum there is only the part of the pseudo header.
    pub fn leave(frame: &mut [u8], header: &Header) -> Result<Self> {
        let (protocol, offset) = match header.transport {
            Transport::Tcp(_) => (IpNextHeaderProtocols::Tcp, TCP_CHECKSUM),
            Transport::Udp => (IpNextHeaderProtocols::Udp, UDP_CHECKSUM),
        };
        let start = frame::transport_offset(header);
        let body = frame
            .len()
            .checked_sub(start)
            .context("a frame without a body")?;
        let (source, destination): (IpAddr, IpAddr) = (header.source.ip(), header.destination.ip());
        let sum = Sum::of_pseudo_header(source, destination, protocol, u16::try_from(body)?);
        frame
            .get_mut(start + offset..start + offset + 2)
            .context("a frame without a checksum")?
            .copy_from_slice(&sum.fold().to_be_bytes());
        Ok(Self {
            flags: NEEDS_CSUM,
            start: u16::try_from(start)?,
            offset: u16::try_from(offset)?,
        })
    }

    /// Its bytes before a frame that is no part of a larger one.
    pub fn bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0] = self.flags;
        bytes[6..8].copy_from_slice(&self.start.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_ne_bytes());
        bytes
    }

    /// Splits what was received into it and the frame.
    pub fn split(received: &[u8]) -> Result<(Self, &[u8])> {
        let (bytes, frame) = received
            .split_at_checked(SIZE)
            .context("a frame came without what is known of it")?;
        if bytes[1] != 0 {
            bail!(
                "several segments came in one frame, as GSO type {}",
                bytes[1]
            );
        }
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let this = Self {
            flags: bytes[0],
            start: word(6),
            offset: word(8),
        };
        Ok((this, frame))
    }

    /// The checksum status (`skb->ip_summed`). CHECKSUM_COMPLETE is told as if there were none.
    pub fn checksum(self) -> Checksum {
        match self.flags {
            flags if flags & NEEDS_CSUM != 0 => Checksum::Partial,
            flags if flags & DATA_VALID != 0 => Checksum::Unnecessary,
            _ => Checksum::None,
        }
    }

    /// Does what a device does to a frame whose checksum was left to it (skb_checksum_help()): what is wrong in
    /// the part of the sum that was there, or where it begins or is put, makes a wrong checksum. False if the
    /// place is outside of the frame.
    #[must_use]
    pub fn complete(self, frame: &mut [u8]) -> bool {
        if self.checksum() != Checksum::Partial {
            return true;
        }
        let start = usize::from(self.start);
        let at = start + usize::from(self.offset);
        let Some(body) = frame.get(start..).filter(|_| at + 2 <= frame.len()) else {
            return false;
        };
        // RFC 768: zero would mean that there is none.
        let sum = match Sum::default().add(body).checksum() {
            0 => u16::MAX,
            sum => sum,
        };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::layout::mac_of;
    use mutexlab_model::traffic::Family;
    use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, WIRE_CLIENT, WIRE_ORIGINAL};
    use mutexlab_wire::frame::{Hop, Layer, Malformed, Segment, FRAME_MAX};

    const HOP: Hop = Hop {
        source: mac_of(WIRE_CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    };

    fn headers() -> impl Iterator<Item = Header> {
        let segment = Segment {
            sequence: 7,
            acknowledgement: 8,
            flags: 2,
        };
        [Family::V4, Family::V6]
            .into_iter()
            .flat_map(move |family| {
                [Transport::Udp, Transport::Tcp(segment)].map(|transport| Header {
                    source: WIRE_CLIENT.socket(family, 5),
                    destination: WIRE_ORIGINAL.socket(family, 6),
                    transport,
                })
            })
    }

    #[test]
    fn what_was_left_is_completed_to_the_same_frame() {
        for header in headers() {
            for payload in [&b"odd"[..], b"even", &[0xff; 1000]] {
                let mut buffer = [0; FRAME_MAX];
                let whole = frame::build(&mut buffer, HOP, &header, payload)
                    .unwrap()
                    .to_vec();
                let mut frame = whole.clone();
                let vnet = Vnet::leave(&mut frame, &header).unwrap();
                assert_eq!(vnet.checksum(), Checksum::Partial);
                assert_eq!(
                    frame::parse(&frame).unwrap_err(),
                    Malformed::Checksum(Layer::Transport)
                );
                let received = [&vnet.bytes(), frame.as_slice()].concat();
                let (vnet, frame) = Vnet::split(&received).unwrap();
                let mut frame = frame.to_vec();
                assert!(vnet.complete(&mut frame));
                assert_eq!(frame, whole);
            }
        }
    }

    #[test]
    fn damage_to_a_checksum_that_was_left_is_seen() {
        for header in headers() {
            let mut buffer = [0; FRAME_MAX];
            let length = frame::build(&mut buffer, HOP, &header, b"payload")
                .unwrap()
                .len();
            let frame = &mut buffer[..length];
            let vnet = Vnet::leave(frame, &header).unwrap();
            let at = usize::from(vnet.start + vnet.offset);
            // As by who translates an address and forgets the sum, or thinks that the place is elsewhere.
            for (flip, vnet) in [
                (1, vnet),
                (
                    0,
                    Vnet {
                        start: vnet.start - 2,
                        offset: vnet.offset + 2,
                        ..vnet
                    },
                ),
            ] {
                let mut frame = frame.to_vec();
                frame[at + 1] ^= flip;
                assert!(vnet.complete(&mut frame));
                assert_eq!(
                    frame::parse(&frame).unwrap_err(),
                    Malformed::Checksum(Layer::Transport)
                );
            }
            let outside = Vnet {
                start: length as u16 - 1,
                ..vnet
            };
            assert!(!outside.complete(frame));
        }
    }

    #[test]
    fn who_vouches_is_read() {
        let of = |flags| {
            Vnet {
                flags,
                ..Vnet::default()
            }
            .checksum()
        };
        assert_eq!(
            [0, 1, 2].map(of),
            [Checksum::None, Checksum::Partial, Checksum::Unnecessary]
        );
        assert!(Vnet::split(&[0; SIZE - 1]).is_err());
        assert!(Vnet::split(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
