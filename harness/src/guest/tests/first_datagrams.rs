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
use crate::guest::protocol::Family;

/// Sockets from which both threads send at once: on a plain kernel, on a debug kernel.
const SOCKETS: (usize, usize) = (1000, 200);
/// Those of one turn, whose packets fit into the queue of the server's socket.
const TURN: usize = 50;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    beside_nft(
        "first-datagrams",
        "the first two datagrams of a socket, sent by two CPUs at once, are of one flow",
        run,
    )
    .into()
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
                race(&clients, &server, family, redirector)
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

/// Sends two datagrams from each socket at once; both must arrive, from the same address.
fn race(
    clients: &[UdpSocket],
    server: &UdpSocket,
    family: Family,
    redirector: Redirector,
) -> Result<()> {
    at_once(clients.len(), |cpu, number| {
        let message = [u8::try_from(number)?, u8::try_from(cpu)?];
        let sent = clients[number].send_to(&message, original(family));
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
        ensure!(from == original(family), "the answer came from {from}");
    }
    Ok(())
}
