// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors about redirected packets reach who sent them, and speak of what he sent.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{bail, ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{
    self, sockopt, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
};

use super::setup::{
    all_rules, client_address, ensure_no_loss, original, upstream, Setup, FAMILIES, WAYS,
};
use super::sockets::{is_readable, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::net::offload;
use mutexlab_guest::net::offload::Offload;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::icmp::Report;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::CLIENT;
use mutexlab_wire::frame;

const ETHERNET: usize = 14;

/// The tests of this file, which are of sockets.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "icmp-to-client",
            "a client whose upstream has no socket gets the error, from the original destination",
            to_client,
        ),
        GuestTest::single(
            "icmp-to-upstream",
            "an upstream whose client has no socket gets the error, about its own packet",
            to_upstream,
        ),
    ]
}

fn to_client() -> Result<()> {
    let setup = Setup::new()?;
    // So that the checksum in the packet that the error is about can be checked.
    offload::set(
        &setup.layout.client,
        &CLIENT_LINK,
        Offload::TxChecksum,
        false,
    )?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        for way in WAYS {
            refused_client(&setup, family, way).with_context(|| format!("{family:?} {way:?}"))?;
        }
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure_translated(stats.icmp_translated, 4)?;
    ensure!(
        stats.packets_original == 4 && stats.packets_reply == 0,
        "errors were counted as packets of flows: {stats:?}"
    );
    drop(context);
    setup.finish()
}

fn refused_client(setup: &Setup, family: Family, way: Way) -> Result<()> {
    let to = original(family);
    let mut wire = Channel::open(&setup.layout.client, &CLIENT_LINK, family)?;
    let client = udp(setup.client(way), client_address(way, family))?;
    client.connect(to)?;
    report_errors(&client)?;
    client.send(b"is anybody there?")?;
    ensure_refused(&client)?;
    ensure_reported(&client, to, to)?;
    if way == Way::Local {
        return Ok(());
    }
    let frame = wire
        .receive(&[mac_of(CLIENT)])?
        .context("no error came over the wire")?
        .to_vec();
    let report = Report::parse(&frame)?;
    let about = [&frame[..ETHERNET], &report.about].concat();
    let about = frame::parse(&about).context("the packet that the error is about")?;
    ensure!(
        (report.from, report.to) == (to.ip(), CLIENT.address(family))
            && (about.header.source, about.header.destination) == (client.local_addr()?, to),
        "expected an error from {to} about a packet to it, got {report:?}"
    );
    Ok(())
}

fn to_upstream() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        for way in WAYS {
            refused_upstream(&setup, family, way).with_context(|| format!("{family:?} {way:?}"))?;
        }
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure_translated(stats.icmp_translated, 4)?;
    drop(context);
    setup.finish()
}

fn refused_upstream(setup: &Setup, family: Family, way: Way) -> Result<()> {
    let client = udp(setup.client(way), client_address(way, family))?;
    let server = udp(&setup.layout.server, upstream(family))?;
    client.send_to(b"I shall not wait", original(family))?;
    ensure!(is_readable(&server, PATIENCE)?, "nothing arrived");
    let (_, seen) = server.recv_from(&mut [0; 64])?;
    drop(client);
    server.connect(seen)?;
    report_errors(&server)?;
    server.send(b"here I am")?;
    ensure_refused(&server)?;
    let mut reporter = client_address(way, family);
    reporter.set_port(0);
    ensure_reported(&server, seen, reporter)
}

/// Lets a socket tell who reported an error, about which packet.
fn report_errors(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    if socket.local_addr()?.is_ipv4() {
        socket::setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    } else {
        socket::setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    }
    Ok(())
}

fn ensure_refused(socket: &UdpSocket) -> Result<()> {
    match socket.recv(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("expected a refusal, got {other:?}"),
    }
}

/// Fails unless the next error of `socket` is about a packet to `about`, from the address of
/// `reporter`.
fn ensure_reported(socket: &UdpSocket, about: SocketAddr, reporter: SocketAddr) -> Result<()> {
    let mut buffer = [0; 64];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let message = socket::recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )
    .context("no error is queued")?;
    let from = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(_, Some(address)) => {
            Some(SockaddrIn::from(address).ip().into())
        }
        ControlMessageOwned::Ipv6RecvErr(_, Some(address)) => {
            Some(SockaddrIn6::from(address).ip().into())
        }
        _ => None,
    });
    ensure!(
        message.address == Some(SockaddrStorage::from(about)) && from == Some(reporter.ip()),
        "expected an error from {} about a packet to {about}, got one from {from:?} about {:?}",
        reporter.ip(),
        message.address,
    );
    Ok(())
}

/// Fails unless so many errors were translated.
pub fn ensure_translated(found: u64, expected: u64) -> Result<()> {
    ensure!(
        found == expected,
        "{found} errors were translated; expected {expected}"
    );
    Ok(())
}
