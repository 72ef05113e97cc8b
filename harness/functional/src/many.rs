// SPDX-License-Identifier: MIT OR Apache-2.0

//! Thousands of flows at once are kept apart.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{ensure, Context as _, Result};

use super::conversation;
use super::redirect::{switch_offloads, Offloads};
use super::setup::{
    allow_descriptors, client_address, ensure_no_loss, original, rule, sized, upstream,
    wait_for_flows, Setup, FAMILIES,
};
use super::sockets::{accept, connect_here, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, WIRE_CLIENT};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Transport};

/// Flows of UDP, each from a port of its own.
const FLOWS: u16 = 10_000;
/// The same on a debug kernel, where ten thousand take half a minute.
const FEWER_FLOWS: u16 = 3_000;
/// The first of these ports.
const FIRST_PORT: u16 = 20_000;
/// Requests under way at once: what fits into the queues of all sockets.
const BATCH: usize = 50;
/// Bytes of a datagram.
const LENGTH: usize = 32;

/// TCP connections, each of two sockets: on a plain kernel, on a debug kernel.
const CONNECTIONS: (usize, usize) = (4_000, 600);

/// Descriptors beside those of the connections.
const OTHER_DESCRIPTORS: usize = 1_000;

/// One test for each protocol and IP version.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::new();
    for family in FAMILIES {
        let version = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        tests.push(GuestTest::new(
            format!("many-udp-{version}"),
            format!(
                "{FLOWS} flows of UDP over IP{version} get their own answers, twice ({FEWER_FLOWS} on a debug kernel)"
            ),
            move || datagrams(family),
        ));
        tests.push(GuestTest::new(
            format!("many-tcp-{version}"),
            format!(
                "{} TCP connections over IP{version} are open at once ({} on a debug kernel)",
                CONNECTIONS.0, CONNECTIONS.1
            ),
            move || connections(family),
        ));
    }
    tests
}

fn datagrams(family: Family) -> Result<()> {
    let count = sized(FLOWS, FEWER_FLOWS)?;
    // Between two questions of a flow lie all the others, which on a busy machine take half a minute.
    let setup = Setup::with_parameters(&[
        ("udp_unreplied_timeout", "300"),
        ("udp_transient_timeout", "300"),
    ])?;
    // The client on the wire checks checksums, so nobody may leave them to a device.
    switch_offloads(&setup, Offloads::Off)?;
    let observer = setup.context(&[])?;
    let context = setup.context(&[rule(Protocol::Udp, family)])?;
    let server = udp(&setup.layout.server, upstream(family))?;
    let mut client = Client {
        channel: Channel::open(&setup.layout.client, &CLIENT_LINK, family)?,
        family,
    };
    let mut flows: Vec<u16> = (0..count).collect();
    for sequence in 0..2 {
        for batch in flows.chunks(BATCH) {
            client
                .send(batch, sequence)
                .and_then(|()| answer(&server, batch.len(), family))
                .and_then(|()| client.receive(batch, sequence))
                .with_context(|| format!("turn {sequence}, from flow {} on", batch[0]))?;
        }
        let stats = observer.stats()?;
        ensure_no_loss(&stats)?;
        ensure!(
            stats.flows_current == u64::from(count) && stats.flows_created == u64::from(count),
            "expected {count} flows after turn {sequence}, got {stats:?}"
        );
        // In another order than they were made.
        flows.reverse();
    }
    drop(context);
    wait_for_flows(&observer, 0)?;
    drop(observer);
    setup.finish()
}

struct Client {
    channel: Channel,
    family: Family,
}

impl Client {
    fn address(&self, flow: u16) -> SocketAddr {
        WIRE_CLIENT.socket(self.family, FIRST_PORT + flow)
    }

    /// Sends a request of each of `flows`.
    fn send(&mut self, flows: &[u16], sequence: u32) -> Result<()> {
        let hop = Hop {
            source: mac_of(WIRE_CLIENT),
            destination: mac_of(ROUTER_CLIENT_SIDE),
        };
        for &flow in flows {
            let header = Header {
                source: self.address(flow),
                destination: original(self.family),
                transport: Transport::Udp,
            };
            let mut request = [0; LENGTH];
            payload::fill(&mut request, Kind::Request, label(flow, sequence));
            self.channel.send(hop, &header, &request)?;
        }
        Ok(())
    }

    /// Takes an answer for each of `flows`, in any order.
    fn receive(&mut self, flows: &[u16], sequence: u32) -> Result<()> {
        let mut missing: BTreeSet<u16> = flows.iter().copied().collect();
        while !missing.is_empty() {
            let frame = self.channel.receive(&[mac_of(WIRE_CLIENT)])?;
            let frame = frame
                .with_context(|| format!("{} answers did not come: {missing:?}", missing.len()))?;
            let packet = frame::parse(frame).context("an answer")?;
            let flow = packet
                .header
                .destination
                .port()
                .checked_sub(FIRST_PORT)
                .filter(|flow| missing.remove(flow))
                .with_context(|| {
                    let header = packet.header;
                    format!("{header:?} came, which no flow waits for")
                })?;
            let header = packet.header;
            ensure!(
                header.source == original(self.family)
                    && payload::is_intact(packet.payload, Kind::Answer, label(flow, sequence))
                    && packet.payload.len() == LENGTH,
                "flow {flow} got {header:?} with {:?}",
                Label::of(packet.payload)
            );
        }
        Ok(())
    }
}

fn label(flow: u16, sequence: u32) -> Label {
    Label {
        flow: flow.into(),
        sequence,
    }
}

/// Answers the next `count` requests, which must show the ports of their flows.
fn answer(server: &UdpSocket, count: usize, family: Family) -> Result<()> {
    let mut buffer = [0; 2048];
    for arrived in 0..count {
        ensure!(
            is_readable(server, PATIENCE)?,
            "only {arrived} of {count} requests arrived at the upstream"
        );
        let (length, seen) = server.recv_from(&mut buffer)?;
        let message = &mut buffer[..length];
        let label = Label::of(message)
            .filter(|&label| length == LENGTH && payload::is_intact(message, Kind::Request, label))
            .with_context(|| format!("a damaged request of {length} bytes from {seen}"))?;
        let expected = u16::try_from(label.flow).unwrap_or_default() + FIRST_PORT;
        ensure!(
            seen == WIRE_CLIENT.socket(family, expected),
            "the upstream sees flow {} as {seen}; expected port {expected}",
            label.flow
        );
        payload::fill(message, Kind::Answer, label);
        server.send_to(message, seen)?;
    }
    Ok(())
}

fn connections(family: Family) -> Result<()> {
    let count = sized(CONNECTIONS.0, CONNECTIONS.1)?;
    allow_descriptors(2 * count + OTHER_DESCRIPTORS)?;
    let setup = Setup::new()?;
    let observer = setup.context(&[])?;
    let context = setup.context(&[rule(Protocol::Tcp, family)])?;
    let server = listen(&setup.layout.server, upstream(family))?;
    let from = client_address(Way::Forward, family);
    // All by one thread: to start one for each would take longer than the test.
    let mut connections = setup.layout.client.run(|| {
        (0..count)
            .map(|number| {
                let client = connect_here(from, original(family))
                    .with_context(|| format!("connection {number}"))?;
                let (accepted, seen) = accept(&server)?;
                ensure!(
                    seen == client.local_addr()?,
                    "the upstream sees connection {number} as {seen}"
                );
                Ok((client, accepted))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    for sequence in 0..2 {
        for (number, (client, accepted)) in connections.iter().enumerate() {
            let label = Label {
                flow: number as u32,
                sequence,
            };
            conversation::pass(client, accepted, Kind::Request, label)?;
            conversation::pass(accepted, client, Kind::Answer, label)?;
        }
        connections.reverse();
    }
    let stats = observer.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_current == count as u64,
        "expected {count} flows, got {stats:?}"
    );
    drop(context);
    wait_for_flows(&observer, 0)?;
    drop(observer);
    setup.finish()
}
