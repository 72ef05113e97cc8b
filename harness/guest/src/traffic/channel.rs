// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine on the wire: it sends and receives whole frames over a packet socket, without a
//! stack.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};
use pnet::datalink::{
    self, ChannelType, Config, DataLinkReceiver, DataLinkSender, NetworkInterface,
};
use pnet::util::MacAddr;

use super::vnet::{self, Vnet};
use crate::net::namespace::Namespace;
use crate::net::netlink::VethEnd;
use crate::net::tap::Tap;
use crate::traffic::target::PATIENCE;
use mutexlab_model::traffic::{Checksum, Cloned, Family, Traffic};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, FRAME_MAX};

/// Frames of one IP version on one link.
pub struct Channel {
    socket: OwnedFd,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    // What is known of frames' checksums stands before them, if that is asked for.
    buffer: Box<[u8; vnet::SIZE + FRAME_MAX]>,
    // With which status frames are sent; None if what is known of checksums is neither told nor asked.
    checksum: Option<Checksum>,
    // Holds a clone of each frame while it is on its way.
    tap: Option<Tap>,
}

impl Channel {
    /// Opens a channel on `link` of `namespace`.
    pub fn open(namespace: &Namespace, link: &VethEnd, family: Family) -> Result<Self> {
        Self::with_patience(namespace, link, family, PATIENCE)
    }

    /// Opens a channel whose frames leave as packets of `traffic` shall.
    pub fn of(namespace: &Namespace, link: &VethEnd, traffic: &Traffic) -> Result<Self> {
        let channel = Self::open(namespace, link, traffic.family)?;
        let tap = (traffic.cloned == Cloned::Header)
            .then(|| Tap::open(namespace, link))
            .transpose()?;
        let checksum = match traffic.checksum {
            Checksum::None => None,
            other => {
                Vnet::ask_for(&channel.socket)?;
                Some(other)
            }
        };
        Ok(Self {
            checksum,
            tap,
            ..channel
        })
    }

    /// Opens a channel that tells with which checksum status frames arrive.
    pub fn for_status(namespace: &Namespace, link: &VethEnd, family: Family) -> Result<Self> {
        let patience = Duration::from_millis(1);
        let channel = Self::with_patience(namespace, link, family, patience)?;
        Vnet::ask_for(&channel.socket)?;
        Ok(Self {
            checksum: Some(Checksum::None),
            ..channel
        })
    }

    /// The same, with another time for which it waits for a frame.
    pub fn with_patience(
        namespace: &Namespace,
        link: &VethEnd,
        family: Family,
        patience: Duration,
    ) -> Result<Self> {
        let (socket, channel) = namespace.run(|| {
            // pnet's own socket would be for all protocols, and so would get a copy of each frame
            // that the stack sends. One bound to IP sees arriving frames only.
            let socket = socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .context("cannot open a packet socket")?;
            let ether_type = match family {
                Family::V4 => libc::ETH_P_IP,
                Family::V6 => libc::ETH_P_IPV6,
            };
            let own = socket.try_clone().context("cannot copy a descriptor")?;
            let config = Config {
                read_timeout: Some(patience),
                write_timeout: Some(PATIENCE),
                channel_type: ChannelType::Layer3(ether_type as u16),
                promiscuous: false,
                socket_fd: Some(socket.into_raw_fd()),
                ..Config::default()
            };
            let interface = NetworkInterface {
                name: link.name.to_owned(),
                description: String::new(),
                index: link.index,
                mac: Some(link.mac),
                ips: Vec::new(),
                flags: 0,
            };
            let channel = datalink::channel(&interface, config).with_context(|| {
                format!(
                    "cannot open a channel on {} of {}",
                    link.name,
                    namespace.name()
                )
            })?;
            Ok((own, channel))
        })?;
        let datalink::Channel::Ethernet(sender, receiver) = channel else {
            bail!("pnet opened a channel of an unknown sort on {}", link.name);
        };
        Ok(Self {
            socket,
            sender,
            receiver,
            buffer: Box::new([0; vnet::SIZE + FRAME_MAX]),
            checksum: None,
            tap: None,
        })
    }

    /// Sends one packet.
    pub fn send(&mut self, hop: Hop, header: &Header, payload: &[u8]) -> Result<()> {
        let Some(checksum) = self.checksum else {
            let frame = frame::build(&mut self.buffer[..], hop, header, payload)?;
            return transmit(&mut *self.sender, self.tap.as_ref(), 0, frame);
        };
        let (before, room) = self.buffer.split_at_mut(vnet::SIZE);
        let length = frame::build(room, hop, header, payload)?.len();
        let vnet = match checksum {
            Checksum::Partial => Vnet::leave(&mut room[..length], header)?,
            Checksum::None | Checksum::Unnecessary => Vnet::default(),
        };
        before.copy_from_slice(&vnet.bytes());
        let frame = &self.buffer[..vnet::SIZE + length];
        transmit(&mut *self.sender, self.tap.as_ref(), vnet::SIZE, frame)
    }

    /// Sends a frame as it is, right or wrong.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let tap = self.tap.as_ref();
        if self.checksum.is_none() {
            return transmit(&mut *self.sender, tap, 0, frame);
        }
        let frame = [&Vnet::default().bytes(), frame].concat();
        transmit(&mut *self.sender, tap, vnet::SIZE, &frame)
    }

    /// The next frame for one of `hosts`; None if none comes within the channel's patience. A checksum that was
    /// left to a device is completed as by one.
    pub fn receive(&mut self, hosts: &[MacAddr]) -> Result<Option<&[u8]>> {
        Ok(self.next(hosts)?.map(|(_, frame)| frame))
    }

    /// The checksum status of the next frame for one of `hosts`, on a channel that tells it.
    pub fn status(&mut self, hosts: &[MacAddr]) -> Result<Option<Checksum>> {
        Ok(self.next(hosts)?.map(|(vnet, _)| vnet.checksum()))
    }

    fn next(&mut self, hosts: &[MacAddr]) -> Result<Option<(Vnet, &[u8])>> {
        // The borrow checker can't see that a frame for others is let go before the next one is
        // fetched, so the frame for us is copied.
        loop {
            let frame = match self.receiver.next() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) => return Err(error).context("cannot receive a frame"),
            };
            let (vnet, frame) = match self.checksum {
                Some(_) => Vnet::split(frame)?,
                None => (Vnet::default(), frame),
            };
            let for_us = frame::destination_mac(frame).is_some_and(|mac| hosts.contains(&mac));
            if for_us {
                let length = frame.len();
                let copy = self
                    .buffer
                    .get_mut(..length)
                    .with_context(|| format!("a frame of {length} bytes came"))?;
                copy.copy_from_slice(frame);
                // If it cannot be done, the checksum is wrong as it is.
                let _ = vnet.complete(copy);
                return Ok(Some((vnet, copy)));
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends what begins `before` bytes before its frame.
fn transmit(
    sender: &mut dyn DataLinkSender,
    tap: Option<&Tap>,
    before: usize,
    bytes: &[u8],
) -> Result<()> {
    tap.map_or(Ok(()), Tap::let_go)?;
    match sender.send_to(bytes, None) {
        Some(Ok(())) => tap.map_or(Ok(()), |tap| tap.let_go_of(&bytes[before..])),
        Some(Err(error)) => Err(error).context("cannot send a frame"),
        None => bail!("pnet has no room for a frame"),
    }
}
