// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's own connections through a VRF, which pass LOCAL_OUT twice: as the VRF's and as its device's.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::{Stats, HOOK_LOCAL_OUT};
use nix::sys::socket::{self, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage};
use nix::sys::time::TimeVal;

use super::setup::{ensure_no_loss, original, upstream, Setup, FAMILIES};
use super::sockets::{accept, answer, exchange_streams, listen, send, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::iproute2;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::ROUTER_SERVER_LINK;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{Context, Rule};
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{ORIGINAL, ROUTER_SERVER_SIDE, UPSTREAM};

/// The VRF.
const VRF: &str = "red";
/// The client's ports, of each protocol.
const PORT: u16 = 41_000;
/// Connections of each protocol.
const CONNECTIONS: u16 = 5;
/// Datagrams of each socket, each answered.
const DATAGRAMS: u32 = 5;
/// Bytes over a TCP connection in each direction.
const STREAM: usize = 300_000;

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "vrf-local",
        "a connection of the router's through a VRF is one flow, with its own port and its original destination",
        run,
    )
    .on_debug()]
}

/// Puts the link to the servers into a VRF.
fn enslave(setup: &Setup, family: Family) -> Result<()> {
    let name = ROUTER_SERVER_LINK.name;
    let mut script = format!(
        "link add {VRF} type vrf table 20\nlink set {VRF} up\nlink set {name} master {VRF}\n"
    );
    if family == Family::V6 {
        // It went when the link got a master.
        let own = ROUTER_SERVER_SIDE.address(family);
        script += &format!("addr add {own}/64 dev {name} nodad\n");
    }
    for host in [UPSTREAM, ORIGINAL] {
        let (address, mac) = (host.address(family), mac_of(host));
        script += &format!("neigh replace {address} lladdr {mac} dev {name} nud permanent\n");
    }
    iproute2::run(&setup.layout.router, family, &script)
}

/// A socket of the router's that is bound to the VRF, and to `from`.
fn bound(setup: &Setup, from: SocketAddr, kind: SockType) -> Result<OwnedFd> {
    setup.layout.router.run(|| {
        let family = match from {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        socket::setsockopt(&socket, sockopt::BindToDevice, &OsString::from(VRF))
            .context("cannot bind to the VRF")?;
        let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
        socket::setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        Ok(socket)
    })
}

fn run() -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::new()?;
        enslave(&setup, family)?;
        // Also the upstream's port is one that the rule has.
        let rule = Rule::any(family, &[context::upstream(upstream(family), 0)])
            .towards(
                original(family).ip(),
                if family == Family::V4 { 32 } else { 128 },
            )
            .at(HOOK_LOCAL_OUT);
        let context = setup.context(&[rule])?;
        for number in 0..CONNECTIONS {
            let from = ROUTER_SERVER_SIDE.socket(family, PORT + number);
            datagrams(&setup, from).with_context(|| format!("UDP {family:?}"))?;
            ensure_flows(&context, u64::from(2 * number + 1), Protocol::Udp, from)?;
            connection(&setup, &context, from).with_context(|| format!("TCP {family:?}"))?;
            ensure_flows(&context, u64::from(2 * number + 2), Protocol::Tcp, from)?;
        }
        drop(context);
        setup.finish()?;
    }
    Ok(())
}

fn ensure_flows(
    context: &Context,
    expected: u64,
    protocol: Protocol,
    from: SocketAddr,
) -> Result<()> {
    let stats: Stats = context.stats()?;
    ensure!(
        stats.flows_created == expected && stats.flows_direct == 0,
        "{protocol:?} from {from}: expected {expected} flows until now, got {stats:?}"
    );
    ensure_no_loss(&stats)
}

fn family_of(address: SocketAddr) -> Family {
    match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    }
}

fn datagrams(setup: &Setup, from: SocketAddr) -> Result<()> {
    let family = family_of(from);
    let server = udp(&setup.layout.server, upstream(family))?;
    let client = UdpSocket::from(bound(setup, from, SockType::Datagram)?);
    for sequence in 0..DATAGRAMS {
        let label = Label { flow: 1, sequence };
        let seen = send(&client, original(family), &server, label, 64)?;
        ensure!(seen == from, "the upstream sees {seen}, not {from}");
        answer(&server, seen, &client, original(family), label, 64)?;
    }
    Ok(())
}

fn connection(setup: &Setup, context: &Context, from: SocketAddr) -> Result<()> {
    let family = family_of(from);
    let listener = listen(&setup.layout.server, upstream(family))?;
    let client = bound(setup, from, SockType::Stream)?;
    let to = SockaddrStorage::from(original(family));
    socket::connect(client.as_raw_fd(), &to).context("cannot connect")?;
    let client = TcpStream::from(client);
    let (accepted, seen) = accept(&listener)?;
    ensure!(seen == from, "the upstream sees {seen}, not {from}");
    let asked = context.original(accepted.local_addr()?, seen)?;
    ensure!(
        asked == original(family),
        "the connection is said to have been meant for {asked}"
    );
    exchange_streams(&client, &accepted, STREAM)
}
