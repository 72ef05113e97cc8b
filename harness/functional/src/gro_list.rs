// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets that the router's device merged to a list (rx-gro-list): the hooks see one packet, whose
//! pieces have headers of their own.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{ensure, Context as _, Result};

use super::ends::FROM_CLIENT;
use super::pinned::Pinned;
use super::redirector::{beside_nft, Redirection, Redirector};
use super::setup::{
    all_rules, client_address, ensure_no_loss, original, upstream, Setup, FAMILIES,
};
use super::sockets::{accept, connect, exchange_streams, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::net::offload;
use mutexlab_guest::net::offload::Offload;
use mutexlab_guest::traffic::burst::BurstSocket;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::WIRE_CLIENT;
use mutexlab_wire::frame::{Header, Transport};

/// Datagrams that come at once, and how often.
const BURST: u32 = 16;
const BURSTS: u32 = 50;
/// Bytes of each.
const LENGTH: usize = 200;
/// Bytes over a TCP connection in each direction.
const STREAM: usize = 1 << 20;
/// The client's port on the wire.
const PORT: u16 = 21_000;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    beside_nft(
        "gro-list",
        "packets that a device merged to a list arrive as they were sent",
        run,
    )
    .into()
}

fn run(redirector: Redirector) -> Result<()> {
    for zero_copy in [1, 0] {
        let setup = Setup::with_parameters(&[("perf_enable_zero_copy", &zero_copy.to_string())])?;
        let layout = &setup.layout;
        offload::set(&layout.router, &ROUTER_CLIENT_LINK, Offload::Gro, true)?;
        offload::set_feature(&layout.router, &ROUTER_CLIENT_LINK, "rx-gro-list", true)?;
        let redirection = redirector.redirect(&setup, &all_rules())?;
        for family in FAMILIES {
            datagrams(&setup, &redirection, family)
                .with_context(|| format!("UDP {family:?}, zero copy {zero_copy}"))?;
            // Segments one by one, so that there is something to merge.
            offload::set(&layout.client, &CLIENT_LINK, Offload::Tso, false)?;
            offload::set(&layout.client, &CLIENT_LINK, Offload::Gso, false)?;
            let listener = listen(&layout.server, upstream(family))?;
            let from = client_address(Way::Forward, family);
            let client = connect(&layout.client, from, original(family))?;
            let (server, _) = accept(&listener)?;
            exchange_streams(&client, &server, STREAM)
                .with_context(|| format!("TCP {family:?}, zero copy {zero_copy}"))?;
        }
        if let Redirection::Module(context) = &redirection {
            ensure_no_loss(&context.stats()?)?;
        }
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

fn datagrams(setup: &Setup, redirection: &Redirection, family: Family) -> Result<()> {
    let server = udp(&setup.layout.server, upstream(family))?;
    let mut socket = BurstSocket::open(&setup.layout)?;
    let _pinned = Pinned::to(0)?;
    let packets = || -> Result<Option<u64>> {
        match redirection {
            Redirection::Module(context) => Ok(Some(context.stats()?.packets_original)),
            Redirection::Nft => Ok(None),
        }
    };
    let before = packets()?;
    let header = Header {
        source: WIRE_CLIENT.socket(family, PORT),
        destination: original(family),
        transport: Transport::Udp,
    };
    for burst in 0..BURSTS {
        let mut payloads = vec![0; LENGTH * BURST as usize];
        for (number, payload) in (0..).zip(payloads.chunks_mut(LENGTH)) {
            payload::fill(payload, Kind::Request, label(burst, number));
        }
        socket.send(FROM_CLIENT, &header, &payloads, LENGTH)?;
        for number in 0..BURST {
            take(&server, header.source, label(burst, number))?;
        }
    }
    if let (Some(before), Some(after)) = (before, packets()?) {
        let sent = u64::from(BURST * BURSTS);
        // Otherwise nothing was merged, and the test shows nothing.
        ensure!(
            after - before < sent / 2,
            "{sent} datagrams came to the module as {} packets",
            after - before
        );
    }
    Ok(())
}

fn label(burst: u32, number: u32) -> Label {
    Label {
        flow: burst,
        sequence: number,
    }
}

/// Takes the next datagram, which must be the one of `label`.
fn take(server: &UdpSocket, from: SocketAddr, label: Label) -> Result<()> {
    ensure!(is_readable(server, PATIENCE)?, "{label:?} did not arrive");
    let mut buffer = [0; 2048];
    let (length, seen) = server.recv_from(&mut buffer)?;
    ensure!(
        length == LENGTH
            && seen == from
            && payload::is_intact(&buffer[..length], Kind::Request, label),
        "instead of {label:?} came {length} bytes of {:?} from {seen}",
        Label::of(&buffer[..length])
    );
    Ok(())
}
