// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client on the wire of the client's net: its packets pass through the router.

use std::net::SocketAddr;

use anyhow::Result;
use pnet::packet::tcp::TcpFlags;

use super::channel::Channel;
use super::client::{Client, Dialogue};
use super::layout::{Layout, CLIENT_LINK, ROUTER_CLIENT_SIDE, WIRE_CLIENT};
use super::protocol::{Delivery, Protocol, Traffic};
use super::tcp::{Connection, OutOfPlace};
use super::traffic::Stop;
use super::wire::{self, Header, Hop, Malformed, Packet, Transport};

/// Initial sequence number of a connection.
const INITIAL: u32 = 0x1000_0000;

const TO_ROUTER: Hop = Hop {
    source: WIRE_CLIENT.mac,
    destination: ROUTER_CLIENT_SIDE.mac,
};

/// The client.
pub struct WireClient {
    channel: Channel,
    local: SocketAddr,
    connection: Option<Connection>,
    dialogue: Dialogue,
}

impl WireClient {
    /// Opens the client's channel; nothing is sent yet.
    pub fn new(layout: &Layout, traffic: &Traffic, port: u16) -> Result<Self> {
        let local = traffic.client(port);
        let dialogue = Dialogue::new(traffic);
        Ok(Self {
            channel: Channel::open(&layout.client, &CLIENT_LINK, traffic.family)?,
            local,
            connection: match traffic.protocol {
                Protocol::Tcp => Some(Connection::new(local, dialogue.server(), INITIAL)),
                Protocol::Udp => None,
            },
            dialogue,
        })
    }
}

impl Client for WireClient {
    fn open(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(connection) = &mut self.connection else {
            return self.send(delivery);
        };
        let header = connection.send(TcpFlags::SYN, 0);
        Ok(self.channel.send(TO_ROUTER, &header, &[])?)
    }

    fn establish(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(connection) = &mut self.connection else {
            return self.receive(delivery);
        };
        let packet = arrived(&mut self.channel, self.local, "the SYN-ACK", delivery)?;
        if packet.header.source != self.dialogue.server() {
            return Err(Stop::Subject(format!(
                "the SYN-ACK came from {} instead of {}",
                packet.header.source,
                self.dialogue.server()
            )));
        }
        match packet.header.transport {
            Transport::Tcp(segment) => connection.receive_syn_ack(segment).map_err(misplaced)?,
            Transport::Udp => return Err(Stop::Subject("UDP instead of a SYN-ACK".to_owned())),
        }
        let header = connection.send(TcpFlags::ACK, 0);
        Ok(self.channel.send(TO_ROUTER, &header, &[])?)
    }

    fn send(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let server = self.dialogue.server();
        let payload = self.dialogue.request(delivery);
        let header = match &mut self.connection {
            Some(connection) => connection.send(TcpFlags::PSH | TcpFlags::ACK, payload.len()),
            None => Header {
                source: self.local,
                destination: server,
                transport: Transport::Udp,
            },
        };
        Ok(self.channel.send(TO_ROUTER, &header, payload)?)
    }

    fn receive(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let what = self.dialogue.awaited();
        let packet = arrived(&mut self.channel, self.local, &what, delivery)?;
        match (&mut self.connection, packet.header.transport) {
            (Some(connection), Transport::Tcp(segment)) => connection
                .receive(segment, packet.payload.len())
                .map_err(misplaced)?,
            (None, Transport::Udp) => {}
            (_, other) => return Err(Stop::Subject(format!("{what} came as {other:?}"))),
        }
        self.dialogue
            .check(packet.header.source, packet.payload, delivery)
    }

    fn close(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let packet = arrived(&mut self.channel, self.local, "the FIN", delivery)?;
        match packet.header.transport {
            Transport::Tcp(segment) if segment.has(TcpFlags::FIN) => {
                connection.receive(segment, 0).map_err(misplaced)?;
            }
            other => return Err(Stop::Subject(format!("{other:?} came instead of a FIN"))),
        }
        let header = connection.send(TcpFlags::FIN | TcpFlags::ACK, 0);
        Ok(self.channel.send(TO_ROUTER, &header, &[])?)
    }
}

/// The next packet for the client.
fn arrived<'a>(
    channel: &'a mut Channel,
    local: SocketAddr,
    what: &str,
    delivery: &mut Delivery,
) -> Result<Packet<'a>, Stop> {
    let Some(frame) = channel.receive(&[WIRE_CLIENT.mac])? else {
        return Err(Stop::lost(what));
    };
    let packet = wire::parse(frame).map_err(|malformed| {
        if matches!(malformed, Malformed::Checksum(_)) {
            delivery.bad_checksum += 1;
        }
        Stop::Subject(format!("at the client, waiting for {what}: {malformed}"))
    })?;
    if packet.header.destination != local {
        return Err(Stop::Subject(format!(
            "{what} came for {} instead of {local}",
            packet.header.destination
        )));
    }
    Ok(packet)
}

fn misplaced(error: OutOfPlace) -> Stop {
    Stop::Subject(format!("at the client: {error}"))
}
