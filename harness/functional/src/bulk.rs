// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole streams arrive over links that lose, reorder or repeat packets.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::redirect::{switch_offloads, Offloads};
use super::setup::{client_address, ensure_no_loss, original, rule, upstream, Setup, FAMILIES};
use super::sockets::{accept, connect, exchange_streams, listen};
use super::GuestTest;
use mutexlab_guest::net::layout::{
    CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::netem::Netem;
use mutexlab_model::traffic::{Protocol, Way};

/// Bytes in each direction: enough for some hundred packets even if they are as large as offloads
/// make them.
const STREAM: usize = 1 << 20;

/// A bad link, and how it is known that it was bad.
#[derive(Clone, Copy)]
struct Link {
    name: &'static str,
    about: &'static str,
    netem: Netem,
    /// A counter of TCP's that does not stay zero: file, protocol, name.
    sign: (&'static str, &'static str, &'static str),
}

const NOTHING: Netem = Netem {
    loss: 0,
    duplicate: 0,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    slot: Duration::ZERO,
    rate: 0,
    limit: None,
    seed: 0,
};

const LINKS: [Link; 3] = [
    Link {
        name: "loss",
        about: "lose 2 % of the packets",
        netem: Netem { loss: 2, ..NOTHING },
        sign: ("snmp", "Tcp", "RetransSegs"),
    },
    Link {
        name: "reorder",
        about: "take 1 to 5 ms, so that packets overtake each other",
        netem: Netem {
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(2),
            ..NOTHING
        },
        sign: ("netstat", "TcpExt", "TCPOFOQueue"),
    },
    Link {
        name: "duplicate",
        about: "repeat 5 % of the packets",
        netem: Netem {
            duplicate: 5,
            ..NOTHING
        },
        sign: ("netstat", "TcpExt", "TCPDSACKOldSent"),
    },
];

/// One test for each sort of link, with offloads and without.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::new();
    for link in LINKS {
        for (suffix, with, offloads) in [
            ("", "", Offloads::On),
            (
                "-no-offload",
                ", checksums and segments by software",
                Offloads::Off,
            ),
        ] {
            let test = GuestTest::new(
                format!("bulk-{}{suffix}", link.name),
                format!(
                    "TCP streams arrive whole over links that {}{with}",
                    link.about
                ),
                move || run(link, offloads),
            );
            tests.push(test.on_debug());
        }
    }
    tests
}

fn run(link: Link, offloads: Offloads) -> Result<()> {
    let setup = Setup::new()?;
    switch_offloads(&setup, offloads)?;
    let layout = &setup.layout;
    for (seed, (namespace, end)) in (1..).zip([
        (&layout.client, &CLIENT_LINK),
        (&layout.router, &ROUTER_CLIENT_LINK),
        (&layout.router, &ROUTER_SERVER_LINK),
        (&layout.server, &SERVER_LINK),
    ]) {
        Netem { seed, ..link.netem }.apply(namespace, end)?;
    }
    let context = setup.context(&FAMILIES.map(|family| rule(Protocol::Tcp, family)))?;
    for family in FAMILIES {
        let server = listen(&layout.server, upstream(family))?;
        let from = client_address(Way::Forward, family);
        let client = connect(&layout.client, from, original(family))?;
        let (accepted, _) = accept(&server)?;
        exchange_streams(&client, &accepted, STREAM).with_context(|| format!("{family:?}"))?;
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == FAMILIES.len() as u64,
        "expected one flow for each connection, got {stats:?}"
    );
    let signs = tcp_counter(&layout.client, link.sign)? + tcp_counter(&layout.server, link.sign)?;
    ensure!(
        signs > 0,
        "{} stayed zero: the links were none that {}",
        link.sign.2,
        link.about
    );
    drop(context);
    setup.finish()
}

/// A counter of /proc/net/snmp or /proc/net/netstat, which have a line with names and one with
/// numbers for each protocol.
fn tcp_counter(namespace: &Namespace, sign: (&str, &str, &str)) -> Result<u64> {
    let (file, protocol, name) = sign;
    // Not /proc/net: that is the main thread's.
    let path = format!("/proc/thread-self/net/{file}");
    let text = namespace
        .run(|| fs::read_to_string(&path).with_context(|| format!("cannot read {path}")))?;
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, values) = (lines.next(), lines.next());
    names
        .into_iter()
        .zip(values)
        .flat_map(|(names, values)| names.split_whitespace().zip(values.split_whitespace()))
        .find(|(other, _)| *other == name)
        .with_context(|| format!("{path} has no {protocol} {name}"))?
        .1
        .parse()
        .with_context(|| format!("{protocol} {name} in {path} is no number"))
}
