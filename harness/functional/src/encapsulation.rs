// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams that carry packets whose checksum is left to a device, as tunnels send them: what the
//! packet says about a checksum is about the inner one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{ensure, Context as _, Result};
use pnet::packet::ip::IpNextHeaderProtocols;

use super::ends;
use super::redirector::{beside_nft, Redirector};
use super::setup::{client_address, original, rule, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{accept, connect, exchange_streams, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::net::offload;
use mutexlab_guest::net::offload::Offload;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::vnet_socket::{VnetHeader, VnetSocket, NEEDS_CSUM};
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{ORIGINAL, UPSTREAM, WIRE_CLIENT};
use mutexlab_wire::checksum::Sum;
use mutexlab_wire::frame::{Header, Transport};

const ETHERNET: usize = 14;
const UDP: usize = 8;
/// Where the checksum stands in a UDP header.
const CHECKSUM: usize = 6;
/// The client's port.
const PORT: u16 = 5555;
/// Datagrams of each flow: the first one takes another way than the others.
const DATAGRAMS: u8 = 4;

/// What the outer header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    /// No checksum.
    Zero,
    /// One that counts on the inner one's being completed (local checksum offload).
    Complete,
}

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::from(beside_nft(
        "encapsulated-zero",
        "a datagram without a checksum stays so, whatever is left to the device inside",
        |redirector| carried(redirector, &[Family::V4], Outer::Zero),
    ));
    // nft spoils these.
    tests.push(GuestTest::single(
        "encapsulated-complete",
        "the checksum of a datagram is right when what is left to the device is inside",
        || carried(Redirector::Module, &FAMILIES, Outer::Complete),
    ));
    tests.extend(
        beside_nft(
            "encapsulated-vxlan",
            "TCP through a VXLAN tunnel whose packets are redirected arrives whole",
            tunnel,
        )
        .map(GuestTest::on_debug),
    );
    tests
}

fn carried(redirector: Redirector, families: &[Family], outer: Outer) -> Result<()> {
    // Who completes a checksum: nobody, or the router, as before a wire.
    for router_completes in [false, true] {
        let setup = Setup::new()?;
        let link = &ROUTER_SERVER_LINK;
        let router = &setup.layout.router;
        offload::set(router, link, Offload::TxChecksum, !router_completes)?;
        let rules: Vec<_> = families
            .iter()
            .map(|&family| rule(Protocol::Udp, family))
            .collect();
        let redirection = redirector.redirect(&setup, &rules)?;
        let socket = VnetSocket::open(&setup.layout.client, &CLIENT_LINK)?;
        for &family in families {
            let mut wire = Channel::open(&setup.layout.server, &SERVER_LINK, family)?;
            let server = udp(&setup.layout.server, upstream(family))?;
            for number in 0..DATAGRAMS {
                let what = || {
                    format!("{family:?}, datagram {number}, router completes: {router_completes}")
                };
                let (fields, frame, inner) = datagram(family, outer, number)?;
                socket.send(&fields.before(&frame))?;
                let arrived = wire.receive(&[mac_of(UPSTREAM)])?;
                let arrived = arrived.with_context(|| format!("{}: nothing arrived", what()))?;
                let at = headers(family) - UDP + CHECKSUM;
                let checksum = arrived.get(at..at + 2).context("a short frame")?;
                ensure!(
                    (checksum == [0, 0]) == (outer == Outer::Zero),
                    "{}: the outer checksum is {checksum:02x?}",
                    what()
                );
                ensure!(
                    is_readable(&server, PATIENCE / 4)?,
                    "{}: dropped by the server, with the outer checksum {checksum:02x?}",
                    what()
                );
                let mut buffer = [0; 2048];
                let length = server.recv(&mut buffer)?;
                let mut expected = inner;
                if !router_completes {
                    // Nobody completed the inner checksum.
                    let at = ETHERNET + 20 + CHECKSUM;
                    expected[at..at + 2].copy_from_slice(&buffer[at..at + 2]);
                }
                ensure!(
                    buffer[..length] == expected,
                    "{}: {:02x?} arrived; expected {expected:02x?}",
                    what(),
                    &buffer[..length]
                );
            }
        }
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

/// Bytes of a datagram's headers.
const fn headers(family: Family) -> usize {
    let network = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    ETHERNET + network + UDP
}

/// What is said of a frame, the frame, and the packet that it carries, as it is when completed.
fn datagram(family: Family, outer: Outer, number: u8) -> Result<(VnetHeader, Vec<u8>, Vec<u8>)> {
    let address = |last: u8| -> SocketAddr { (Ipv4Addr::new(10, 9, 0, last), 777).into() };
    let inner_header = Header {
        source: address(1),
        destination: address(2),
        transport: Transport::Udp,
    };
    let carried = vec![number; 100];
    let inner = ends::frame(&inner_header, &carried)?;
    let outer_header = Header {
        source: WIRE_CLIENT.socket(family, PORT),
        destination: original(family),
        transport: Transport::Udp,
    };
    let mut frame = ends::frame(&outer_header, &inner)?;
    let start = headers(family) + ETHERNET + 20;
    let length = (UDP + carried.len()) as u16;
    let (source, destination) = (inner_header.source.ip(), inner_header.destination.ip());
    let protocol = IpNextHeaderProtocols::Udp;
    let pseudo = Sum::of_pseudo_header(source, destination, protocol, length);
    frame[start + CHECKSUM..start + CHECKSUM + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
    if outer == Outer::Zero {
        let at = headers(family) - UDP + CHECKSUM;
        frame[at..at + 2].fill(0);
    }
    let fields = VnetHeader {
        flags: NEEDS_CSUM,
        checksum_start: u16::try_from(start)?,
        checksum_offset: CHECKSUM as u16,
        ..VnetHeader::default()
    };
    Ok((fields, frame, inner))
}

/// A tunnel from the client, or from the router itself, to an end that is not where it thinks.
fn tunnel(redirector: Redirector) -> Result<()> {
    const TUNNEL: (&str, u32) = ("tunnel", 10);
    const TUNNEL_PORT: u16 = 4789;
    const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => anyhow::bail!("not of IPv4"),
    };
    for way in WAYS {
        let setup = Setup::new()?;
        let layout = &setup.layout;
        // So that checksums are looked at.
        let link = &ROUTER_SERVER_LINK;
        offload::set(&layout.router, link, Offload::TxChecksum, false)?;
        let family = Family::V4;
        let rule = context::redirect(
            Protocol::Udp,
            ORIGINAL.socket(family, TUNNEL_PORT),
            UPSTREAM.socket(family, TUNNEL_PORT),
        );
        let redirection = redirector.redirect(&setup, &[rule])?;
        let client = client_address(way, family).ip();
        for (namespace, own, remote) in [
            (setup.client(way), NEAR, ORIGINAL.address(family)),
            (&layout.server, FAR, client),
        ] {
            let mut links = RouteSocket::open(namespace)?;
            let (name, index) = TUNNEL;
            links.add_vxlan(name, index, v4(remote)?, TUNNEL_PORT)?;
            links.set_up(index)?;
            links.add_address(index, own.into(), 24)?;
        }
        let listener = listen(&layout.server, (FAR, 7).into())?;
        let connected = connect(setup.client(way), (NEAR, 0).into(), (FAR, 7).into());
        let stream = connected.with_context(|| {
            let [near, far] = [setup.client(way), &layout.server].map(devices);
            format!("{way:?}; devices of the near end: {near}; of the far end: {far}")
        })?;
        let (accepted, _) = accept(&listener)?;
        exchange_streams(&stream, &accepted, 300_000).with_context(|| format!("{way:?}"))?;
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

/// What a namespace's devices counted, to see how far packets came.
fn devices(namespace: &Namespace) -> String {
    let path = "/proc/thread-self/net/dev";
    let text = namespace.run(|| Ok(std::fs::read_to_string(path)?));
    text.unwrap_or_else(|error| error.to_string())
}
