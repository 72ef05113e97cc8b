// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client that speaks to the upstream directly and by redirection, from one port: the upstream
//! has to tell both apart, and so does the router when they answer.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{ensure, Context as _, Result};

use super::redirector::{beside_nft, Redirector};
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{accept, answer, connect, exchange_streams, listen, send, udp};
use super::GuestTest;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Way};

/// The client's port.
const PORT: u16 = 41_000;
/// Bytes over a TCP connection in each direction.
const STREAM: usize = 100_000;

/// Which of the two comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Direct,
    Redirected,
}

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    [
        beside_nft(
            "upstream-itself-udp",
            "datagrams of one port to the upstream, directly and redirected, get their own answers",
            |redirector| in_every_order(redirector, datagrams),
        ),
        beside_nft(
            "upstream-itself-tcp",
            "connections of one port to the upstream, directly and redirected, both live",
            |redirector| in_every_order(redirector, connections),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn in_every_order(
    redirector: Redirector,
    talk: fn(&Setup, Family, Way, First) -> Result<()>,
) -> Result<()> {
    for family in FAMILIES {
        for way in WAYS {
            for first in [First::Direct, First::Redirected] {
                let setup = Setup::new()?;
                let redirection = redirector.redirect(&setup, &all_rules())?;
                talk(&setup, family, way, first)
                    .with_context(|| format!("{family:?} {way:?}, first {first:?}"))?;
                drop(redirection);
                setup.finish()?;
            }
        }
    }
    Ok(())
}

fn datagrams(setup: &Setup, family: Family, way: Way, first: First) -> Result<()> {
    let mut from = client_address(way, family);
    from.set_port(PORT);
    let server = udp(&setup.layout.server, upstream(family))?;
    let client = udp(setup.client(way), from)?;
    let mut targets = [upstream(family), original(family)];
    if first == First::Redirected {
        targets.reverse();
    }
    let seen = [
        ask(&client, &server, targets[0], 0)?,
        ask(&client, &server, targets[1], 0)?,
    ];
    ensure!(
        seen[0] != seen[1],
        "the upstream sees both as {}; expected two ports",
        seen[0]
    );
    for number in [1, 0] {
        let to = targets[number];
        answer(&server, seen[number], &client, to, label(to, 0), 64)?;
    }
    // Both go on as they began.
    for number in [0, 1] {
        let to = targets[number];
        let now = ask(&client, &server, to, 1)?;
        ensure!(
            now == seen[number],
            "the upstream saw {} and now sees {now}",
            seen[number]
        );
        answer(&server, now, &client, to, label(to, 1), 64)?;
    }
    Ok(())
}

/// Sends a datagram; returns whom the upstream sees.
fn ask(
    client: &UdpSocket,
    server: &UdpSocket,
    to: SocketAddr,
    sequence: u32,
) -> Result<SocketAddr> {
    send(client, to, server, label(to, sequence), 64)
}

fn label(to: SocketAddr, sequence: u32) -> Label {
    Label {
        flow: to.port().into(),
        sequence,
    }
}

fn connections(setup: &Setup, family: Family, way: Way, first: First) -> Result<()> {
    let mut from = client_address(way, family);
    from.set_port(PORT);
    let listener = listen(&setup.layout.server, upstream(family))?;
    let mut targets = [upstream(family), original(family)];
    if first == First::Redirected {
        targets.reverse();
    }
    let mut ends = Vec::new();
    for to in targets {
        let client = connect(setup.client(way), from, to)?;
        ends.push((client, accept(&listener)?));
    }
    ensure!(
        ends[0].1 .1 != ends[1].1 .1,
        "the upstream sees both as {}; expected two ports",
        ends[0].1 .1
    );
    for (client, (server, seen)) in ends.iter().rev() {
        exchange_streams(client, server, STREAM).with_context(|| {
            format!(
                "connection to {}, seen as {seen}",
                client
                    .peer_addr()
                    .map_or_else(|error| error.to_string(), |peer| peer.to_string())
            )
        })?;
    }
    Ok(())
}
