// SPDX-License-Identifier: MIT OR Apache-2.0

//! A server with sockets of the server's own stack, at both targets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::TcpStreamExt;

use anyhow::{Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use super::flows::Flows;
use super::payload::{self, Kind, Label};
use super::server::{Served, Server};
use super::sizes::Sizes;
use crate::net::layout::Layout;
use crate::traffic::target::{Stop, Target, PATIENCE};
use mutexlab_model::facts::{Arrival, Origin};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Protocol, Traffic};
use mutexlab_protocol::addresses::{ROUTER_SERVER_SIDE, UPSTREAM};

/// The server.
pub struct StackServer {
    family: Family,
    arrival: Arrival,
    flows: Flows,
    // Where flows should arrive, and where not.
    right: Door,
    wrong: Door,
    ends: Vec<End>,
    packets: u64,
    bytes: u64,
    sizes: Sizes,
    message: Vec<u8>,
}

/// Where flows arrive.
enum Door {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

/// This end of a flow.
#[derive(Default)]
struct End {
    requests: u32,
    stream: Option<TcpStream>,
}

impl StackServer {
    /// Starts to listen for the clients of `flows`.
    pub fn new(layout: &Layout, traffic: &Traffic, flows: Flows, arrival: Arrival) -> Result<Self> {
        let open = |target: Target| {
            let address = target.address(traffic);
            layout
                .server
                .run(|| Door::open(traffic.protocol, address))
                .with_context(|| format!("cannot listen at {address}"))
        };
        let sizes = Sizes::of(traffic);
        Ok(Self {
            family: traffic.family,
            arrival,
            flows,
            right: open(Target::from(arrival.at))?,
            wrong: open(Target::from(arrival.at).other())?,
            ends: (0..flows.count()).map(|_| End::default()).collect(),
            packets: 0,
            bytes: 0,
            // A byte more, so that what is too long is noticed.
            message: vec![0; sizes.max() + 1],
            sizes,
        })
    }

    /// Fixes the size of the receive buffers of connections that come from now on.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        setsockopt(&self.right, sockopt::RcvBufForce, &bytes)
            .context("cannot set the size of a receive buffer")
    }

    /// The connection of the first flow, if there is one.
    pub fn into_stream(mut self) -> Option<TcpStream> {
        self.ends.first_mut()?.stream.take()
    }

    /// Takes the next connection, which is the flow's: they come in the flows' order.
    fn accept(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let Door::Tcp(listener) = &self.right else {
            return Ok(());
        };
        let mut ready =
            [&self.right, &self.wrong].map(|door| PollFd::new(door.as_fd(), PollFlags::POLLIN));
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let count = poll(&mut ready, patience).context("cannot wait for a connection")?;
        self.ensure_nothing_astray(delivery)?;
        if count == 0 {
            return Err(Stop::lost(&format!("the connection of flow {flow}")));
        }
        let (stream, peer) = listener.accept().context("cannot accept")?;
        self.ensure_sender(flow, peer)?;
        prepare(&stream).context("cannot prepare a connection")?;
        self.ends[flow as usize].stream = Some(stream);
        Ok(())
    }

    /// Fails if `sender` is not whom this server should see of the flow.
    fn ensure_sender(&self, flow: u32, sender: SocketAddr) -> Result<(), Stop> {
        let client = self.flows.client(flow);
        let (right, expected) = match self.arrival.from {
            Origin::Client => (sender == client, client.to_string()),
            Origin::Router | Origin::Upstream => {
                let host = match self.arrival.from {
                    Origin::Router => ROUTER_SERVER_SIDE,
                    _ => UPSTREAM,
                };
                let address = host.address(self.family);
                (sender.ip() == address, address.to_string())
            }
        };
        if right {
            return Ok(());
        }
        Err(Stop::Subject(format!(
            "flow {flow} came from {sender} instead of {expected}"
        )))
    }

    fn answer(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        let label = Label {
            flow,
            sequence: self.ends[flow as usize].requests,
        };
        let expected = self.sizes.payload(label.number());
        let (length, sender) = self.receive(flow, label, expected, delivery)?;
        self.packets += 1;
        self.bytes += length as u64;
        *Target::from(self.arrival.at).count(delivery) += 1;
        let message = &mut self.message[..length];
        if length != expected || !payload::is_intact(message, Kind::Request, label) {
            delivery.bad_payload += 1;
            return Err(Stop::Subject(format!(
                "request {} of flow {flow} has other bytes than were sent: {:?}, {length} of \
                 {expected}",
                label.sequence,
                Label::of(message)
            )));
        }
        let end = &mut self.ends[flow as usize];
        end.requests += 1;
        payload::fill(message, Kind::Answer, label);
        let sent = match (&mut end.stream, &self.right) {
            (Some(stream), _) => stream.write_all(message),
            (None, Door::Udp(socket)) => socket.send_to(message, sender).map(drop),
            (None, Door::Tcp(_)) => Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map_err(|error| Stop::Subject(format!("cannot answer flow {flow}: {error}")))?;
        self.packets += 1;
        Ok(())
    }

    /// Receives a request of `expected` bytes; returns its length and whom it is from.
    fn receive(
        &mut self,
        flow: u32,
        label: Label,
        expected: usize,
        delivery: &mut Delivery,
    ) -> Result<(usize, SocketAddr), Stop> {
        let what = || format!("request {} of flow {flow}", label.sequence);
        let received = match (&mut self.ends[flow as usize].stream, &self.right) {
            // Whose it is was looked at when it was accepted.
            (Some(stream), _) => read_message(stream, &mut self.message[..expected])
                .map(|length| (length, self.flows.client(flow))),
            (None, Door::Udp(socket)) => socket.recv_from(&mut self.message),
            (None, Door::Tcp(_)) => Err(io::ErrorKind::NotConnected.into()),
        };
        match received {
            Ok((length, sender)) => {
                if self.ends[flow as usize].stream.is_none() {
                    self.ensure_sender(flow, sender)?;
                }
                Ok((length, sender))
            }
            Err(error) => {
                self.ensure_nothing_astray(delivery)?;
                Err(lost(&what(), &error))
            }
        }
    }

    /// Fails if something has come to the wrong place.
    fn ensure_nothing_astray(&self, delivery: &mut Delivery) -> Result<(), Stop> {
        let mut ready = [PollFd::new(self.wrong.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::ZERO).context("cannot look at a socket")? == 0 {
            return Ok(());
        }
        let elsewhere = Target::from(self.arrival.at).other();
        *elsewhere.count(delivery) += 1;
        Err(Stop::Subject(format!(
            "something came to the {elsewhere} instead of the {}",
            Target::from(self.arrival.at)
        )))
    }

    fn closed(&mut self, flow: u32) -> Result<(), Stop> {
        let Some(mut stream) = self.ends[flow as usize].stream.take() else {
            return Ok(());
        };
        match stream.read(&mut self.message) {
            Ok(0) => Ok(()),
            Ok(length) => Err(Stop::Subject(format!(
                "{length} bytes came to the server instead of the connection's end"
            ))),
            Err(error) => Err(lost("the connection's end", &error)),
        }
    }
}

impl Server for StackServer {
    fn serve_until(
        &mut self,
        flow: u32,
        wanted: Served,
        delivery: &mut Delivery,
    ) -> Result<(), Stop> {
        match wanted {
            // The stack does it by itself.
            Served::Opened => Ok(()),
            Served::Acknowledged => self.accept(flow, delivery),
            Served::Answered => self.answer(flow, delivery),
            Served::Closed => self.closed(flow),
        }
    }

    fn finish(&mut self, flow: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        self.ensure_nothing_astray(delivery)?;
        let Some(stream) = &self.ends[flow as usize].stream else {
            return Ok(());
        };
        stream
            .shutdown(std::net::Shutdown::Write)
            .map_err(|error| Stop::Subject(format!("cannot close flow {flow}: {error}")))
    }

    fn packets(&self) -> u64 {
        self.packets
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Door {
    fn open(protocol: Protocol, address: SocketAddr) -> Result<Self> {
        Ok(match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Self::Udp(socket)
            }
            Protocol::Tcp => Self::Tcp(TcpListener::bind(address)?),
        })
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Has a connection wait for at most [`PATIENCE`], and send no segments but those with payload:
/// acknowledgements ride on the next one.
///
/// # Errors
/// If the kernel refuses.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.set_quickack(false)
}

/// Reads until `message` is full or the stream ends; returns how much came.
///
/// # Errors
/// If the stream breaks, or nothing comes in time.
pub fn read_message(stream: &mut TcpStream, message: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < message.len() {
        match stream.read(&mut message[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// What the failure to receive `what` means.
pub fn lost(what: &str, error: &io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Stop::lost(what),
        _ => Stop::Subject(format!("waiting for {what}: {error}")),
    }
}
