// SPDX-License-Identifier: MIT OR Apache-2.0

//! First packets that the router drops leave no flow.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::Stats;

use super::ends::Ends;
use super::pinned::Pinned;
use super::redirector::{beside_nft, Redirector};
use super::setup::{Setup, FAMILIES};
use super::GuestTest;
use mutexlab_guest::net::layout::ROUTER_CLIENT_LINK;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{UPSTREAM_PORT, WIRE_CLIENT, WIRE_ORIGINAL, WIRE_UPSTREAM};
use mutexlab_wire::frame::{Header, Transport};

/// Datagrams that are dropped, each from a port of its own.
const DATAGRAMS: u16 = 1000;
/// The first of these ports.
const FIRST_PORT: u16 = 20_000;
/// Where one goes that is not dropped, and where the others go.
const PASSED: u16 = 7;
const DROPPED: u16 = 9;

/// Why the router drops them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Their source is not to be reached through the device by which they come.
    Source,
    /// A rule in FORWARD.
    Rule,
    /// There is no route to the upstream.
    NoRoute,
}

/// Flows that the table takes, of the test that fills it.
const MAX_FLOWS: u16 = 100;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests: Vec<GuestTest> = [
        beside_nft(
            "dropped-by-source",
            "datagrams that a strict rp_filter drops leave no flow",
            |redirector| run(redirector, Reason::Source),
        ),
        beside_nft(
            "dropped-by-rule",
            "datagrams that a rule in FORWARD drops leave no flow",
            |redirector| run(redirector, Reason::Rule),
        ),
        beside_nft(
            "dropped-without-route",
            "datagrams without a route to their upstream leave no flow",
            |redirector| run(redirector, Reason::NoRoute),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    tests.push(GuestTest::single(
        "spoofed-source",
        "datagrams that a strict rp_filter drops cost nobody a place in a full table",
        spoofed,
    ));
    tests
}

/// Fills the table with flows that may be evicted, and sends what a strict rp_filter drops: no flow is made for that.
fn spoofed() -> Result<()> {
    let family = Family::V4;
    // All in order.
    let _pinned = Pinned::to(0)?;
    let setup = Setup::with_parameters(&[("max_flows", &MAX_FLOWS.to_string())])?;
    prepare(&setup, Reason::Source)?;
    let original = WIRE_ORIGINAL.socket(family, PASSED);
    let upstream = target(Reason::Source, family, true);
    let context = setup.context(&[context::redirect(Protocol::Udp, original, upstream)])?;
    let mut ends = Ends::open(&setup, family)?;
    let mut pass = |number: u16| -> Result<()> {
        let header = header(family, WIRE_CLIENT.address(family), number, PASSED);
        ends.send(&header, b"passes")?;
        let arrived = ends.arrived()?.context("what should pass did not arrive")?;
        ensure!(
            arrived.header.source == header.source && arrived.header.destination == upstream,
            "what should be redirected arrived as {arrived:?}"
        );
        Ok(())
    };
    (0..MAX_FLOWS).try_for_each(&mut pass)?;
    let before = context.stats()?;
    ensure!(
        before.flows_current == u64::from(MAX_FLOWS) && before.dropped_no_route == 0,
        "the table is not full: {before:?}"
    );
    let mut attacker = Ends::open(&setup, family)?;
    for number in 0..DATAGRAMS {
        let source = source(Reason::Source, family);
        attacker.send(&header(family, source, number, PASSED), b"is dropped")?;
    }
    // Behind all of them, one of a flow that is there.
    pass(0)?;
    let after = context.stats()?;
    let counted = |stats: &Stats| {
        [
            stats.flows_created,
            stats.flows_evicted,
            stats.flows_current,
        ]
    };
    ensure!(
        counted(&after) == counted(&before),
        "flows that were made, evicted, and are there were {:?} and now are {:?}",
        counted(&before),
        counted(&after)
    );
    ensure!(
        after.dropped_no_route == u64::from(DATAGRAMS),
        "{} of {DATAGRAMS} datagrams are counted as dropped_no_route",
        after.dropped_no_route
    );
    drop(context);
    setup.finish()
}

fn run(redirector: Redirector, reason: Reason) -> Result<()> {
    for family in FAMILIES {
        // Sources of IPv6 are checked by rules only.
        if (reason, family) == (Reason::Source, Family::V6) {
            continue;
        }
        let setup = Setup::new()?;
        prepare(&setup, reason)?;
        let rules = [(PASSED, true), (DROPPED, false)].map(|(port, passes)| {
            let original = WIRE_ORIGINAL.socket(family, port);
            context::redirect(Protocol::Udp, original, target(reason, family, passes))
        });
        let redirection = redirector.redirect(&setup, &rules)?;
        let mut ends = Ends::open(&setup, family)?;
        ends.send(
            &header(family, WIRE_CLIENT.address(family), 0, PASSED),
            b"passes",
        )?;
        let arrived = ends.arrived()?.context("what should pass did not arrive")?;
        ensure!(
            arrived.header.destination == WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
            "what should be redirected arrived as {arrived:?}"
        );
        for number in 0..DATAGRAMS {
            let header = header(family, source(reason, family), number, DROPPED);
            ends.send(&header, b"is dropped")?;
        }
        let arrived = ends.arrived()?;
        ensure!(
            arrived.is_none(),
            "what should be dropped arrived: {arrived:?}"
        );
        let flows = redirection.flows(&setup)?;
        ensure!(
            flows == 1,
            "{family:?}: expected one flow, of the datagram that passed, got {flows}"
        );
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

fn prepare(setup: &Setup, reason: Reason) -> Result<()> {
    let router = &setup.layout.router;
    match reason {
        Reason::Source => router.set_sysctl(
            &format!("ipv4/conf/{}/rp_filter", ROUTER_CLIENT_LINK.name),
            "1",
        ),
        Reason::Rule => nft::load(
            router,
            &format!(
                "table inet wall {{
    chain passing {{
        type filter hook forward priority filter;
        udp dport {} drop
    }}
}}
",
                UPSTREAM_PORT + 1
            ),
        ),
        Reason::NoRoute => Ok(()),
    }
}

fn target(reason: Reason, family: Family, passes: bool) -> SocketAddr {
    match (passes, reason) {
        (true, _) => WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
        (false, Reason::NoRoute) => (elsewhere(family), UPSTREAM_PORT).into(),
        (false, _) => WIRE_UPSTREAM.socket(family, UPSTREAM_PORT + 1),
    }
}

/// An address to which there is no route (RFC 5737, RFC 3849).
fn elsewhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => [203, 0, 113, 9].into(),
        Family::V6 => [0x2001, 0xdb8, 9, 0, 0, 0, 0, 9].into(),
    }
}

fn source(reason: Reason, family: Family) -> IpAddr {
    match reason {
        Reason::Source => elsewhere(family),
        Reason::Rule | Reason::NoRoute => WIRE_CLIENT.address(family),
    }
}

fn header(family: Family, source: IpAddr, number: u16, port: u16) -> Header {
    Header {
        source: (source, FIRST_PORT + number).into(),
        destination: WIRE_ORIGINAL.socket(family, port),
        transport: Transport::Udp,
    }
}
