// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handshakes of TCP that are not the usual three segments.

use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use pnet::packet::tcp::TcpFlags;

use super::ends::{Arrived, Ends};
use super::redirector::{beside_nft, Redirector, TimeOut};
use super::setup::{Setup, FAMILIES};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::tcp::{Connection, Numbers};
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{
    ORIGINAL_PORT, UPSTREAM_PORT, WIRE_CLIENT, WIRE_ORIGINAL, WIRE_UPSTREAM,
};
use mutexlab_wire::frame::{Header, Segment, Transport};

/// The client's port.
const PORT: u16 = 40_500;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
/// Longer than flows live that are opening, or closed.
const IDLE: Duration = Duration::from_millis(3500);
/// Seconds that no flow is idle for.
const LONG: u32 = 1000;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::from(beside_nft(
        "simultaneous-open",
        "two ends that open a connection to each other at once establish it",
        simultaneous_open,
    ));
    // Connection tracking takes such a RST for the connection's end, and so is nothing to go by.
    tests.push(GuestTest::single(
        "reset-before-the-answer",
        "a forged RST between SYN and SYN-ACK does not end a connection",
        reset_before_the_answer,
    ));
    tests
}

/// Both ends of a connection on the wire, and what is said between them.
struct Talk {
    ends: Ends,
    family: Family,
    client: Connection,
    server: Connection,
}

impl Talk {
    fn open(setup: &Setup, family: Family) -> Result<Self> {
        let client = WIRE_CLIENT.socket(family, PORT);
        Ok(Self {
            ends: Ends::open(setup, family)?,
            family,
            client: Connection::new(
                client,
                WIRE_ORIGINAL.socket(family, ORIGINAL_PORT),
                Numbers::new(0x8000_1000),
            ),
            server: Connection::new(
                WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
                client,
                Numbers::new(0x7fff_f000),
            ),
        })
    }

    /// Sends a segment of the client's; what arrives at the upstream.
    fn forth(&mut self, header: Header, payload: &[u8]) -> Result<Segment> {
        self.ends.send(&header, payload)?;
        let arrived = self.ends.arrived()?;
        let arrived = arrived.with_context(|| format!("{header:?} did not arrive"))?;
        let expected = Header {
            destination: WIRE_UPSTREAM.socket(self.family, UPSTREAM_PORT),
            ..header
        };
        same(&arrived, &expected, payload)
    }

    /// Sends a segment of the upstream's; what arrives at the client.
    fn back(&mut self, header: Header, payload: &[u8]) -> Result<Segment> {
        self.ends.send_back(&header, payload)?;
        let arrived = self.ends.came_back()?;
        let arrived = arrived.with_context(|| format!("{header:?} did not arrive"))?;
        let expected = Header {
            source: WIRE_ORIGINAL.socket(self.family, ORIGINAL_PORT),
            ..header
        };
        same(&arrived, &expected, payload)
    }

    /// Some data in both directions.
    fn say(&mut self) -> Result<()> {
        for _ in 0..3 {
            let data = self.client.send(ACK, 4);
            let segment = self.forth(data, b"ping")?;
            self.server.receive(segment, 4)?;
            let data = self.server.send(ACK, 4);
            let segment = self.back(data, b"pong")?;
            self.client.receive(segment, 4)?;
        }
        Ok(())
    }
}

fn same(arrived: &Arrived, expected: &Header, payload: &[u8]) -> Result<Segment> {
    ensure!(
        arrived.header == *expected && arrived.payload == payload,
        "{arrived:?} arrived; expected {expected:?} with {payload:?}"
    );
    match arrived.header.transport {
        Transport::Tcp(segment) => Ok(segment),
        Transport::Udp => anyhow::bail!("UDP arrived"),
    }
}

/// RFC 9293, figure 7.
fn simultaneous_open(redirector: Redirector) -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
        let redirection = redirector.redirect(&setup, &[rule(family)])?;
        redirector.set_time_out(&setup, TimeOut::Syn, 1)?;
        let attempt = || -> Result<()> {
            let mut talk = Talk::open(&setup, family)?;
            let syn = talk.client.send(SYN, 0);
            let syn = talk.forth(syn, &[])?;
            let other = talk.server.send(SYN, 0);
            let other = talk.back(other, &[])?;
            // Each has sent its SYN before the other's came, and now acknowledges that with its own
            // again.
            talk.client.synchronize(&other);
            talk.server.synchronize(&syn);
            let again = |header: Header, sequence: u32| match header.transport {
                Transport::Tcp(segment) => Header {
                    transport: Transport::Tcp(Segment {
                        sequence,
                        flags: SYN | ACK,
                        ..segment
                    }),
                    ..header
                },
                Transport::Udp => header,
            };
            let answer = again(talk.client.clone().send(ACK, 0), syn.sequence);
            talk.forth(answer, &[]).context("the client's SYN-ACK")?;
            let answer = again(talk.server.clone().send(ACK, 0), other.sequence);
            talk.back(answer, &[]).context("the server's SYN-ACK")?;
            talk.say()?;
            thread::sleep(IDLE);
            talk.say().context("after a while")
        };
        attempt().with_context(|| format!("{family:?}"))?;
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

fn rule(family: Family) -> context::Rule {
    context::redirect(
        Protocol::Tcp,
        WIRE_ORIGINAL.socket(family, ORIGINAL_PORT),
        WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
    )
}

/// A RST of somebody who does not know the numbers, with some that are all too easily guessed.
fn reset_before_the_answer() -> Result<()> {
    for family in FAMILIES {
        for sequence in [0, 1, 0x7fff_ffff] {
            let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
            let context = setup.context(&[rule(family)])?;
            for (parameter, seconds) in [
                ("tcp_established_timeout", LONG),
                ("tcp_syn_timeout", LONG),
                ("tcp_close_timeout", 1),
            ] {
                setup.set(parameter, seconds)?;
            }
            let mut talk = Talk::open(&setup, family)?;
            let syn = talk.client.send(SYN, 0);
            let syn = talk.forth(syn, &[])?;
            talk.server.synchronize(&syn);
            let forged = Header {
                transport: Transport::Tcp(Segment {
                    sequence,
                    acknowledgement: 0,
                    flags: TcpFlags::RST,
                }),
                ..talk.client.clone().send(ACK, 0)
            };
            talk.ends.send(&forged, &[])?;
            // Whether it is passed on is no matter here.
            talk.ends.arrived()?;
            let answer = talk.server.send(SYN | ACK, 0);
            let answer = talk.back(answer, &[])?;
            talk.client.receive_syn_ack(answer)?;
            let last = talk.client.send(ACK, 0);
            let last = talk.forth(last, &[])?;
            talk.server.receive(last, 0)?;
            talk.say()?;
            thread::sleep(IDLE);
            let flows = context.stats()?.flows_current;
            ensure!(
                flows == 1,
                "{family:?}: after a RST with sequence number {sequence} an established connection \
                 was forgotten as if it were closed"
            );
            talk.say().context("after a while")?;
            drop(context);
            setup.finish()?;
        }
    }
    Ok(())
}
