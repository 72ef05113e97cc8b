// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sockets with deadlines, and what is said over them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage};
use nix::sys::time::TimeVal;

use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};

/// How long anything may take before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must happen before it counts as not happening.
pub const SILENCE: Duration = Duration::from_millis(500);

/// A UDP socket at `address`.
pub fn udp(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    namespace
        .run(|| Ok(UdpSocket::bind(address)?))
        .with_context(|| format!("cannot open a UDP socket at {address}"))
}

/// A TCP socket that listens at `address`.
pub fn listen(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    namespace
        .run(|| Ok(TcpListener::bind(address)?))
        .with_context(|| format!("cannot listen at {address}"))
}

/// Connects from `local` (port 0: any) to `remote`.
pub fn connect(namespace: &Namespace, local: SocketAddr, remote: SocketAddr) -> Result<TcpStream> {
    namespace
        .run(|| connect_here(local, remote))
        .with_context(|| format!("cannot connect to {remote}"))
}

/// The same in the namespace of the calling thread.
pub fn connect_here(local: SocketAddr, remote: SocketAddr) -> Result<TcpStream> {
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // So that one port can serve connections to several remotes.
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
    socket::setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)) {
        // How a blocking connect says that its time is over.
        Err(Errno::EINPROGRESS) => bail!("no answer within {PATIENCE:?}"),
        result => result?,
    }
    Ok(TcpStream::from(socket))
}

/// The next connection, which must come within [`PATIENCE`].
pub fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    if !is_readable(listener, PATIENCE)? {
        bail!(
            "no connection came to {} within {PATIENCE:?}",
            listener.local_addr()?
        );
    }
    let (stream, peer) = listener.accept().context("cannot accept")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok((stream, peer))
}

/// Sends a SYN from the calling thread's namespace and does not wait for the answer.
pub fn start_connecting(from: SocketAddr, to: SocketAddr) -> Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(Errno::EINPROGRESS) => Ok(socket),
        other => bail!("expected the connection to be under way, got {other:?}"),
    }
}

/// Whether something (data, a connection) comes to `socket` within `time`.
pub fn is_readable(socket: &impl AsFd, time: Duration) -> Result<bool> {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let count = poll(&mut ready, PollTimeout::try_from(time)?).context("cannot wait")?;
    Ok(count != 0)
}

/// Fails if anything came to `socket`.
pub fn ensure_silent(socket: &impl AsFd, what: &str) -> Result<()> {
    ensure!(
        !is_readable(socket, SILENCE)?,
        "{what} received something; expected nothing"
    );
    Ok(())
}

/// Sends a labelled datagram from `client` to `to`; it must arrive at `server`. Returns whom the
/// server sees as its sender.
pub fn send(
    client: &UdpSocket,
    to: SocketAddr,
    server: &UdpSocket,
    label: Label,
    length: usize,
) -> Result<SocketAddr> {
    pass(client, to, server, Kind::Request, label, length)
        .with_context(|| format!("request {label:?} to {to}"))
}

/// Sends the answer from `server` to `to`; it must arrive at `client`, from `expected`.
pub fn answer(
    server: &UdpSocket,
    to: SocketAddr,
    client: &UdpSocket,
    expected: SocketAddr,
    label: Label,
    length: usize,
) -> Result<()> {
    let source = pass(server, to, client, Kind::Answer, label, length)
        .with_context(|| format!("answer {label:?} to {to}"))?;
    ensure!(
        source == expected,
        "answer {label:?} came from {source}; expected {expected}"
    );
    Ok(())
}

fn pass(
    from: &UdpSocket,
    to: SocketAddr,
    at: &UdpSocket,
    kind: Kind,
    label: Label,
    length: usize,
) -> Result<SocketAddr> {
    let mut datagram = vec![0; length];
    payload::fill(&mut datagram, kind, label);
    from.send_to(&datagram, to).context("cannot send")?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let here = at
        .local_addr()
        .context("cannot ask for a socket's address")?;
    if !is_readable(at, PATIENCE)? {
        bail!("did not arrive at {here} within {PATIENCE:?}");
    }
    let (received, source) = at
        .recv_from(&mut buffer)
        .with_context(|| format!("cannot receive at {here}"))?;
    ensure!(
        buffer[..received] == datagram,
        "arrived with other content: {:?} and {received} of {length} bytes",
        Label::of(&buffer[..received])
    );
    Ok(source)
}

/// Sends `length` bytes over a connection in both directions at once and checks every one.
pub fn exchange_streams(client: &TcpStream, server: &TcpStream, length: usize) -> Result<()> {
    thread::scope(|scope| {
        let tasks = [
            (
                "client sends",
                scope.spawn(|| write_stream(client, Kind::Request, length)),
            ),
            (
                "server sends",
                scope.spawn(|| write_stream(server, Kind::Answer, length)),
            ),
            (
                "server receives",
                scope.spawn(|| read_stream(server, Kind::Request, length)),
            ),
            (
                "client receives",
                scope.spawn(|| read_stream(client, Kind::Answer, length)),
            ),
        ];
        let mut result = Ok(());
        for (what, task) in tasks {
            let outcome = task
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread panicked")))
                .context(what);
            // The first to fail is told, but all are waited for.
            result = result.and(outcome);
        }
        result
    })
}

const BLOCK: usize = 16 * 1024;

/// Writes a stream of labelled blocks and ends it.
fn write_stream(mut stream: &TcpStream, kind: Kind, length: usize) -> Result<()> {
    let mut block = vec![0; BLOCK];
    for (sequence, offset) in (0..length).step_by(BLOCK).enumerate() {
        let block = &mut block[..BLOCK.min(length - offset)];
        payload::fill(block, kind, stream_label(sequence));
        stream
            .write_all(block)
            .with_context(|| format!("at byte {offset} of {length}"))?;
    }
    stream
        .shutdown(Shutdown::Write)
        .context("cannot end the stream")
}

/// Reads what [`write_stream`] wrote, to its end.
fn read_stream(mut stream: &TcpStream, kind: Kind, length: usize) -> Result<()> {
    let mut block = vec![0; BLOCK];
    for (sequence, offset) in (0..length).step_by(BLOCK).enumerate() {
        let block = &mut block[..BLOCK.min(length - offset)];
        stream
            .read_exact(block)
            .with_context(|| format!("at byte {offset} of {length}"))?;
        ensure!(
            payload::is_intact(block, kind, stream_label(sequence)),
            "bytes {offset} to {} differ from what was sent",
            offset + block.len()
        );
    }
    match stream.read(&mut block) {
        Ok(0) => Ok(()),
        Ok(_) => bail!("more came than the {length} bytes that were sent"),
        Err(error) => Err(io::Error::from(error.kind())).context("waiting for the stream's end"),
    }
}

fn stream_label(sequence: usize) -> Label {
    Label {
        flow: 2,
        sequence: sequence as u32,
    }
}
