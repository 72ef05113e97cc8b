// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two first datagrams of one flow, sent by two CPUs at once: they are of one flow.
//!
//! nft does not promise that: if one of them is known to connection tracking just after the other was looked for, NAT
//! takes the client's port for another connection's, and gives the other datagram a port of its own
//! (nf_nat_used_tuple_new()). It arrives all the same.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::pinned::at_once;
use super::redirector::{beside_nft, Redirector};
use super::setup::{all_rules, client_address, original, sized, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{is_readable, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_guest::subjects::direct;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{ORIGINAL_PORT, ROUTER_SERVER_SIDE};

/// Sockets from which both threads send at once: on a plain kernel, on a debug kernel.
const SOCKETS: (usize, usize) = (1000, 200);
/// The same of those that are not redirected, where each is more likely to meet what it is to meet.
const DIRECT: (usize, usize) = (200, 100);
/// Contexts with rules that do not match.
const OTHERS: usize = 10;
/// Those of one turn, whose packets fit into the queue of the server's socket.
const TURN: usize = 50;

/// Where datagrams go that are not redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    /// To a server that a rule lets by.
    Bypassed,
    /// To the upstream itself.
    Upstream,
    /// To the router, from the router, by a rule that lets them by.
    Itself,
}

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::from(beside_nft(
        "first-datagrams",
        "the first two datagrams of a socket, sent by two CPUs at once, are of one flow",
        run,
    ));
    tests.extend(
        [
            ("bypassed", Direct::Bypassed, "to whom a rule lets by"),
            ("upstream", Direct::Upstream, "to the upstream itself"),
            ("itself", Direct::Itself, "of the router to itself"),
        ]
        .map(|(name, direct, what)| {
            GuestTest::new(
                format!("first-datagrams-{name}"),
                format!("the first two datagrams of a socket {what}, sent by two CPUs at once, both arrive"),
                move || direct_ones(direct),
            )
        }),
    );
    tests.into_iter().map(GuestTest::on_two_cpus).collect()
}

fn run(redirector: Redirector) -> Result<()> {
    for family in FAMILIES {
        for way in WAYS {
            let setup = Setup::new()?;
            let redirection = redirector.redirect(&setup, &all_rules())?;
            let server = udp(&setup.layout.server, upstream(family))?;
            let sockets = sized(SOCKETS.0, SOCKETS.1)? / WAYS.len();
            for turn in 0..sockets / TURN {
                let clients = (0..TURN)
                    .map(|_| udp(setup.client(way), client_address(way, family)))
                    .collect::<Result<Vec<_>>>()?;
                race(&clients, &server, original(family), redirector)
                    .with_context(|| format!("{family:?} {way:?}, turn {turn}"))?;
            }
            let flows = redirection.flows(&setup)?;
            let expected = (sockets / TURN * TURN) as u64;
            // Ports of sockets that were closed are used again.
            ensure!(
                redirector == Redirector::Nft || flows <= expected,
                "{family:?} {way:?}: {flows} flows of {expected} sockets"
            );
            drop(redirection);
            setup.finish()?;
        }
    }
    Ok(())
}

/// Connections that are not redirected, but of which the module keeps a flow.
fn direct_ones(direct: Direct) -> Result<()> {
    for family in FAMILIES {
        let ways: &[Way] = match direct {
            Direct::Itself => &[Way::Local],
            Direct::Bypassed | Direct::Upstream => &WAYS,
        };
        for &way in ways {
            let setup = Setup::new()?;
            let to = match direct {
                Direct::Bypassed => original(family),
                Direct::Upstream => upstream(family),
                Direct::Itself => ROUTER_SERVER_SIDE.socket(family, ORIGINAL_PORT),
            };
            // Asked first, they match nothing: meanwhile the other CPU may make the flow.
            let others = (0..OTHERS)
                .map(|_| setup.context(&others(family)))
                .collect::<Result<Vec<_>>>()?;
            let context = setup.context(&[passing(direct, family, to)])?;
            let at = match direct {
                Direct::Itself => &setup.layout.router,
                Direct::Bypassed | Direct::Upstream => &setup.layout.server,
            };
            let server = udp(at, to)?;
            let turns = sized(DIRECT.0, DIRECT.1)? / TURN;
            for turn in 0..turns {
                let clients = (0..TURN)
                    .map(|_| udp(setup.client(way), client_address(way, family)))
                    .collect::<Result<Vec<_>>>()?;
                race(&clients, &server, to, Redirector::Module)
                    .with_context(|| format!("{family:?} {way:?}, turn {turn}"))?;
            }
            let stats = context.stats()?;
            let sockets = (turns * TURN) as u64;
            ensure!(
                stats.flows_direct == stats.flows_created
                    && (1..=sockets).contains(&stats.flows_created)
                    && stats.packets_original == 0,
                "{family:?} {way:?}: expected direct flows only, of {sockets} sockets, got {stats:?}"
            );
            drop((context, others));
            setup.finish()?;
        }
    }
    Ok(())
}

/// The rule by which what goes to `to` is not redirected.
fn passing(direct: Direct, family: Family, to: SocketAddr) -> Rule {
    match direct {
        Direct::Bypassed | Direct::Itself => Rule::any(family, &[]).to(to),
        Direct::Upstream => Rule::any(family, &[context::upstream(upstream(family), 0)]),
    }
}

/// Rules for other destinations.
fn others(family: Family) -> Vec<Rule> {
    let upstreams = [context::upstream(upstream(family), 0)];
    let any = || Rule::any(family, &upstreams).over(Protocol::Udp);
    direct::others(family)
        .map(|(net, prefix)| any().towards(net, prefix))
        .collect()
}

/// Sends two datagrams from each socket at once to `to`; both must arrive, from the same address.
fn race(
    clients: &[UdpSocket],
    server: &UdpSocket,
    to: SocketAddr,
    redirector: Redirector,
) -> Result<()> {
    at_once(clients.len(), |cpu, number| {
        let message = [u8::try_from(number)?, u8::try_from(cpu)?];
        let sent = clients[number].send_to(&message, to);
        sent.map(drop).context("cannot send")
    })?;
    let mut seen: BTreeMap<u8, Vec<(u8, SocketAddr)>> = BTreeMap::new();
    for arrived in 0..2 * clients.len() {
        ensure!(
            is_readable(
                server,
                if arrived == 0 {
                    PATIENCE
                } else {
                    Duration::from_secs(2)
                }
            )?,
            "only {arrived} of {} datagrams arrived",
            2 * clients.len()
        );
        let mut message = [0; 2];
        let (_, from) = server.recv_from(&mut message)?;
        let [number, cpu] = message;
        seen.entry(number).or_default().push((cpu, from));
    }
    for (number, datagrams) in &seen {
        let client = clients[usize::from(*number)].local_addr()?;
        let mut from = datagrams.iter().map(|&(_, from)| from);
        let are_right = match redirector {
            Redirector::Module => from.all(|from| from == client),
            Redirector::Nft => from.any(|from| from == client),
        };
        ensure!(
            datagrams.len() == 2 && are_right,
            "of the socket {client} the upstream sees {datagrams:?}"
        );
    }
    // Who answers reaches the client.
    for client in clients {
        server.send_to(b"!", client.local_addr()?)?;
        ensure!(is_readable(client, PATIENCE)?, "the answer did not come");
        let (_, from) = client.recv_from(&mut [0; 2])?;
        ensure!(from == to, "the answer came from {from}");
    }
    Ok(())
}
