// SPDX-License-Identifier: MIT OR Apache-2.0

//! Connections between sockets are redirected, and neither end can tell.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use super::setup::{
    client_address, ensure_no_loss, original, rule, upstream, Setup, FAMILIES, PROTOCOLS, WAYS,
};
use super::sockets::{self, accept, connect, ensure_silent, exchange_streams, listen, udp};
use super::GuestTest;
use mutexlab_guest::net::layout::{
    CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use mutexlab_guest::net::offload;
use mutexlab_guest::net::offload::Offload;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::UPSTREAM;

/// Bytes over a TCP connection in each direction.
const STREAM: usize = 1 << 20;
/// Lengths of datagrams: shortest, odd, and the longest that need no fragments.
const DATAGRAMS: [usize; 5] = [payload::MIN, 17, 63, 512, 1400];
/// Times that each of them is sent.
const TURNS: u32 = 20;

/// Who computes checksums and cuts segments.
#[derive(Clone, Copy, PartialEq)]
pub enum Offloads {
    /// Nobody: veth passes on what a stack left to the device, and the next stack takes it.
    On,
    /// The stacks themselves.
    Off,
    /// The router, for packets that the client's stack left to the device. Here a checksum that
    /// was left undone and is translated wrong comes out wrong.
    AtClient,
}

#[derive(Clone, Copy)]
struct Case {
    protocol: Protocol,
    family: Family,
    way: Way,
    offloads: Offloads,
}

/// One test for each combination.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::new();
    for protocol in PROTOCOLS {
        for family in FAMILIES {
            for way in WAYS {
                for offloads in [Offloads::On, Offloads::Off, Offloads::AtClient] {
                    // On the router itself there is no device between client and module.
                    if way == Way::Local && offloads == Offloads::AtClient {
                        continue;
                    }
                    let case = Case {
                        protocol,
                        family,
                        way,
                        offloads,
                    };
                    tests.push(GuestTest::new(case.name(), case.about(), move || run(case)));
                }
            }
        }
    }
    tests
}

impl Case {
    fn name(&self) -> String {
        let protocol = protocol_name(self.protocol).to_lowercase();
        let version = version_name(self.family);
        let way = match self.way {
            Way::Forward => "forward",
            Way::Local => "local",
        };
        let suffix = match self.offloads {
            Offloads::On => "",
            Offloads::Off => "-no-offload",
            Offloads::AtClient => "-offload-at-client",
        };
        format!("redirect-{protocol}-{version}-{way}{suffix}")
    }

    fn about(&self) -> String {
        let protocol = protocol_name(self.protocol);
        let version = version_name(self.family);
        let way = match self.way {
            Way::Forward => "passing through",
            Way::Local => "of the machine's own",
        };
        let with = match self.offloads {
            Offloads::On => "",
            Offloads::Off => ", checksums and segments by software",
            Offloads::AtClient => ", checksums and segments by the router",
        };
        format!("{protocol} over IP{version} {way} reaches the upstream{with}")
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn version_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

fn run(case: Case) -> Result<()> {
    let setup = Setup::new()?;
    switch_offloads(&setup, case.offloads)?;
    let context = setup.context(&[rule(case.protocol, case.family)])?;
    match case.protocol {
        Protocol::Tcp => tcp(&setup, case)?,
        Protocol::Udp => datagrams(&setup, case)?,
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == 1 && stats.packets_original > 0 && stats.packets_reply > 0,
        "expected one flow with packets in both directions, got {stats:?}"
    );
    drop(context);
    setup.finish()
}

/// Switches the offloads of all links.
pub fn switch_offloads(setup: &Setup, offloads: Offloads) -> Result<()> {
    let layout = &setup.layout;
    let at_client = offloads != Offloads::Off;
    let elsewhere = offloads == Offloads::On;
    for (namespace, link, on) in [
        (&layout.client, &CLIENT_LINK, at_client),
        (&layout.router, &ROUTER_CLIENT_LINK, elsewhere),
        (&layout.router, &ROUTER_SERVER_LINK, elsewhere),
        (&layout.server, &SERVER_LINK, elsewhere),
    ] {
        for feature in Offload::ALL {
            offload::set(namespace, link, feature, on)?;
        }
    }
    Ok(())
}

fn tcp(setup: &Setup, case: Case) -> Result<()> {
    let (from, to) = (client_address(case.way, case.family), original(case.family));
    let server = listen(&setup.layout.server, upstream(case.family))?;
    let decoy = listen(&setup.layout.server, to)?;
    let client = connect(setup.client(case.way), from, to)?;
    let (accepted, seen) = accept(&server)?;
    ensure_same("getpeername at the client", client.peer_addr()?, to)?;
    ensure_same(
        "the client as the server sees it",
        seen,
        client.local_addr()?,
    )?;
    exchange_streams(&client, &accepted, STREAM)?;
    ensure_silent(&decoy, "the original destination")
}

fn datagrams(setup: &Setup, case: Case) -> Result<()> {
    let (from, to) = (client_address(case.way, case.family), original(case.family));
    let server = udp(&setup.layout.server, upstream(case.family))?;
    let decoy = udp(&setup.layout.server, to)?;
    let client = udp(setup.client(case.way), from)?;
    let mut label = Label {
        flow: 1,
        sequence: 0,
    };
    for length in DATAGRAMS.repeat(TURNS as usize) {
        let seen = sockets::send(&client, to, &server, label, length)?;
        ensure_same(
            "the client as the server sees it",
            seen,
            client.local_addr()?,
        )?;
        sockets::answer(&server, seen, &client, to, label, length)?;
        label.sequence += 1;
    }
    ensure_silent(&decoy, "the original destination")
}

fn ensure_same(what: &str, seen: SocketAddr, expected: SocketAddr) -> Result<()> {
    ensure!(seen == expected, "{what} is {seen}; expected {expected}");
    Ok(())
}

/// One client port, two original destinations, one upstream: the answers must not be mixed up.
pub fn one_port_two_targets() -> Result<()> {
    let setup = Setup::new()?;
    for family in FAMILIES {
        let (first, mut second) = (original(family), original(family));
        second.set_port(first.port() + 2);
        let rules = PROTOCOLS.map(|protocol| {
            [first, second]
                .map(|to| mutexlab_guest::proxy::context::redirect(protocol, to, upstream(family)))
        });
        let context = setup.context(&rules.concat())?;
        for way in WAYS {
            let mut from = client_address(way, family);
            from.set_port(41_000);
            two_datagrams(&setup, way, from, [first, second])
                .with_context(|| format!("udp {family:?} {way:?}"))?;
            two_connections(&setup, way, from, [first, second])
                .with_context(|| format!("tcp {family:?} {way:?}"))?;
        }
        ensure_no_loss(&context.stats()?)?;
    }
    setup.finish()
}

fn two_datagrams(setup: &Setup, way: Way, from: SocketAddr, to: [SocketAddr; 2]) -> Result<()> {
    let server = udp(&setup.layout.server, UPSTREAM.socket(family_of(from), 7007))?;
    let client = udp(setup.client(way), from)?;
    let label = |flow, sequence| Label { flow, sequence };
    for sequence in 0..4 {
        let seen = [
            sockets::send(&client, to[0], &server, label(0, sequence), 64)?,
            sockets::send(&client, to[1], &server, label(1, sequence), 64)?,
        ];
        ensure!(
            seen[0] != seen[1],
            "the upstream sees both flows as {}; expected two ports",
            seen[0]
        );
        // In the other order than they were asked.
        for flow in [1, 0] {
            let at = flow as usize;
            sockets::answer(
                &server,
                seen[at],
                &client,
                to[at],
                label(flow, sequence),
                64,
            )?;
        }
    }
    Ok(())
}

fn two_connections(setup: &Setup, way: Way, from: SocketAddr, to: [SocketAddr; 2]) -> Result<()> {
    let server = listen(&setup.layout.server, UPSTREAM.socket(family_of(from), 7007))?;
    let first = connect(setup.client(way), from, to[0])?;
    let (first_accepted, first_seen) = accept(&server)?;
    let second = connect(setup.client(way), from, to[1])?;
    let (second_accepted, second_seen) = accept(&server)?;
    ensure!(
        first_seen != second_seen,
        "the upstream sees both connections as {first_seen}; expected two ports"
    );
    exchange_streams(&second, &second_accepted, 100_000).context("second connection")?;
    exchange_streams(&first, &first_accepted, 100_000).context("first connection")
}

fn family_of(address: SocketAddr) -> Family {
    match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    }
}
