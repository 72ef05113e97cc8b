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

use super::namespace::Namespace;
use super::netlink::VethEnd;
use super::protocol::Family;
use super::traffic::PATIENCE;
use super::wire::{self, Header, Hop, FRAME_MAX};

/// Frames of one IP version on one link.
pub struct Channel {
    socket: OwnedFd,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    buffer: Box<[u8; FRAME_MAX]>,
}

impl Channel {
    /// Opens a channel on `link` of `namespace`.
    pub fn open(namespace: &Namespace, link: &VethEnd, family: Family) -> Result<Self> {
        Self::with_patience(namespace, link, family, PATIENCE)
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
            buffer: Box::new([0; FRAME_MAX]),
        })
    }

    /// Sends one packet.
    pub fn send(&mut self, hop: Hop, header: &Header, payload: &[u8]) -> Result<()> {
        let frame = wire::build(&mut self.buffer[..], hop, header, payload)?;
        transmit(&mut *self.sender, frame)
    }

    /// Sends a frame as it is, right or wrong.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        transmit(&mut *self.sender, frame)
    }

    /// The next frame for one of `hosts`; None if none comes within the channel's patience.
    pub fn receive(&mut self, hosts: &[MacAddr]) -> Result<Option<&[u8]>> {
        // The borrow checker can't see that a frame for others is let go before the next one is
        // fetched, so the frame for us is copied.
        loop {
            let frame = match self.receiver.next() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) => return Err(error).context("cannot receive a frame"),
            };
            let for_us = wire::destination_mac(frame).is_some_and(|mac| hosts.contains(&mac));
            if for_us {
                let length = frame.len();
                let copy = self
                    .buffer
                    .get_mut(..length)
                    .with_context(|| format!("a frame of {length} bytes came"))?;
                copy.copy_from_slice(frame);
                return Ok(Some(copy));
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn transmit(sender: &mut dyn DataLinkSender, frame: &[u8]) -> Result<()> {
    match sender.send_to(frame, None) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(error).context("cannot send a frame"),
        None => bail!("pnet has no room for a frame"),
    }
}
