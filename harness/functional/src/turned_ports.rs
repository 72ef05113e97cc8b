// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hairpin connections, to an upstream in the client's own network, have ports of the router's:
//! all of them get one, up to the last.

use std::collections::BTreeSet;

use anyhow::{ensure, Context as _, Result};

use super::redirector::{beside_nft, Redirector, TimeOut};
use super::setup::{original, Setup, FAMILIES};
use super::GuestTest;
use mutexlab_guest::net::conntrack::Room;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{NEIGHBOUR, ROUTER_CLIENT_SIDE, UPSTREAM_PORT, WIRE_CLIENT};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Transport};

use super::ends::FROM_CLIENT;

/// Ports from 1024 to 32767.
const PORTS: u16 = 31_744;
/// Datagrams under way at once: what fits into the queue of packets that receivers share.
const BATCH: u16 = 32;
/// The client's first port. With all of them among the router's, nft only has to keep each: it gives up after a
/// few tries (nf_nat_l4proto_unique_tuple()) where many ports in a row are taken.
const FIRST_PORT: u16 = 1_024;
/// Seconds that no flow is idle for.
const LONG: u32 = 1_000;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    beside_nft(
        "turned-ports",
        "31744 hairpin flows have all 31744 ports that there are for them",
        run,
    )
    .into()
}

fn run(redirector: Redirector) -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::new()?;
        // Connection tracking takes ports of its own choice unless told which.
        let _room = Room::make(&setup.layout.router, PORTS.into())?;
        if redirector == Redirector::Nft {
            nft::load(
                &setup.layout.router,
                &format!(
                    "table inet hiding {{
    chain leaving {{
        type nat hook postrouting priority srcnat;
        meta l4proto udp oifname \"{}\" masquerade to :1024-32767
    }}
}}
",
                    ROUTER_CLIENT_LINK.name
                ),
            )?;
        }
        let upstream = WIRE_CLIENT.socket(family, UPSTREAM_PORT);
        let rules = [context::redirect(Protocol::Udp, original(family), upstream)];
        let redirection = redirector.redirect(&setup, &rules)?;
        redirector.set_time_out(&setup, TimeOut::UdpUnreplied, LONG)?;
        RouteSocket::open(&setup.layout.router)?.add_neighbour(
            ROUTER_CLIENT_LINK.index,
            NEIGHBOUR.address(family),
            mac_of(NEIGHBOUR),
        )?;
        every_port(&setup, family).with_context(|| format!("{family:?}"))?;
        let flows = redirection.flows(&setup)?;
        ensure!(
            flows == u64::from(PORTS),
            "expected a flow for each of {PORTS} ports, got {flows}"
        );
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

/// Sends a datagram from each of as many ports of a client; each must come to the upstream from a port of
/// its own.
fn every_port(setup: &Setup, family: Family) -> Result<()> {
    let mut channel = Channel::open(&setup.layout.client, &CLIENT_LINK, family)?;
    let mut seen = BTreeSet::new();
    for first in (0..PORTS).step_by(BATCH.into()) {
        for number in first..first + BATCH {
            let header = Header {
                source: NEIGHBOUR.socket(family, FIRST_PORT + number),
                destination: original(family),
                transport: Transport::Udp,
            };
            channel.send(FROM_CLIENT, &header, &number.to_be_bytes())?;
        }
        for number in first..first + BATCH {
            let frame = channel.receive(&[mac_of(WIRE_CLIENT)])?.with_context(|| {
                format!("of {BATCH} datagrams from {first} on one is missing, about {number}")
            })?;
            let packet = frame::parse(frame)?;
            let source = packet.header.source;
            ensure!(
                source.ip() == ROUTER_CLIENT_SIDE.address(family)
                    && (1024..32_768).contains(&source.port())
                    && seen.insert(source.port()),
                "datagram {:?} comes from {source}",
                packet.payload
            );
        }
    }
    Ok(())
}
