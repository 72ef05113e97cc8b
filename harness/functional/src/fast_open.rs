// SPDX-License-Identifier: MIT OR Apache-2.0

//! TCP Fast Open (RFC 7413): data in a SYN, which the server need not take. It acknowledges the SYN
//! alone then, and the connection is as established as any other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::sys::socket::{self, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage};
use nix::sys::time::TimeVal;
use pnet::packet::tcp::TcpFlags;

use super::conversation::pass;
use super::redirect::{switch_offloads, Offloads};
use super::redirector::{beside_nft, Redirector, TimeOut};
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{accept, connect, listen, PATIENCE};
use super::upstreams::{at_port, by_preference};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{Layout, SERVER_LINK};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::UPSTREAM;
use mutexlab_wire::frame;
use mutexlab_wire::frame::Transport;

/// net.ipv4.tcp_fastopen of a client that needs no cookie, and of a server that takes no data.
const NO_COOKIE: &str = "5";
const NO_SERVER: &str = "0";
/// Longer than an unanswered SYN's flow lives.
const IDLE: Duration = Duration::from_millis(3500);
/// What the SYN carries.
const EARLY: &[u8] = b"said before the handshake";

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::from(beside_nft(
        "fast-open",
        "a connection whose SYN carried data that the server did not take is established",
        outlives_the_syn,
    ));
    tests.push(GuestTest::single(
        "fast-open-upstream",
        "an upstream that does not take the data in a SYN is not passed over",
        upstream_stays,
    ));
    tests
}

fn outlives_the_syn(redirector: Redirector) -> Result<()> {
    let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
    prepare(&setup)?;
    let redirection = redirector.redirect(&setup, &all_rules())?;
    redirector.set_time_out(&setup, TimeOut::Syn, 1)?;
    for family in FAMILIES {
        for way in WAYS {
            let attempt = || -> Result<()> {
                let listener = listen(&setup.layout.server, upstream(family))?;
                let (client, server) = open(&setup, family, way, &listener)?;
                say(&client, &server, 0)?;
                thread::sleep(IDLE);
                say(&client, &server, 1).context("after a while")
            };
            attempt().with_context(|| format!("{family:?} {way:?}"))?;
        }
    }
    drop(redirection);
    setup.finish()
}

fn upstream_stays() -> Result<()> {
    let setup = Setup::with_parameters(&[("gc_interval", "1"), ("tcp_syn_timeout", "1")])?;
    prepare(&setup)?;
    for family in FAMILIES {
        let context = setup.context(&[])?;
        let (first, second) = (at_port(family, 7001), at_port(family, 7002));
        context.put(&by_preference(first, second, family))?;
        let preferred = listen(&setup.layout.server, first)?;
        let _backup = listen(&setup.layout.server, second)?;
        for turn in 0..3 {
            let (client, server) = open(&setup, family, Way::Forward, &preferred)?;
            say(&client, &server, turn)?;
        }
        thread::sleep(IDLE);
        let from = client_address(Way::Forward, family);
        let _client = connect(setup.client(Way::Forward), from, original(family))?;
        accept(&preferred)
            .with_context(|| format!("{family:?}: the preferred upstream answered all"))?;
    }
    setup.finish()
}

fn prepare(setup: &Setup) -> Result<()> {
    let Layout {
        client,
        router,
        server,
    } = &setup.layout;
    for namespace in [client, router] {
        namespace.set_sysctl("ipv4/tcp_fastopen", NO_COOKIE)?;
    }
    server.set_sysctl("ipv4/tcp_fastopen", NO_SERVER)?;
    // So that the checksums of what is looked at below are there.
    switch_offloads(setup, Offloads::Off)
}

/// Opens a connection with data in the SYN, which arrives when it is sent again.
fn open(
    setup: &Setup,
    family: Family,
    way: Way,
    listener: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let mut wire = Channel::open(&setup.layout.server, &SERVER_LINK, family)?;
    let (from, to) = (client_address(way, family), original(family));
    let mut client = start(setup.client(way), from, to)?;
    client.write_all(EARLY).context("cannot send the SYN")?;
    let (mut server, _) = accept(listener)?;
    let mut received = [0; EARLY.len()];
    server
        .read_exact(&mut received)
        .context("what the SYN carried did not arrive")?;
    ensure!(received == EARLY, "something else arrived: {received:?}");
    // Otherwise the test shows nothing.
    let frame = wire
        .receive(&[mac_of(UPSTREAM)])?
        .context("no frame arrived")?;
    let packet = frame::parse(frame)?;
    ensure!(
        matches!(packet.header.transport, Transport::Tcp(segment) if segment.has(TcpFlags::SYN))
            && packet.payload == EARLY,
        "expected a SYN with data, got {packet:?}"
    );
    Ok((client, server))
}

/// A socket whose first data go with its SYN.
fn start(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = namespace.run(|| {
        Ok(socket::socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?)
    })?;
    let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
    socket::setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    socket::setsockopt(&socket, sockopt::TcpFastOpenConnect, &true)
        .context("TCP_FASTOPEN_CONNECT")?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("cannot connect to {to}"))?;
    Ok(TcpStream::from(socket))
}

/// A message and its answer.
fn say(client: &TcpStream, server: &TcpStream, sequence: u32) -> Result<()> {
    let label = Label { flow: 1, sequence };
    pass(client, server, Kind::Request, label)?;
    pass(server, client, Kind::Answer, label)
}
