// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client on the wire of the client's net: its packets pass through the router.

use std::net::SocketAddr;

use anyhow::Result;
use pnet::packet::tcp::TcpFlags;

use super::burst::BurstSocket;
use super::channel::Channel;
use super::client::{Client, Dialogue};
use super::flows::Flows;
use super::tcp::{Connection, Numbers, OutOfPlace};
use crate::net::layout::mac_of;
use crate::net::layout::{Layout, CLIENT_LINK};
use crate::traffic::target::Stop;
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Protocol, Traffic};
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, WIRE_CLIENT};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Malformed, Packet, Transport};

const TO_ROUTER: Hop = Hop {
    source: mac_of(WIRE_CLIENT),
    destination: mac_of(ROUTER_CLIENT_SIDE),
};

/// The client.
pub struct WireClient {
    channel: Channel,
    flows: Flows,
    // For each flow; None if they are no connections.
    numbers: Option<Vec<Numbers>>,
    dialogue: Dialogue,
    // Only for bursts.
    bursts: Option<BurstSocket>,
}

impl WireClient {
    /// Opens the client's channel; nothing is sent yet.
    pub fn new(layout: &Layout, traffic: &Traffic, flows: Flows) -> Result<Self> {
        Ok(Self {
            channel: Channel::of(&layout.client, &CLIENT_LINK, traffic)?,
            numbers: match traffic.protocol {
                Protocol::Tcp => Some((0..flows.count()).map(Numbers::of_client).collect()),
                Protocol::Udp => None,
            },
            dialogue: Dialogue::new(traffic, &flows),
            flows,
            bursts: match traffic.load.burst() {
                1 => None,
                _ => Some(BurstSocket::open(layout)?),
            },
        })
    }

    /// The flow's connection, if it is one; whoever changes it puts it back.
    fn connection(&self, flow: u32) -> Option<Connection> {
        let numbers = self.numbers.as_ref()?[flow as usize];
        let local = self.flows.client(flow);
        Some(Connection::new(local, self.dialogue.server(), numbers))
    }

    fn put_back(&mut self, flow: u32, connection: &Connection) {
        if let Some(numbers) = &mut self.numbers {
            numbers[flow as usize] = connection.numbers();
        }
    }

    /// Sends a segment without payload.
    fn send_segment(&mut self, flow: u32, mut connection: Connection, flags: u8) -> Result<()> {
        let header = connection.send(flags, 0);
        self.put_back(flow, &connection);
        self.channel.send(TO_ROUTER, &header, &[])
    }
}

impl Client for WireClient {
    fn hand_over(self: Box<Self>) -> Vec<Numbers> {
        self.numbers.unwrap_or_default()
    }

    fn open(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(connection) = self.connection(flow) else {
            return self.send(flow, delivery);
        };
        Ok(self.send_segment(flow, connection, TcpFlags::SYN)?)
    }

    fn establish(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(mut connection) = self.connection(flow) else {
            return self.receive(flow, delivery);
        };
        let local = self.flows.client(flow);
        let packet = arrived(
            &mut self.channel,
            local,
            || "the SYN-ACK".to_owned(),
            delivery,
        )?;
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
        Ok(self.send_segment(flow, connection, TcpFlags::ACK)?)
    }

    fn send(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let mut connection = self.connection(flow);
        let server = self.dialogue.server();
        let header = match &mut connection {
            Some(connection) => {
                connection.send(TcpFlags::PSH | TcpFlags::ACK, self.dialogue.length(flow))
            }
            None => Header {
                source: self.flows.client(flow),
                destination: server,
                transport: Transport::Udp,
            },
        };
        if let Some(connection) = connection {
            self.put_back(flow, &connection);
        }
        let request = self.dialogue.request(flow, delivery);
        Ok(self.channel.send(TO_ROUTER, &header, request)?)
    }

    fn send_at_once(&mut self, flow: u32, count: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(bursts) = &mut self.bursts else {
            return (0..count).try_for_each(|_| self.send(flow, delivery));
        };
        let size = self.dialogue.length(flow);
        let mut payloads = Vec::new();
        for _ in 0..count {
            payloads.extend(self.dialogue.request(flow, delivery));
        }
        let header = Header {
            source: self.flows.client(flow),
            destination: self.dialogue.server(),
            transport: Transport::Udp,
        };
        Ok(bursts.send(TO_ROUTER, &header, &payloads, size)?)
    }

    fn receive(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let mut connection = self.connection(flow);
        let local = self.flows.client(flow);
        let what = || self.dialogue.awaited(flow);
        let packet = arrived(&mut self.channel, local, what, delivery)?;
        match (&mut connection, packet.header.transport) {
            (Some(connection), Transport::Tcp(segment)) => connection
                .receive(segment, packet.payload.len())
                .map_err(misplaced)?,
            (None, Transport::Udp) => {}
            (_, other) => {
                let what = self.dialogue.awaited(flow);
                return Err(Stop::Subject(format!("{what} came as {other:?}")));
            }
        }
        self.dialogue
            .check(flow, packet.header.source, packet.payload, delivery)?;
        if let Some(connection) = connection {
            self.put_back(flow, &connection);
        }
        Ok(())
    }

    fn close(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Some(mut connection) = self.connection(flow) else {
            return Ok(());
        };
        let local = self.flows.client(flow);
        let packet = arrived(&mut self.channel, local, || "the FIN".to_owned(), delivery)?;
        match packet.header.transport {
            Transport::Tcp(segment) if segment.has(TcpFlags::FIN) => {
                connection.receive(segment, 0).map_err(misplaced)?;
            }
            other => return Err(Stop::Subject(format!("{other:?} came instead of a FIN"))),
        }
        Ok(self.send_segment(flow, connection, TcpFlags::FIN | TcpFlags::ACK)?)
    }
}

/// The next packet for the client.
fn arrived<'a>(
    channel: &'a mut Channel,
    local: SocketAddr,
    what: impl Fn() -> String,
    delivery: &mut Delivery,
) -> Result<Packet<'a>, Stop> {
    let Some(frame) = channel.receive(&[mac_of(WIRE_CLIENT)])? else {
        return Err(Stop::lost(&what()));
    };
    let packet = frame::parse(frame).map_err(|malformed| {
        if matches!(malformed, Malformed::Checksum(_)) {
            delivery.bad_checksum += 1;
        }
        let what = what();
        Stop::Subject(format!("at the client, waiting for {what}: {malformed}"))
    })?;
    if packet.header.destination != local {
        return Err(Stop::Subject(format!(
            "{} came for {} instead of {local}",
            what(),
            packet.header.destination
        )));
    }
    Ok(packet)
}

fn misplaced(error: OutOfPlace) -> Stop {
    Stop::Subject(format!("at the client: {error}"))
}
