// SPDX-License-Identifier: MIT OR Apache-2.0

//! A client with sockets of a stack: the router's own, or the client's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    self, setsockopt, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage,
};

use super::client::{Client, Dialogue};
use super::flows::Flows;
use super::stack_server::{self, prepare, read_message};
use crate::net::layout::Layout;
use crate::traffic::target::{Stop, PATIENCE};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Protocol, Traffic, Way};
use mutexlab_wire::frame::MTU;

/// The client.
pub struct StackClient {
    // For each flow.
    sockets: Vec<Socket>,
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
    /// Opens and binds a socket for each flow; nothing is sent yet.
    pub fn new(layout: &Layout, traffic: &Traffic, flows: Flows) -> Result<Self> {
        let open = |local| -> Result<Socket> {
            match traffic.protocol {
                Protocol::Udp => {
                    let socket = UdpSocket::bind(local)?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    Ok(Socket::Udp(socket))
                }
                Protocol::Tcp => Ok(Socket::Unconnected(bound(traffic.family, local)?)),
            }
        };
        let namespace = match traffic.way {
            Way::Forward => &layout.client,
            Way::Local => &layout.router,
        };
        let sockets = namespace.run(|| {
            (0..flows.count())
                .map(|flow| {
                    let local = flows.client(flow);
                    open(local).with_context(|| format!("cannot open a socket at {local}"))
                })
                .collect::<Result<_>>()
        })?;
        Ok(Self {
            sockets,
            dialogue: Dialogue::new(traffic, &flows),
            answer: vec![0; MTU],
        })
    }

    /// The connection of the first flow, if there is one.
    pub fn into_stream(self) -> Option<TcpStream> {
        match self.sockets.into_iter().next() {
            Some(Socket::Tcp { stream, .. }) => Some(stream),
            _ => None,
        }
    }

    /// Takes the flow's socket; whoever still needs it puts it back.
    fn take(&mut self, flow: u32) -> Socket {
        std::mem::replace(&mut self.sockets[flow as usize], Socket::Closed)
    }

    fn lost(&self, flow: u32, error: &io::Error) -> Stop {
        stack_server::lost(&self.dialogue.awaited(flow), error)
    }
}

impl Client for StackClient {
    fn open(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Socket::Unconnected(socket) = &self.sockets[flow as usize] else {
            return self.send(flow, delivery);
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

    fn establish(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let socket = match self.take(flow) {
            Socket::Unconnected(socket) => socket,
            other => {
                self.sockets[flow as usize] = other;
                return self.receive(flow, delivery);
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
        let prepared = || -> io::Result<SocketAddr> {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            prepare(&stream)?;
            stream.peer_addr()
        };
        let peer = prepared()
            .map_err(|error| Stop::Subject(format!("connection to {server}: {error}")))?;
        self.sockets[flow as usize] = Socket::Tcp { stream, peer };
        Ok(())
    }

    fn send(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let server = self.dialogue.server();
        let payload = self.dialogue.request(flow, delivery);
        let sent = match &mut self.sockets[flow as usize] {
            Socket::Udp(socket) => socket.send_to(payload, server).map(drop),
            Socket::Tcp { stream, .. } => stream.write_all(payload),
            Socket::Unconnected(_) | Socket::Closed => {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        };
        sent.map_err(|error| Stop::Subject(format!("cannot send to {server}: {error}")))
    }

    fn receive(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let received = match &mut self.sockets[flow as usize] {
            Socket::Udp(socket) => socket.recv_from(&mut self.answer),
            Socket::Tcp { stream, peer } => {
                let answer = &mut self.answer[..self.dialogue.answer_length(flow)];
                read_message(stream, answer).map(|length| (length, *peer))
            }
            Socket::Unconnected(_) | Socket::Closed => {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        };
        match received {
            Ok((length, source)) => {
                let answer = &self.answer[..length];
                self.dialogue.check(flow, source, answer, delivery)
            }
            Err(error) => Err(self.lost(flow, &error)),
        }
    }

    fn close(&mut self, flow: u32, _: &mut Delivery) -> Result<(), Stop> {
        let Socket::Tcp { mut stream, .. } = self.take(flow) else {
            return Ok(());
        };
        match stream.read(&mut self.answer) {
            Ok(0) => Ok(()),
            Ok(length) => Err(Stop::Subject(format!(
                "{length} bytes came instead of the connection's end"
            ))),
            Err(error) => Err(self.lost(flow, &error)),
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
