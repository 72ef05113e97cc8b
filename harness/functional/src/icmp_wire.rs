// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors as they are on the wire, right and forged, before and after.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use pnet::packet::tcp::TcpFlags;

use super::icmp::ensure_translated;
use super::setup::{Setup, FAMILIES, PROTOCOLS};
use super::untouched::forwarded;
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::icmp::Report;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    Host, CLIENT, CLIENT_PORT, ORIGINAL, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE,
    UPSTREAM, UPSTREAM_PORT, WIRE_CLIENT, WIRE_ORIGINAL, WIRE_UPSTREAM,
};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport, FRAME_MAX};

const ETHERNET: usize = 14;

/// The tests of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "icmp-on-the-wire",
            "errors about packets of flows arrive as if there were no redirect, byte for byte",
            on_the_wire,
        ),
        GuestTest::single(
            "icmp-forged",
            "errors about no packet of a flow, or to another than its sender, pass untouched",
            forged,
        ),
        GuestTest::single(
            "icmp-no-news",
            "errors do not keep a flow from timing out",
            no_news,
        ),
        GuestTest::single(
            "icmp-of-the-router",
            "the router's own errors about answers go to the upstream",
            of_the_router,
        ),
    ]
}

/// Two machines on the wire, and a redirected packet between them.
struct Wire {
    family: Family,
    client: Channel,
    server: Channel,
    transport: Transport,
}

impl Wire {
    /// Sends the packet, which must be redirected.
    fn open(setup: &Setup, family: Family, transport: Transport) -> Result<Self> {
        let mut wire = Self {
            family,
            client: Channel::open(&setup.layout.client, &CLIENT_LINK, family)?,
            server: Channel::open(&setup.layout.server, &SERVER_LINK, family)?,
            transport,
        };
        wire.client.send(towards_server(), &wire.sent(), b"hello")?;
        let expected = wire.arrived();
        let arrived = wire.server.receive(&[mac_of(WIRE_UPSTREAM)])?;
        let arrived = frame::parse(arrived.context("the packet did not arrive")?)?;
        ensure!(arrived.header == expected, "got {arrived:?}");
        Ok(wire)
    }

    /// The packet that the client sent.
    fn sent(&self) -> Header {
        Header {
            source: WIRE_CLIENT.socket(self.family, CLIENT_PORT),
            destination: WIRE_ORIGINAL.socket(self.family, ORIGINAL_PORT),
            transport: self.transport,
        }
    }

    /// What arrives of it.
    fn arrived(&self) -> Header {
        Header {
            destination: WIRE_UPSTREAM.socket(self.family, UPSTREAM_PORT),
            ..self.sent()
        }
    }

    /// An error from `from` to the sender of `about`.
    fn report(&self, from: Host, about: Header) -> Result<Report> {
        let mut buffer = [0; FRAME_MAX];
        let packet = frame::build(&mut buffer, towards_server(), &about, b"what went wrong")?;
        Ok(Report {
            from: from.address(self.family),
            to: about.source.ip(),
            kind: Report::unreachable(self.family),
            code: 1,
            about: packet[ETHERNET..].to_vec(),
        })
    }

    /// Sends a frame from the server's net; what comes to `host` on the client's.
    fn send_to_client(&mut self, report: &Report, host: Host) -> Result<(Vec<u8>, Vec<u8>)> {
        let frame = report.build(towards_client())?;
        self.server.send_frame(&frame)?;
        let arrived = self.client.receive(&[mac_of(host)])?;
        Ok((frame, arrived.context("nothing arrived")?.to_vec()))
    }

    /// Sends a frame from the client's net; what comes to `host` on the server's.
    fn send_to_server(&mut self, report: &Report, host: Host) -> Result<(Vec<u8>, Vec<u8>)> {
        let frame = report.build(towards_server())?;
        self.client.send_frame(&frame)?;
        let arrived = self.server.receive(&[mac_of(host)])?;
        Ok((frame, arrived.context("nothing arrived")?.to_vec()))
    }
}

fn towards_server() -> Hop {
    Hop {
        source: mac_of(WIRE_CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    }
}

fn towards_client() -> Hop {
    Hop {
        source: mac_of(WIRE_UPSTREAM),
        destination: mac_of(ROUTER_SERVER_SIDE),
    }
}

fn reversed(header: Header) -> Header {
    Header {
        source: header.destination,
        destination: header.source,
        ..header
    }
}

/// Redirects what goes over the wire.
fn wire_rules() -> Vec<context::Rule> {
    let rules = PROTOCOLS.into_iter().flat_map(|protocol| {
        FAMILIES.map(|family| {
            context::redirect(
                protocol,
                WIRE_ORIGINAL.socket(family, ORIGINAL_PORT),
                WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
            )
        })
    });
    rules.collect()
}

/// Redirects one packet of each protocol and IP version, and then does `work`.
fn with_flows(work: impl Fn(&mut Wire) -> Result<u64>) -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&wire_rules())?;
    let syn = Transport::Tcp(Segment {
        sequence: 1,
        acknowledgement: 0,
        flags: TcpFlags::SYN,
    });
    let mut translated = 0;
    for family in FAMILIES {
        for transport in [Transport::Udp, syn] {
            let mut wire = Wire::open(&setup, family, transport)?;
            let before = context.stats()?;
            translated += work(&mut wire).with_context(|| format!("{family:?}, {transport:?}"))?;
            let mut after = context.stats()?;
            ensure_translated(after.icmp_translated, translated)?;
            after.icmp_translated = before.icmp_translated;
            ensure!(before == after, "{before:?} became {after:?}");
        }
    }
    drop(context);
    setup.finish()
}

fn on_the_wire() -> Result<()> {
    with_flows(|wire| {
        let (sent, arrived) = (wire.sent(), wire.arrived());
        let mut count = 0;
        // All of the packet, or the eight bytes of its transport's header that there have to be.
        let network = match wire.family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        for length in [usize::MAX, network + 8] {
            let cut = |mut report: Report| {
                report.about.truncate(length);
                report
            };
            // The upstream itself, and a router before it.
            for (from, seen) in [(WIRE_UPSTREAM, WIRE_ORIGINAL), (UPSTREAM, UPSTREAM)] {
                let report = cut(wire.report(from, arrived)?);
                let (_, frame) = wire.send_to_client(&report, WIRE_CLIENT)?;
                ensure_same(&Report::parse(&frame)?, &cut(wire.report(seen, sent)?))?;
                count += 1;
            }
            for from in [WIRE_CLIENT, CLIENT] {
                let report = cut(wire.report(from, reversed(sent))?);
                let (_, frame) = wire.send_to_server(&report, WIRE_UPSTREAM)?;
                let expected = cut(wire.report(from, reversed(arrived))?);
                ensure_same(&Report::parse(&frame)?, &expected)?;
                count += 1;
            }
        }
        Ok(count)
    })
}

fn ensure_same(found: &Report, expected: &Report) -> Result<()> {
    ensure!(
        found == expected,
        "expected {expected:02x?}, got {found:02x?}"
    );
    Ok(())
}

fn forged() -> Result<()> {
    with_flows(|wire| {
        let (sent, arrived) = (wire.sent(), wire.arrived());
        let genuine = wire.report(WIRE_UPSTREAM, arrived)?;
        let other_kind = match wire.family {
            // Source quench; a type that is none.
            Family::V4 => 4,
            Family::V6 => 100,
        };
        let with = |change: &dyn Fn(&mut Report)| {
            let mut report = genuine.clone();
            change(&mut report);
            report
        };
        let mut other_port = arrived;
        other_port.source.set_port(CLIENT_PORT + 2);
        let mut samples = vec![
            ("another port", wire.report(WIRE_UPSTREAM, other_port)?),
            ("the untranslated packet", wire.report(WIRE_UPSTREAM, sent)?),
            ("no error", with(&|report| report.kind = other_kind)),
            (
                "another protocol within",
                with(&|report| report.about[if report.from.is_ipv4() { 9 } else { 6 }] = 132),
            ),
            (
                "seven bytes of a header",
                with(&|report| {
                    let network = if report.from.is_ipv4() { 20 } else { 40 };
                    report.about.truncate(network + 7);
                }),
            ),
            ("no packet", with(&|report| report.about.clear())),
        ];
        if wire.family == Family::V4 {
            let fragment = with(&|report| report.about[7] = 1);
            samples.push(("a later fragment", fragment));
        }
        for (what, report) in &samples {
            let (frame, found) = wire.send_to_client(report, WIRE_CLIENT)?;
            ensure_untouched(what, wire.family, &frame, &found)?;
        }
        let elsewhere = with(&|report| report.to = CLIENT.address(wire.family));
        let (frame, found) = wire.send_to_client(&elsewhere, CLIENT)?;
        ensure_untouched("to another", wire.family, &frame, &found)?;
        let wrong_way = wire.report(WIRE_CLIENT, reversed(arrived))?;
        let (frame, found) = wire.send_to_server(&wrong_way, WIRE_UPSTREAM)?;
        ensure_untouched("about a packet that came", wire.family, &frame, &found)?;
        let elsewhere = Report {
            to: ORIGINAL.address(wire.family),
            ..wire.report(WIRE_CLIENT, reversed(sent))?
        };
        let (frame, found) = wire.send_to_server(&elsewhere, ORIGINAL)?;
        ensure_untouched("to another server", wire.family, &frame, &found)?;
        Ok(0)
    })
}

fn ensure_untouched(what: &str, family: Family, sent: &[u8], found: &[u8]) -> Result<()> {
    let expected = forwarded(sent, family)?;
    ensure!(
        found[ETHERNET..] == expected,
        "{what}: expected {expected:02x?}, got {:02x?}",
        &found[ETHERNET..]
    );
    Ok(())
}

/// An error of the router's own, about a packet to its client, finds the way to the upstream.
fn of_the_router() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&wire_rules())?;
    for family in FAMILIES {
        let mut wire = Wire::open(&setup, family, Transport::Udp)?;
        let answer = reversed(wire.arrived());
        let mut buffer = [0; FRAME_MAX];
        let frame = frame::build(&mut buffer, towards_client(), &answer, b"too late")?;
        let mut frame = frame.to_vec();
        // Until it has one hop to live.
        for _ in 1..64 {
            let packet = forwarded(&frame, family)?;
            frame.splice(ETHERNET.., packet);
        }
        wire.server.send_frame(&frame)?;
        let frame = wire.server.receive(&[mac_of(WIRE_UPSTREAM)])?;
        let frame = frame.context("no error came")?;
        let report = Report::parse(frame)?;
        let about = [&frame[..ETHERNET], &report.about].concat();
        let about = frame::parse(&about).context("the packet that the error is about")?;
        ensure!(
            report.to == answer.source.ip() && about.header == answer,
            "{family:?}: got {report:?}"
        );
    }
    ensure_translated(context.stats()?.icmp_translated, FAMILIES.len() as u64)?;
    drop(context);
    setup.finish()
}

fn no_news() -> Result<()> {
    let setup = Setup::with_parameters(&[
        ("udp_timeout", "1"),
        ("udp_unreplied_timeout", "1"),
        ("gc_interval", "1"),
    ])?;
    let context = setup.context(&wire_rules())?;
    let mut wire = Wire::open(&setup, Family::V4, Transport::Udp)?;
    let reports = [
        wire.report(WIRE_UPSTREAM, wire.arrived())?
            .build(towards_client())?,
        wire.report(WIRE_CLIENT, reversed(wire.sent()))?
            .build(towards_server())?,
    ];
    let deadline = Instant::now() + Duration::from_secs(10);
    while context.stats()?.flows_current != 0 {
        ensure!(Instant::now() < deadline, "errors keep the flow alive");
        wire.server.send_frame(&reports[0])?;
        wire.client.send_frame(&reports[1])?;
        thread::sleep(Duration::from_millis(50));
    }
    let translated = context.stats()?.icmp_translated;
    ensure!(
        translated > 2,
        "only {translated} errors came while there was a flow"
    );
    drop(context);
    setup.finish()
}
