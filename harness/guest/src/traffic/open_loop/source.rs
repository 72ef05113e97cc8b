// SPDX-License-Identifier: MIT OR Apache-2.0

//! The client's end of an open loop.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use pnet::packet::tcp::TcpFlags;

use super::super::channel::Channel;
use super::super::flows::Flows;
use super::super::payload::{self, Kind, Label};
use super::super::sizes::Sizes;
use super::super::tcp::{Connection, Numbers};
use super::book::Book;
use super::received::Received;
use crate::kernel::tsc;
use crate::net::cable::Wire;
use crate::net::layout::mac_of;
use crate::net::layout::CLIENT_LINK;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Protocol, Traffic};
use mutexlab_protocol::addresses::WIRE_CLIENT;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport};

/// Sends requests and takes answers.
pub struct Source {
    /// Where frames come and go.
    pub channel: Channel,
    hop: Hop,
    server: SocketAddr,
    flows: Flows,
    sizes: Sizes,
    // Which flow is in which place; only so many are there at once.
    places: Vec<u32>,
    // How many were to be replaced, and how many were.
    asked: u32,
    churned: u32,
    // None if flows are no connections.
    book: Option<Book>,
    payload: Vec<u8>,
}

impl Source {
    /// Opens the client's channel; nothing is sent yet.
    pub fn new(wire: &Wire<'_>, traffic: &Traffic, connections: Vec<Numbers>) -> Result<Self> {
        let sizes = Sizes::of(traffic);
        Ok(Self {
            channel: Channel::with_patience(
                wire.client,
                &CLIENT_LINK,
                traffic.family,
                Duration::ZERO,
            )?,
            hop: wire.to_server,
            server: Target::Original.socket(traffic.family),
            flows: Flows::in_all(traffic),
            places: (0..traffic.flows).collect(),
            asked: 0,
            churned: 0,
            book: match traffic.protocol {
                Protocol::Tcp => Some(Book::new(connections)),
                Protocol::Udp => None,
            },
            payload: vec![0; sizes.max()],
            sizes,
        })
    }

    /// How many flows took the place of others.
    pub fn churned(&self) -> u32 {
        self.churned
    }

    /// Sends the packet `number`, of the flow that is in `place` now.
    pub fn send(&mut self, place: u32, number: u32, delivery: &mut Delivery) -> Result<()> {
        let flow = self.places[place as usize];
        let length = self.sizes.payload(number);
        let header = match self.connection(flow) {
            Some(mut connection) => {
                let header = connection.send(TcpFlags::PSH | TcpFlags::ACK, length);
                self.put(flow, Some(&connection));
                header
            }
            None => Header {
                source: self.flows.client(flow),
                destination: self.server,
                transport: Transport::Udp,
            },
        };
        let sequence = number;
        let payload = &mut self.payload[..length];
        payload::fill(payload, Kind::Request, Label { flow, sequence });
        delivery.sent += 1;
        self.channel.send(self.hop, &header, payload)
    }

    /// Puts the next new flow in the place of the oldest: at once, or with a handshake before.
    pub fn replace(&mut self) -> Result<()> {
        let count = self.places.len() as u32;
        let flow = count + self.asked;
        let place = (self.asked % count) as usize;
        self.asked += 1;
        if self.book.is_none() {
            self.places[place] = flow;
            self.churned += 1;
            return Ok(());
        }
        let numbers = Numbers::of_client(flow);
        let mut connection = Connection::new(self.flows.client(flow), self.server, numbers);
        self.send_segment(&mut connection, TcpFlags::SYN)?;
        self.put(flow, Some(&connection));
        Ok(())
    }

    /// Takes a frame, if one is there, of a stream of which `sent` packets were sent.
    pub fn receive(&mut self, sent: u32, delivery: &mut Delivery) -> Result<Received, Stop> {
        let Some(frame) = self.channel.receive(&[mac_of(WIRE_CLIENT)])? else {
            return Ok(Received::Nothing);
        };
        let time = tsc::now();
        let bytes = frame.len();
        let packet = match frame::parse(frame) {
            Ok(packet) => packet,
            Err(malformed) => return Ok(Received::malformed(malformed, delivery)),
        };
        let length = packet.payload.len();
        let (from, to) = (packet.header.source, packet.header.destination);
        let flow = self.flows.of(to);
        if length != 0 {
            delivery.replies += 1;
            delivery.replies_from_original += u64::from(from == self.server);
        }
        let Some(flow) = flow.filter(|_| from == self.server) else {
            return Err(Stop::Subject(format!(
                "a packet came from {from} to {to}, but the client sends to {}",
                self.server
            )));
        };
        let label = Label::of(packet.payload);
        let sound = label.is_some_and(|label| {
            label.flow == flow
                && label.sequence < sent
                && length == self.sizes.payload(label.sequence)
                && payload::is_intact(packet.payload, Kind::Answer, label)
        });
        delivery.bad_payload += u64::from(length != 0 && !sound);
        if let Transport::Tcp(segment) = packet.header.transport {
            self.observe(flow, segment, length)?;
        }
        Ok(match label {
            Some(Label { sequence, .. }) if sound => Received::Packet {
                number: sequence,
                time,
                bytes,
            },
            _ => Received::Other,
        })
    }

    /// Takes note of a segment of the server's.
    fn observe(&mut self, flow: u32, segment: Segment, length: usize) -> Result<(), Stop> {
        let Some(mut connection) = self.connection(flow) else {
            return Ok(());
        };
        if !segment.has(TcpFlags::SYN) {
            connection.observe(segment, length);
            self.put(flow, Some(&connection));
            return Ok(());
        }
        let place = flow as usize % self.places.len();
        let former = self.places[place];
        if former >= flow {
            // Its copy has come before.
            return Ok(());
        }
        connection
            .receive_syn_ack(segment)
            .map_err(|error| Stop::Subject(format!("at the client: {error}")))?;
        self.send_segment(&mut connection, TcpFlags::ACK)?;
        self.put(flow, Some(&connection));
        if let Some(mut old) = self.connection(former) {
            self.send_segment(&mut old, TcpFlags::RST | TcpFlags::ACK)?;
        }
        self.put(former, None);
        self.places[place] = flow;
        self.churned += 1;
        Ok(())
    }

    fn connection(&self, flow: u32) -> Option<Connection> {
        let numbers = self.book.as_ref()?.get(flow)?;
        let local = self.flows.client(flow);
        Some(Connection::new(local, self.server, numbers))
    }

    fn put(&mut self, flow: u32, connection: Option<&Connection>) {
        if let Some(book) = &mut self.book {
            book.put(flow, connection.map(Connection::numbers));
        }
    }

    fn send_segment(&mut self, connection: &mut Connection, flags: u8) -> Result<()> {
        let header = connection.send(flags, 0);
        self.channel.send(self.hop, &header, &[])
    }
}
