// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine on the wire: it sends and receives whole frames over a packet socket, without a
//! stack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
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
            return transmit(&self.socket, &mut *self.sender, self.tap.as_ref(), 0, frame);
        };
        let (before, room) = self.buffer.split_at_mut(vnet::SIZE);
        let length = frame::build(room, hop, header, payload)?.len();
        let vnet = match checksum {
            Checksum::Partial => Vnet::leave(&mut room[..length], header)?,
            Checksum::None | Checksum::Unnecessary => Vnet::default(),
        };
        before.copy_from_slice(&vnet.bytes());
        let frame = &self.buffer[..vnet::SIZE + length];
        let (socket, sender) = (&self.socket, &mut *self.sender);
        transmit(socket, sender, self.tap.as_ref(), vnet::SIZE, frame)
    }

    /// Sends a frame as it is, right or wrong.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let (socket, sender, tap) = (&self.socket, &mut *self.sender, self.tap.as_ref());
        if self.checksum.is_none() {
            return transmit(socket, sender, tap, 0, frame);
        }
        let frame = [&Vnet::default().bytes(), frame].concat();
        transmit(socket, sender, tap, vnet::SIZE, &frame)
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
        loop {
            let Some(length) = self.fetch()? else {
                return Ok(None);
            };
            let received = &self.buffer[..length];
            let (vnet, frame) = match self.checksum {
                Some(_) => Vnet::split(received)?,
                None => (Vnet::default(), received),
            };
            if frame::destination_mac(frame).is_some_and(|mac| hosts.contains(&mac)) {
                let before = length - frame.len();
                let frame = &mut self.buffer[before..length];
                // If it cannot be done, the checksum is wrong as it is.
                let _ = vnet.complete(frame);
                return Ok(Some((vnet, frame)));
            }
        }
    }

    /// Puts the next frame into the buffer, with what stands before it, and says how long both are; None if none comes within the channel's
    /// patience. pnet asks whether there is one before it fetches it, which is a system call more; mostly there is one.
    fn fetch(&mut self) -> Result<Option<usize>> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = match socket::recv(self.socket.as_raw_fd(), &mut self.buffer[..], flags) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => match self.receiver.next() {
                Ok(frame) => {
                    let room = self.buffer.get_mut(..frame.len());
                    let room = room.with_context(|| too_long(frame.len()))?;
                    room.copy_from_slice(frame);
                    frame.len()
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) => return Err(error).context("cannot receive a frame"),
            },
            Err(error) => return Err(error).context("cannot receive a frame"),
        };
        ensure!(length <= self.buffer.len(), too_long(length));
        Ok(Some(length))
    }
}

fn too_long(length: usize) -> String {
    format!("a frame of {length} bytes came")
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends what begins `before` bytes before its frame. pnet asks whether it may, before each; mostly it may.
fn transmit(
    socket: &OwnedFd,
    sender: &mut dyn DataLinkSender,
    tap: Option<&Tap>,
    before: usize,
    bytes: &[u8],
) -> Result<()> {
    tap.map_or(Ok(()), Tap::let_go)?;
    let sent = match socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(_) => Some(Ok(())),
        Err(Errno::EAGAIN) => sender.send_to(bytes, None),
        Err(error) => Some(Err(error.into())),
    };
    match sent {
        Some(Ok(())) => tap.map_or(Ok(()), |tap| tap.let_go_of(&bytes[before..])),
        Some(Err(error)) => Err(error).context("cannot send a frame"),
        None => bail!("pnet has no room for a frame"),
    }
}
