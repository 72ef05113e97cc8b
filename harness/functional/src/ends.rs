// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine on the wire on either side of the router: packets as a test makes them up.

use std::time::Duration;

use anyhow::{Context as _, Result};
use pnet::packet::tcp::TcpFlags;

use super::setup::Setup;
use super::sockets::is_readable;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, WIRE_CLIENT, WIRE_ORIGINAL, WIRE_UPSTREAM,
};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport, FRAME_MAX};

/// How long a packet may take to cross the router before it counts as dropped.
const PATIENCE: Duration = Duration::from_secs(2);
/// From the client's net to the router.
pub const FROM_CLIENT: Hop = Hop {
    source: mac_of(WIRE_CLIENT),
    destination: mac_of(ROUTER_CLIENT_SIDE),
};
/// From the server's net to the router.
pub const FROM_SERVER: Hop = Hop {
    source: mac_of(WIRE_UPSTREAM),
    destination: mac_of(ROUTER_SERVER_SIDE),
};

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its headers.
    pub header: Header,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Both machines, of one IP version.
pub struct Ends {
    client: Channel,
    server: Channel,
}

impl Ends {
    /// Opens both.
    pub fn open(setup: &Setup, family: Family) -> Result<Self> {
        let layout = &setup.layout;
        Ok(Self {
            client: Channel::with_patience(&layout.client, &CLIENT_LINK, family, PATIENCE)?,
            server: Channel::with_patience(&layout.server, &SERVER_LINK, family, PATIENCE)?,
        })
    }

    /// Sends a packet from the client's side.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        self.client.send(FROM_CLIENT, header, payload)
    }

    /// Sends a packet from the server's side.
    pub fn send_back(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        self.server.send(FROM_SERVER, header, payload)
    }

    /// Sends a frame from the client's side as it is, right or wrong.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.client.send_frame(frame)
    }

    /// The next packet for a machine on the server's wire; `None` if none comes.
    pub fn arrived(&mut self) -> Result<Option<Arrived>> {
        let hosts = [mac_of(WIRE_UPSTREAM), mac_of(WIRE_ORIGINAL)];
        self.server.receive(&hosts)?.map(taken).transpose()
    }

    /// The same, if it comes within `patience`.
    pub fn arrived_within(&mut self, patience: Duration) -> Result<Option<Arrived>> {
        match is_readable(&self.server, patience)? {
            true => self.arrived(),
            false => Ok(None),
        }
    }

    /// The next packet for the machine on the client's wire, if it comes within `patience`.
    pub fn came_back_within(&mut self, patience: Duration) -> Result<Option<Arrived>> {
        match is_readable(&self.client, patience)? {
            true => self.came_back(),
            false => Ok(None),
        }
    }

    /// The next packet for the machine on the client's wire; `None` if none comes.
    pub fn came_back(&mut self) -> Result<Option<Arrived>> {
        let hosts = [mac_of(WIRE_CLIENT)];
        self.client.receive(&hosts)?.map(taken).transpose()
    }
}

fn taken(frame: &[u8]) -> Result<Arrived> {
    let packet = frame::parse(frame).with_context(|| format!("a frame: {frame:02x?}"))?;
    Ok(Arrived {
        header: packet.header,
        payload: packet.payload.to_vec(),
    })
}

/// A SYN with the given sequence number.
pub const fn syn(sequence: u32) -> Transport {
    Transport::Tcp(Segment {
        sequence,
        acknowledgement: 0,
        flags: TcpFlags::SYN,
    })
}

/// The frame that [`Ends::send`] would send, to be spoilt.
pub fn frame(header: &Header, payload: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = [0; FRAME_MAX];
    Ok(frame::build(&mut buffer, FROM_CLIENT, header, payload)?.to_vec())
}
