// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server's end of an open loop: it answers whatever comes, and counts.

use std::time::Duration;

use anyhow::Result;
use pnet::packet::tcp::TcpFlags;

use super::super::channel::Channel;
use super::super::flows::Flows;
use super::super::mischief::Prankster;
use super::super::payload::{self, Kind, Label};
use super::super::sizes::Sizes;
use super::super::tcp::{Connection, Numbers};
use super::book::Book;
use super::received::Received;
use crate::kernel::tsc;
use crate::net::cable::Wire;
use crate::net::layout::mac_of;
use crate::net::layout::SERVER_LINK;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Protocol, Traffic};
use mutexlab_protocol::addresses::{WIRE_ORIGINAL, WIRE_UPSTREAM};
use mutexlab_protocol::Mischief;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport, FRAME_MAX};

/// Takes requests and sends answers.
pub struct Sink {
    /// Where frames come and go.
    pub channel: Channel,
    hop: Hop,
    family: Family,
    target: Target,
    flows: Flows,
    sizes: Sizes,
    // None if flows are no connections.
    book: Option<Book>,
    prankster: Prankster,
    answer: Vec<u8>,
}

impl Sink {
    /// Opens the server's channel.
    pub fn new(
        wire: &Wire<'_>,
        traffic: &Traffic,
        connections: Vec<Numbers>,
        mischief: Option<Mischief>,
    ) -> Result<Self> {
        Ok(Self {
            channel: Channel::with_patience(
                wire.server,
                &SERVER_LINK,
                traffic.family,
                Duration::ZERO,
            )?,
            hop: wire.to_client,
            family: traffic.family,
            target: wire.target,
            flows: Flows::in_all(traffic),
            sizes: Sizes::of(traffic),
            book: match traffic.protocol {
                Protocol::Tcp => Some(Book::new(connections)),
                Protocol::Udp => None,
            },
            prankster: Prankster::new(mischief),
            answer: vec![0; FRAME_MAX],
        })
    }

    /// When an answer is to be sent that was put off; `None` if none was.
    pub fn due(&self) -> Option<u64> {
        self.prankster.due()
    }

    /// Sends what was put off until `now`.
    pub fn release(&mut self, now: u64) -> Result<()> {
        self.prankster.release(&mut self.channel, now)
    }

    /// Takes a frame, if one is there, of a stream of which `sent` packets were sent, and answers it.
    pub fn receive(&mut self, sent: u32, delivery: &mut Delivery) -> Result<Received, Stop> {
        let macs = [mac_of(WIRE_UPSTREAM), mac_of(WIRE_ORIGINAL)];
        let Some(frame) = self.channel.receive(&macs)? else {
            return Ok(Received::Nothing);
        };
        let time = tsc::now();
        let bytes = frame.len();
        let packet = match frame::parse(frame) {
            Ok(packet) => packet,
            Err(malformed) => return Ok(Received::malformed(malformed, delivery)),
        };
        let (header, length) = (packet.header, packet.payload.len());
        let at = |target: Target| target.socket(self.family) == header.destination;
        if length != 0 {
            delivery.at_upstream += u64::from(at(Target::Upstream));
            delivery.at_original += u64::from(at(Target::Original));
        }
        let flow = self.flows.of(header.source);
        let Some(flow) = flow.filter(|_| at(self.target)) else {
            return Err(Stop::Subject(format!(
                "a packet came from {} to {} instead of to {}",
                header.source,
                header.destination,
                self.target.socket(self.family)
            )));
        };
        let label = Label::of(packet.payload);
        let sound = label.filter(|&label| {
            label.flow == flow
                && label.sequence < sent
                && length == self.sizes.payload(label.sequence)
                && payload::is_intact(packet.payload, Kind::Request, label)
        });
        delivery.bad_payload += u64::from(length != 0 && sound.is_none());
        let answer = match header.transport {
            Transport::Udp => Some(Header {
                source: header.destination,
                destination: header.source,
                transport: Transport::Udp,
            }),
            Transport::Tcp(segment) => self.observe(flow, &header, segment, length)?,
        };
        let Some(label) = sound else {
            return Ok(Received::Other);
        };
        if let Some(header) = answer {
            let answer = &mut self.answer[..length];
            payload::fill(answer, Kind::Answer, label);
            let (number, channel) = (label.sequence, &mut self.channel);
            self.prankster
                .send(channel, self.hop, &header, answer, number)?;
        }
        Ok(Received::Packet {
            number: label.sequence,
            time,
            bytes,
        })
    }

    /// Takes note of a segment of the client's. Gives what to answer with, if it carries a request of
    /// a connection that is there.
    fn observe(
        &mut self,
        flow: u32,
        header: &Header,
        segment: Segment,
        length: usize,
    ) -> Result<Option<Header>> {
        let Some(book) = &mut self.book else {
            return Ok(None);
        };
        let (local, remote) = (header.destination, header.source);
        if segment.has(TcpFlags::RST) {
            book.put(flow, None);
            return Ok(None);
        }
        if segment.has(TcpFlags::SYN) {
            let mut connection = Connection::new(local, remote, Numbers::of_server(&segment));
            connection.synchronize(&segment);
            let header = connection.send(TcpFlags::SYN | TcpFlags::ACK, 0);
            book.put(flow, Some(connection.numbers()));
            self.channel.send(self.hop, &header, &[])?;
            return Ok(None);
        }
        let Some(numbers) = book.get(flow) else {
            return Ok(None);
        };
        let mut connection = Connection::new(local, remote, numbers);
        connection.observe(segment, length);
        let flags = TcpFlags::PSH | TcpFlags::ACK;
        let answer = (length != 0).then(|| connection.send(flags, length));
        book.put(flow, Some(connection.numbers()));
        Ok(answer)
    }
}
