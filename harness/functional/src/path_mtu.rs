// SPDX-License-Identifier: MIT OR Apache-2.0

//! Path MTU discovery (RFC 1191, RFC 8201) through a redirect: it lives on errors that are
//! translated.

use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{self, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

use super::setup::{
    all_rules, client_address, ensure_no_loss, original, rule, upstream, Setup, FAMILIES,
};
use super::sockets::{accept, connect, exchange_streams, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::{
    Layout, CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_wire::frame::MTU;

/// MTU of a narrow link: IPv6 needs 1280.
const NARROW: u32 = 1300;
/// Bytes over a TCP connection in each direction.
const STREAM: usize = 1 << 18;

sockopt_impl!(
    Discover4,
    Both,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    Discover6,
    Both,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    Mtu6,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

/// The tests of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "icmp-path-mtu-tcp",
            "TCP finds out how long packets may be on both sides of the redirect",
            path_mtu_of_tcp,
        ),
        GuestTest::single(
            "icmp-path-mtu-udp",
            "a UDP socket that does not fragment is told how long packets may be",
            path_mtu_of_udp,
        ),
    ]
}

/// Sets the MTU of both ends of one of the links.
fn set_mtu(layout: &Layout, of_server: bool, mtu: u32) -> Result<()> {
    let (near, namespace, far) = if of_server {
        (ROUTER_SERVER_LINK, &layout.server, SERVER_LINK)
    } else {
        (ROUTER_CLIENT_LINK, &layout.client, CLIENT_LINK)
    };
    RouteSocket::open(&layout.router)?.set_mtu(near.index, mtu)?;
    RouteSocket::open(namespace)?.set_mtu(far.index, mtu)
}

fn path_mtu_of_tcp() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        // Both before either end knows of a narrow link: it would tell the other one.
        let [first, second] = [open(&setup, family)?, open(&setup, family)?];
        for (of_server, (client, accepted)) in [(true, first), (false, second)] {
            let far = if of_server { &client } else { &accepted };
            let what = if of_server { "client" } else { "upstream" };
            let translated = context.stats()?.icmp_translated;
            narrow_tcp(&setup, of_server, [&client, &accepted], far)
                .with_context(|| format!("{family:?}, {what} far from the narrow link"))?;
            ensure!(
                context.stats()?.icmp_translated > translated,
                "{family:?}, {what}: no error was translated"
            );
        }
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

/// A connection, as the client and as the upstream have it.
fn open(setup: &Setup, family: Family) -> Result<(TcpStream, TcpStream)> {
    let server = listen(&setup.layout.server, upstream(family))?;
    let from = client_address(Way::Forward, family);
    let client = connect(&setup.layout.client, from, original(family))?;
    Ok((client, accept(&server)?.0))
}

/// Makes a link narrow under a connection, and sees what becomes of the end that is `far` from it.
fn narrow_tcp(
    setup: &Setup,
    of_server: bool,
    [client, accepted]: [&TcpStream; 2],
    far: &TcpStream,
) -> Result<()> {
    let before = segment(far)?;
    ensure!(before > NARROW, "segments have {before} bytes already");
    set_mtu(&setup.layout, of_server, NARROW)?;
    exchange_streams(client, accepted, STREAM)?;
    let after = segment(far)?;
    ensure!(after < NARROW, "segments still have {after} bytes");
    set_mtu(&setup.layout, of_server, MTU as u32)
}

/// How much a connection puts into a segment.
fn segment(stream: &impl AsFd) -> Result<u32> {
    Ok(socket::getsockopt(stream, sockopt::TcpMaxSeg)?)
}

fn path_mtu_of_udp() -> Result<()> {
    let setup = Setup::new()?;
    set_mtu(&setup.layout, true, NARROW)?;
    for family in FAMILIES {
        let context = setup.context(&[rule(Protocol::Udp, family)])?;
        narrow_udp(&setup, family).with_context(|| format!("{family:?}"))?;
        let stats = context.stats()?;
        ensure_no_loss(&stats)?;
        ensure!(
            stats.icmp_translated == 1,
            "{} errors were translated; expected one",
            stats.icmp_translated
        );
    }
    setup.finish()
}

fn narrow_udp(setup: &Setup, family: Family) -> Result<()> {
    let server = udp(&setup.layout.server, upstream(family))?;
    let client = udp(&setup.layout.client, client_address(Way::Forward, family))?;
    client.connect(original(family))?;
    client.set_read_timeout(Some(PATIENCE))?;
    never_fragment(&client, family)?;
    let long = [7; NARROW as usize];
    client.send(&long).context("the first datagram")?;
    // The socket's error says that something was too long, the next one's that this would be.
    for what in [client.recv(&mut [0; 8]), client.send(&long)] {
        match what {
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {}
            other => bail!("expected EMSGSIZE, got {other:?}"),
        }
    }
    let mtu = path_mtu(&client, family)?;
    ensure!(mtu == NARROW, "the path's MTU is {mtu}; expected {NARROW}");
    let headers = match family {
        Family::V4 => 28,
        Family::V6 => 48,
    };
    client.send(&long[headers..])?;
    ensure!(is_readable(&server, PATIENCE)?, "what fits did not arrive");
    Ok(())
}

fn never_fragment(socket: &UdpSocket, family: Family) -> Result<()> {
    match family {
        Family::V4 => socket::setsockopt(socket, Discover4, &libc::IP_PMTUDISC_DO)?,
        Family::V6 => socket::setsockopt(socket, Discover6, &libc::IPV6_PMTUDISC_DO)?,
    }
    Ok(())
}

fn path_mtu(socket: &UdpSocket, family: Family) -> Result<u32> {
    let mtu = match family {
        Family::V4 => socket::getsockopt(socket, sockopt::IpMtu)?,
        Family::V6 => socket::getsockopt(socket, Mtu6)?,
    };
    Ok(u32::try_from(mtu)?)
}
