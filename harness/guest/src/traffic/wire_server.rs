// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server on the wire: it is both upstream and original destination, checks whatever arrives
//! at either, and answers what it was asked.

use anyhow::Result;
use pnet::packet::tcp::TcpFlags;

use super::channel::Channel;
use super::flows::Flows;
use super::mischief::Prankster;
use super::payload::{self, Kind, Label};
use super::server::{Served, Server};
use super::sizes::Sizes;
use super::tcp::{Connection, Numbers};
use crate::net::layout::mac_of;
use crate::net::layout::{Layout, SERVER_LINK};
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::addresses::{ROUTER_SERVER_SIDE, WIRE_ORIGINAL, WIRE_UPSTREAM};
use mutexlab_protocol::Mischief;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Malformed, Transport, FRAME_MAX};

/// Answers the clients of some flows, one at a time.
pub struct Responder {
    channel: Channel,
    family: Family,
    target: Target,
    flows: Flows,
    sizes: Sizes,
    ends: Vec<End>,
    frames: u64,
    bytes: u64,
    prankster: Prankster,
    answer: Vec<u8>,
}

/// This end of a flow.
#[derive(Clone, Copy, Default)]
struct End {
    requests: u32,
    // Of the connection, while there is one.
    numbers: Option<Numbers>,
}

impl Responder {
    /// Starts to listen for the clients of `flows`, whose packets must arrive at `target`.
    pub fn new(layout: &Layout, traffic: &Traffic, flows: Flows, target: Target) -> Result<Self> {
        Ok(Self {
            channel: Channel::of(&layout.server, &SERVER_LINK, traffic)?,
            family: traffic.family,
            target,
            flows,
            sizes: Sizes::of(traffic),
            ends: vec![End::default(); flows.count() as usize],
            frames: 0,
            bytes: 0,
            prankster: Prankster::new(None),
            answer: vec![0; FRAME_MAX],
        })
    }

    /// Waits for one frame, which must be of the flow `flow`, and does what it asks for.
    fn serve(&mut self, flow: u32, delivery: &mut Delivery) -> Result<Served, Stop> {
        let end = self.ends[flow as usize];
        let macs = [mac_of(WIRE_UPSTREAM), mac_of(WIRE_ORIGINAL)];
        let Some(frame) = self.channel.receive(&macs)? else {
            return Err(Stop::lost(&format!(
                "the packet with request {} of flow {flow}",
                end.requests
            )));
        };
        self.frames += 1;
        self.bytes += frame.len() as u64;
        let packet = frame::parse(frame).map_err(|malformed| {
            if matches!(malformed, Malformed::Checksum(_)) {
                delivery.bad_checksum += 1;
            }
            Stop::Subject(format!("at the server: {malformed}"))
        })?;
        let (header, length) = (packet.header, packet.payload.len());
        let carries = !packet.payload.is_empty();
        let at = [Target::Upstream, Target::Original]
            .into_iter()
            .find(|target| target.socket(self.family) == header.destination);
        // A packet without payload counts only where it should not be.
        match at {
            Some(Target::Upstream) if carries || self.target != Target::Upstream => {
                delivery.at_upstream += 1;
            }
            Some(Target::Original) if carries || self.target != Target::Original => {
                delivery.at_original += 1;
            }
            _ => {}
        }
        let client = self.flows.client(flow);
        if at != Some(self.target) || header.source != client {
            let other = self.flows.of(header.source).filter(|&other| other != flow);
            return Err(Stop::Subject(format!(
                "a packet came from {}{} to {} instead of from {client} to {}",
                header.source,
                other.map_or(String::new(), |other| format!(" (flow {other})")),
                header.destination,
                self.target.socket(self.family)
            )));
        }
        if carries {
            let label = Label {
                flow,
                sequence: end.requests,
            };
            let fits = length == self.sizes.payload(label.number());
            if !fits || !payload::is_intact(packet.payload, Kind::Request, label) {
                delivery.bad_payload += 1;
                return Err(Stop::Subject(format!(
                    "request {} of flow {flow} has other bytes than were sent: {:?}",
                    end.requests,
                    Label::of(packet.payload)
                )));
            }
            payload::fill(&mut self.answer[..length], Kind::Answer, label);
            self.ends[flow as usize].requests += 1;
        }
        self.react(flow, &header, length)
    }

    /// The flow's connection, if there is one; whoever changes it puts it back.
    fn connection(&self, flow: u32) -> Option<Connection> {
        let numbers = self.ends[flow as usize].numbers?;
        let local = self.target.socket(self.family);
        Some(Connection::new(local, self.flows.client(flow), numbers))
    }

    fn put_back(&mut self, flow: u32, connection: &Connection) {
        self.ends[flow as usize].numbers = Some(connection.numbers());
    }

    fn react(&mut self, flow: u32, request: &Header, length: usize) -> Result<Served, Stop> {
        let Transport::Tcp(segment) = request.transport else {
            self.send(
                &Header {
                    source: request.destination,
                    destination: request.source,
                    transport: Transport::Udp,
                },
                length,
            )?;
            return Ok(Served::Answered);
        };
        if segment.flags == TcpFlags::SYN {
            let numbers = Numbers::of_server(&segment);
            let mut connection = Connection::new(request.destination, request.source, numbers);
            connection.synchronize(&segment);
            let header = connection.send(TcpFlags::SYN | TcpFlags::ACK, 0);
            self.put_back(flow, &connection);
            self.send(&header, 0)?;
            return Ok(Served::Opened);
        }
        let Some(mut connection) = self.connection(flow) else {
            return Err(Stop::Subject(format!(
                "a segment without connection: {segment:?}"
            )));
        };
        connection
            .receive(segment, length)
            .map_err(|error| Stop::Subject(format!("at the server: {error}")))?;
        if segment.has(TcpFlags::FIN) {
            let header = connection.send(TcpFlags::ACK, 0);
            self.ends[flow as usize].numbers = None;
            self.send(&header, 0)?;
            return Ok(Served::Closed);
        }
        if length == 0 {
            self.put_back(flow, &connection);
            return Ok(Served::Acknowledged);
        }
        let header = connection.send(TcpFlags::PSH | TcpFlags::ACK, length);
        self.put_back(flow, &connection);
        self.send(&header, length)?;
        Ok(Served::Answered)
    }

    fn send(&mut self, header: &Header, length: usize) -> Result<()> {
        let hop = Hop {
            source: mac_of(self.target.host()),
            destination: mac_of(ROUTER_SERVER_SIDE),
        };
        let answer = &self.answer[..length];
        match Label::of(answer).filter(|_| length != 0) {
            Some(label) => {
                self.prankster
                    .send(&mut self.channel, hop, header, answer, label.sequence)?;
                // Nobody waits for anything else.
                self.prankster.release_all(&mut self.channel)?;
            }
            None => self.channel.send(hop, header, answer)?,
        }
        self.frames += 1;
        Ok(())
    }
}

impl Server for Responder {
    fn serve_until(
        &mut self,
        flow: u32,
        wanted: Served,
        delivery: &mut Delivery,
    ) -> Result<(), Stop> {
        while self.serve(flow, delivery)? != wanted {}
        Ok(())
    }

    fn finish(&mut self, flow: u32, _: &mut Delivery) -> Result<(), Stop> {
        if let Some(mut connection) = self.connection(flow) {
            let header = connection.send(TcpFlags::FIN | TcpFlags::ACK, 0);
            self.put_back(flow, &connection);
            self.send(&header, 0)?;
        }
        Ok(())
    }

    fn packets(&self) -> u64 {
        self.frames
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn misbehave(&mut self, mischief: Option<Mischief>) {
        self.prankster = Prankster::new(mischief);
    }

    fn hand_over(self: Box<Self>) -> Vec<Numbers> {
        self.ends.iter().filter_map(|end| end.numbers).collect()
    }
}
