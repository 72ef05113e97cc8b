// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client with sockets of the router's own stack.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::TcpStreamExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    self, setsockopt, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage,
};

use super::client::{Client, Dialogue};
use super::layout::Layout;
use super::protocol::{Delivery, Family, Protocol, Traffic};
use super::traffic::{Stop, PATIENCE};
use super::wire::MTU;

/// The client.
pub struct StackClient {
    socket: Socket,
    dialogue: Dialogue,
    answer: Vec<u8>,
}

enum Socket {
    // Not connected, so that answers from anywhere are seen.
    Udp(UdpSocket),
    Unconnected(OwnedFd),
    Tcp { stream: TcpStream, peer: SocketAddr },
    Closed,
}

impl StackClient {
    /// Opens and binds the client's socket; nothing is sent yet.
    pub fn new(layout: &Layout, traffic: &Traffic, port: u16) -> Result<Self> {
        let local = traffic.client(port);
        let socket = layout
            .router
            .run(|| match traffic.protocol {
                Protocol::Udp => {
                    let socket = UdpSocket::bind(local)?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    Ok(Socket::Udp(socket))
                }
                Protocol::Tcp => Ok(Socket::Unconnected(bound(traffic.family, local)?)),
            })
            .with_context(|| format!("cannot open a socket at {local}"))?;
        Ok(Self {
            socket,
            dialogue: Dialogue::new(traffic),
            answer: vec![0; MTU],
        })
    }

    fn lost(&self, error: io::Error) -> Stop {
        let what = self.dialogue.awaited();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Stop::lost(&what),
            _ => Stop::Subject(format!("waiting for {what}: {error}")),
        }
    }
}

impl Client for StackClient {
    fn open(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let Socket::Unconnected(socket) = &self.socket else {
            return self.send(delivery);
        };
        // Does not wait: the SYN-ACK comes from the thread that is here.
        match socket::connect(
            socket.as_raw_fd(),
            &SockaddrStorage::from(self.dialogue.server()),
        ) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
            Err(error) => Err(Stop::Subject(format!(
                "cannot connect to {}: {error}",
                self.dialogue.server()
            ))),
        }
    }

    fn establish(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let socket = match std::mem::replace(&mut self.socket, Socket::Closed) {
            Socket::Unconnected(socket) => socket,
            other => {
                self.socket = other;
                return self.receive(delivery);
            }
        };
        let server = self.dialogue.server();
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let count = poll(&mut ready, patience).context("cannot wait for a connection")?;
        if count == 0 {
            return Err(Stop::lost(&format!("a connection to {server}")));
        }
        let stream = TcpStream::from(socket);
        let prepare = || -> io::Result<SocketAddr> {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            // Acknowledgements ride on the next request: no segments but requests and answers.
            stream.set_quickack(false)?;
            stream.peer_addr()
        };
        let peer =
            prepare().map_err(|error| Stop::Subject(format!("connection to {server}: {error}")))?;
        self.socket = Socket::Tcp { stream, peer };
        Ok(())
    }

    fn send(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let server = self.dialogue.server();
        let payload = self.dialogue.request(delivery);
        let sent = match &mut self.socket {
            Socket::Udp(socket) => socket.send_to(payload, server).map(drop),
            Socket::Tcp { stream, .. } => stream.write_all(payload),
            Socket::Unconnected(_) | Socket::Closed => {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        };
        sent.map_err(|error| Stop::Subject(format!("cannot send to {server}: {error}")))
    }

    fn receive(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        let received = match &mut self.socket {
            Socket::Udp(socket) => socket.recv_from(&mut self.answer),
            // An answer is one segment, and is there as a whole or not at all.
            Socket::Tcp { stream, peer } => {
                stream.read(&mut self.answer).map(|length| (length, *peer))
            }
            Socket::Unconnected(_) | Socket::Closed => {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        };
        match received {
            Ok((length, source)) => self
                .dialogue
                .check(source, &self.answer[..length], delivery),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn close(&mut self, _: &mut Delivery) -> Result<(), Stop> {
        let Socket::Tcp { mut stream, .. } = std::mem::replace(&mut self.socket, Socket::Closed)
        else {
            return Ok(());
        };
        match stream.read(&mut self.answer) {
            Ok(0) => Ok(()),
            Ok(length) => Err(Stop::Subject(format!(
                "{length} bytes came instead of the connection's end"
            ))),
            Err(error) => Err(self.lost(error)),
        }
    }
}

/// A TCP socket that does not wait in connect, bound to `local`.
fn bound(family: Family, local: SocketAddr) -> Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    Ok(socket)
}
