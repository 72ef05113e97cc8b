// SPDX-License-Identifier: MIT OR Apache-2.0

//! What clients and servers send over the network, and what is seen of it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::fchown;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket;
use nix::{libc, setsockopt_impl, sockopt_impl};
use pnet::packet::ipv4::Ipv4Packet;

use super::super::super::setup::{client_address, original, upstream};
use super::super::super::sockets::{is_readable, udp, PATIENCE};
use super::super::fate::{Fate, Link, Sight};
use super::ground::{Lab, Server, FIRST_PORT, ROUTER_SECOND_LINK, SERVER_SECOND_LINK};
use super::settling::Settling;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::icmp::Report;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{CLIENT, UPSTREAM};
use mutexlab_wire::frame;
use mutexlab_wire::frame::Malformed;

/// Flow of the label of what tells that all before it has passed.
const FENCE: u32 = u32::MAX;
const ETHERNET: usize = 14;
/// How long a round trip may take while links come up, before it is tried again.
const WARMING: Duration = Duration::from_millis(200);
/// Bytes of each datagram.
const LENGTH: usize = 64;

sockopt_impl!(Tos4, SetOnly, libc::IPPROTO_IP, libc::IP_TOS, libc::c_int);
sockopt_impl!(
    Tos6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_TCLASS,
    libc::c_int
);
sockopt_impl!(Ttl4, SetOnly, libc::IPPROTO_IP, libc::IP_TTL, libc::c_int);
sockopt_impl!(
    Ttl6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_UNICAST_HOPS,
    libc::c_int
);
sockopt_impl!(
    SocketMark,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_MARK,
    libc::c_int
);

/// One datagram of a client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where the client is.
    pub way: Way,
    /// Which of the client's sockets: its port is that many after [`FIRST_PORT`].
    pub flow: u16,
    /// The former TOS byte, or the traffic class.
    pub tos: u8,
    /// Mark of the socket.
    pub mark: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Owner of the socket.
    pub owner: u32,
    /// Where to, if not to [`original`].
    pub to: Option<SocketAddr>,
    /// Bytes that it carries.
    pub length: usize,
}

impl Datagram {
    /// A datagram to [`original`] as most are.
    pub const fn of(way: Way, flow: u16) -> Self {
        Self {
            way,
            flow,
            tos: 0,
            mark: 0,
            ttl: 64,
            owner: 0,
            to: None,
            length: LENGTH,
        }
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::of(self.way, self.flow);
        write!(formatter, "{:?}, flow {}", self.way, self.flow)?;
        for (name, value, usual) in [
            ("TOS", u32::from(self.tos), u32::from(usual.tos)),
            ("mark", self.mark, usual.mark),
            ("TTL", u32::from(self.ttl), u32::from(usual.ttl)),
            ("owner", self.owner, usual.owner),
        ] {
            if value != usual {
                write!(formatter, ", {name} {value}")?;
            }
        }
        if let Some(to) = self.to {
            write!(formatter, ", to {to}")?;
        }
        Ok(())
    }
}

impl Lab {
    /// From now on the router may forward nothing, so that only time tells that all has passed.
    pub fn wait_for_silence(&mut self, time: Duration) {
        self.settling = Settling::Wait(time);
    }

    /// The router forwards again.
    pub fn wait_for_fence(&mut self) {
        self.settling = Settling::Fence;
    }

    /// A label that was not used yet.
    pub fn label(&mut self, flow: u16) -> Label {
        self.sent += 1;
        Label {
            flow: u32::from(flow),
            sequence: self.sent,
        }
    }

    /// Sends a frame of the client's with the label in it, as it is, and waits likewise.
    pub fn send_frame(&mut self, frame: &[u8], label: Label) -> Result<Fate> {
        let (client, family) = (&self.layout().client, self.family);
        Channel::open(client, &CLIENT_LINK, family)?.send_frame(frame)?;
        self.seen_of(label)
    }

    /// Sends the same frame of the client's into the router's second link, from its far end.
    pub fn send_frame_into_second(&mut self, frame: &[u8], label: Label) -> Result<Fate> {
        let mut frame = frame.to_vec();
        frame
            .get_mut(..6)
            .context("a frame without addresses")?
            .copy_from_slice(&ROUTER_SECOND_LINK.mac.octets());
        let (server, family) = (&self.layout().server, self.family);
        Channel::open(server, &SERVER_SECOND_LINK, family)?.send_frame(&frame)?;
        self.seen_of(label)
    }

    /// Sends a datagram and waits until nothing of it is on its way any more.
    pub fn send(&mut self, datagram: &Datagram) -> Result<Fate> {
        let label = self.label(datagram.flow);
        self.send_labelled(datagram, label)
    }

    /// What was seen of a packet since it was last looked for.
    pub fn seen_of(&mut self, label: Label) -> Result<Fate> {
        self.settle()?;
        Ok(Fate {
            refused: None,
            sights: self.look(label)?,
        })
    }

    /// All UDP packets that arrived on the links, with or without a label, and where they were going.
    pub fn arrived(&mut self) -> Result<Vec<(Link, SocketAddr)>> {
        let mut all = Vec::new();
        for (link, channel) in &mut self.links {
            while let Some(frame) = channel.receive(&[mac_of(UPSTREAM), SERVER_SECOND_LINK.mac])? {
                let packet = frame::parse(frame).context("on a link")?;
                all.push((*link, packet.header.destination));
            }
        }
        for Server { socket, .. } in &self.servers {
            while is_readable(socket, Duration::ZERO)? {
                socket.recv_from(&mut [0; LENGTH])?;
            }
        }
        Ok(all)
    }

    /// The same with a label of one's own.
    pub fn send_labelled(&mut self, datagram: &Datagram, label: Label) -> Result<Fate> {
        let mut bytes = vec![0; datagram.length];
        payload::fill(&mut bytes, Kind::Request, label);
        let to = datagram.to.unwrap_or_else(|| original(self.family));
        let socket = self.socket(datagram)?;
        let refused = refusal(socket.send_to(&bytes, to))?;
        self.settle()?;
        Ok(Fate {
            refused,
            sights: self.look(label)?,
        })
    }

    /// Lets the server that got something of `flow` last answer, and waits likewise; none if none has.
    pub fn answer(&mut self, way: Way, flow: u16) -> Result<Option<Fate>> {
        let label = self.label(flow);
        let Some(&(server, peer)) = self.peers.get(&label.flow) else {
            return Ok(None);
        };
        let mut bytes = [0; LENGTH];
        payload::fill(&mut bytes, Kind::Answer, label);
        let server = &self.servers.get(server).context("no such server")?.socket;
        // A router's own answer may be refused at once.
        let refused = refusal(server.send_to(&bytes, peer))?;
        self.settle()?;
        let client = self.clients.get(&(way, flow)).context("no such client")?;
        let mut sights = Vec::new();
        while is_readable(client, Duration::ZERO)? {
            let (length, from) = client.recv_from(&mut bytes)?;
            if Label::of(&bytes[..length]) == Some(label) {
                sights.push(Sight::Answered { from });
            }
        }
        Ok(Some(Fate { refused, sights }))
    }

    /// The client's socket for a datagram, with its options.
    fn socket(&mut self, datagram: &Datagram) -> Result<&UdpSocket> {
        let key = (datagram.way, datagram.flow);
        if !self.clients.contains_key(&key) {
            let mut address = client_address(datagram.way, self.family);
            address.set_port(FIRST_PORT + datagram.flow);
            let socket = udp(self.setup.client(datagram.way), address)?;
            self.clients.insert(key, socket);
        }
        let socket = self.clients.get(&key).context("just made")?;
        let (tos, ttl) = (i32::from(datagram.tos), i32::from(datagram.ttl));
        match self.family {
            Family::V4 => {
                socket::setsockopt(socket, Tos4, &tos)?;
                socket::setsockopt(socket, Ttl4, &ttl)?;
            }
            Family::V6 => {
                socket::setsockopt(socket, Tos6, &tos)?;
                socket::setsockopt(socket, Ttl6, &ttl)?;
            }
        }
        socket::setsockopt(socket, SocketMark, &datagram.mark.cast_signed())?;
        fchown(socket, Some(datagram.owner), None).context("cannot give a socket away")?;
        Ok(socket)
    }

    /// Waits for a round trip over the router, behind which nothing is on its way: queues between
    /// virtual links are in order on one CPU.
    pub fn settle(&self) -> Result<()> {
        if let Settling::Wait(time) = self.settling {
            thread::sleep(time);
            return Ok(());
        }
        ensure!(self.pass_fence(PATIENCE)?, "the fence was lost");
        Ok(())
    }

    /// Sends the fence to the server and back; false if it takes longer than `patience`.
    fn pass_fence(&self, patience: Duration) -> Result<bool> {
        let [client, server] = &self.fence;
        let label = Label {
            flow: FENCE,
            sequence: self.sent,
        };
        let mut bytes = [0; LENGTH];
        for (from, to) in [(client, server), (server, client)] {
            payload::fill(&mut bytes, Kind::Request, label);
            from.send_to(&bytes, to.local_addr()?)
                .context("the fence")?;
            loop {
                if !is_readable(to, patience)? {
                    return Ok(false);
                }
                let (length, _) = to.recv_from(&mut bytes)?;
                // One that was given up may come late.
                if Label::of(&bytes[..length]) == Some(label) {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Waits until links that have just come up, which takes the kernel a moment, carry the fence.
    pub fn warm_up(&mut self) -> Result<()> {
        for _ in 0..PATIENCE.as_millis() / WARMING.as_millis() {
            self.sent += 1;
            if self.pass_fence(WARMING)? {
                return Ok(());
            }
        }
        bail!("the links carry nothing")
    }

    /// All that was seen of the packet `label`.
    fn look(&mut self, label: Label) -> Result<Vec<Sight>> {
        let mut bytes = [0; 2048];
        let mut sights = Vec::new();
        for (at, Server { socket, is_alone }) in self.servers.iter().enumerate() {
            while is_readable(socket, Duration::ZERO)? {
                let (length, from) = socket.recv_from(&mut bytes)?;
                if let Some(found) = Label::of(&bytes[..length]) {
                    self.peers.insert(found.flow, (at, from));
                    if *is_alone && found == label {
                        let at = socket.local_addr()?;
                        sights.push(Sight::Delivered { at });
                    }
                }
            }
        }
        for (link, channel) in &mut self.links {
            while let Some(frame) = channel.receive(&[mac_of(UPSTREAM), SERVER_SECOND_LINK.mac])? {
                let class = class(frame);
                let plain = without_options(frame);
                match frame::parse(plain.as_deref().unwrap_or(frame)) {
                    Ok(packet) if Label::of(packet.payload) == Some(label) => {
                        sights.push(Sight::Arrived {
                            link: *link,
                            from: packet.header.source.ip(),
                            to: packet.header.destination,
                            class,
                        });
                    }
                    Err(Malformed::Fragment) => sights.push(Sight::Fragment {
                        link: *link,
                        to: Ipv4Packet::new(&frame[ETHERNET..])
                            .context("an IPv4 header")?
                            .get_destination()
                            .into(),
                    }),
                    Err(Malformed::Checksum(layer)) => bail!("a damaged packet, {layer:?}"),
                    _ => {}
                }
            }
        }
        while let Some(frame) = self.at_client.receive(&[mac_of(CLIENT)])? {
            let Ok(report) = Report::parse(frame) else {
                continue;
            };
            // Neighbours ask for each other where a test has none that are permanent.
            if !is_error(self.family, report.kind) {
                continue;
            }
            let about = [&frame[..ETHERNET], &report.about].concat();
            let about = frame::parse(&about).ok();
            ensure!(
                report.from != upstream(self.family).ip(),
                "the client is told of the upstream: {report:?}"
            );
            sights.push(Sight::Reported {
                kind: report.kind,
                code: report.code,
                about: about.map(|packet| packet.header.destination),
            });
        }
        sights.sort();
        Ok(sights)
    }
}

fn refusal(result: io::Result<usize>) -> Result<Option<Errno>> {
    match result {
        Ok(_) => Ok(None),
        Err(error) => {
            let number = error.raw_os_error().context("an error without a number")?;
            Ok(Some(Errno::from_raw(number)))
        }
    }
}

/// Whether messages of such a type report an error, or another way.
fn is_error(family: Family, kind: u8) -> bool {
    match family {
        Family::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        Family::V6 => kind < 128 || kind == 137,
    }
}

/// The TOS byte of a frame's packet; with IPv6 traffic class and flow label.
fn class(frame: &[u8]) -> u32 {
    match frame.get(ETHERNET..ETHERNET + 4) {
        Some(&[first, tos, _, _]) if first >> 4 == 4 => tos.into(),
        Some(&[a, b, c, d]) => u32::from_be_bytes([a & 0xf, b, c, d]),
        _ => 0,
    }
}

/// The frame without its header of destination options, if it is one of IPv6 and has one.
fn without_options(frame: &[u8]) -> Option<Vec<u8>> {
    const OPTIONS: u8 = 60;
    const NEXT: usize = ETHERNET + 6;
    const HEADERS: usize = ETHERNET + 40;
    if frame.get(ETHERNET)? >> 4 != 6 || *frame.get(NEXT)? != OPTIONS {
        return None;
    }
    let (&next, &units) = (frame.get(HEADERS)?, frame.get(HEADERS + 1)?);
    let options = 8 * (usize::from(units) + 1);
    let body = frame.get(HEADERS + options..)?;
    let mut plain = [frame.get(..HEADERS)?, body].concat();
    plain[NEXT] = next;
    plain[NEXT - 2..NEXT].copy_from_slice(&u16::try_from(body.len()).ok()?.to_be_bytes());
    Some(plain)
}
