// SPDX-License-Identifier: MIT OR Apache-2.0

//! A router with two links to the servers, and the same packets under the module and under nft.
//!
//! ```text
//!  client            router                 server
//!  .2, .3 ────── .1        .1 ──────── .2, .3   198.51.100.0/24   first
//!  192.0.2.0/24            .1 ──────── .2       203.0.113.0/24    second
//!  2001:db8:1::/64                     2001:db8:2::/64 and 2001:db8:3::/64
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::fchown;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket;
use nix::{libc, setsockopt_impl, sockopt_impl};
use pnet::packet::ipv4::Ipv4Packet;
use pnet::util::MacAddr;

use super::super::pinned::Pinned;
use super::super::setup::{
    client_address, original, upstream, wait_for_way, Setup, FAMILIES, PROTOCOLS,
};
use super::super::sockets::{is_readable, udp, PATIENCE};
use super::fate::{Fate, Link, Sight, Trace};
use crate::guest::channel::Channel;
use crate::guest::icmp::Report;
use crate::guest::iproute2;
use crate::guest::layout::{
    quieten, Layout, CLIENT, CLIENT_LINK, NEIGHBOUR, ORIGINAL, ROUTER_CLIENT_LINK,
    ROUTER_SERVER_LINK, SERVER_LINK, UPSTREAM,
};
use crate::guest::netlink::{RouteSocket, VethEnd};
use crate::guest::nft;
use crate::guest::offload::{self, Offload};
use crate::guest::payload::{self, Kind, Label};
use crate::guest::protocol::{Family, Protocol, Way};
use crate::guest::proxy::{self, Context};
use crate::guest::wire::{self, Malformed};

/// The router's end of the second link.
pub const ROUTER_SECOND_LINK: VethEnd = VethEnd {
    name: "second",
    index: 4,
    mac: MacAddr(2, 0, 0, 0, 3, 1),
};
/// The servers' end of the second link.
pub const SERVER_SECOND_LINK: VethEnd = VethEnd {
    name: "lan2",
    index: 3,
    mac: MacAddr(2, 0, 0, 0, 3, 2),
};

/// The first source port of what is sent; the flows of a test have this one and those after it.
pub const FIRST_PORT: u16 = 40_000;
/// Port to which no rule of any test leads.
const FENCE_PORT: u16 = 9;
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

/// Who redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A rule `dnat` of nftables.
    Nft,
    /// The module.
    Module,
}

/// Connections to `original` go to `upstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where clients send to.
    pub original: SocketAddr,
    /// Where that goes.
    pub upstream: SocketAddr,
}

impl Redirect {
    /// From [`original`] to [`upstream`].
    pub fn usual(family: Family) -> Self {
        Self {
            original: original(family),
            upstream: upstream(family),
        }
    }

    fn dnat(&self) -> String {
        let version = version(self.original.ip());
        PROTOCOLS
            .map(|protocol| {
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                let (address, port) = (self.original.ip(), self.original.port());
                let to = self.upstream;
                format!(
                    "        {version} daddr {address} {protocol} dport {port} dnat {version} to {to}\n"
                )
            })
            .concat()
    }
}

/// `ip` or `ip6`, as nft calls them.
pub fn version(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

/// The router's address on the second link.
pub fn router_on_second(family: Family) -> IpAddr {
    on_second(family, 1)
}

/// The servers' address on the second link: the gateway to all that is behind it.
pub fn server_on_second(family: Family) -> IpAddr {
    on_second(family, 2)
}

fn on_second(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, number.into()).into(),
    }
}

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

/// How a test knows that nothing is on its way any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// By a round trip over the router.
    Fence,
    /// By waiting that long: the router forwards nothing.
    Wait(Duration),
}

/// A socket that is served.
struct Server {
    socket: UdpSocket,
    /// No link that is watched shows that something arrived there.
    is_alone: bool,
}

/// A network with a subject at work in its router.
pub struct Lab {
    /// The module's context, under the module. Before the module, which cannot go while it is open.
    pub context: Option<Context>,
    /// The module, loaded also under nft: without a context it has no hooks.
    pub setup: Setup,
    family: Family,
    links: Vec<(Link, Channel)>,
    at_client: Channel,
    servers: Vec<Server>,
    clients: BTreeMap<(Way, u16), UdpSocket>,
    /// Which server saw each flow last, and whom as its sender.
    peers: BTreeMap<u32, (usize, SocketAddr)>,
    fence: [UdpSocket; 2],
    settling: Settling,
    sent: u32,
    // What is received by two CPUs has no order, and the fence would tell nothing.
    _pinned: Pinned,
}

impl Lab {
    /// Lays everything out and lets `subject` do what `redirects` say.
    pub fn new(subject: Subject, family: Family, redirects: &[Redirect]) -> Result<Self> {
        let pinned = Pinned::to(0)?;
        let setup = Setup::new()?;
        add_second_link(&setup.layout)?;
        let context = match subject {
            Subject::Module => Some(setup.context(&rules(redirects))?),
            Subject::Nft => {
                nft::load(&setup.layout.router, &dnat(redirects))?;
                None
            }
        };
        let layout = &setup.layout;
        // Whatever is seen on a link has its checksums.
        for (namespace, link) in [
            (&layout.client, CLIENT_LINK),
            (&layout.router, ROUTER_CLIENT_LINK),
            (&layout.router, ROUTER_SERVER_LINK),
            (&layout.router, ROUTER_SECOND_LINK),
            (&layout.server, SERVER_LINK),
            (&layout.server, SERVER_SECOND_LINK),
        ] {
            offload::set(namespace, &link, Offload::TxChecksum, false)?;
        }
        let mut client = RouteSocket::open(&layout.client)?;
        let prefix = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        client.add_address(CLIENT_LINK.index, NEIGHBOUR.address(family), prefix)?;
        RouteSocket::open(&layout.router)?.add_neighbour(
            ROUTER_CLIENT_LINK.index,
            NEIGHBOUR.address(family),
            NEIGHBOUR.mac,
        )?;
        let listen =
            |namespace, link| Channel::with_patience(namespace, link, family, Duration::ZERO);
        let links = vec![
            (Link::First, listen(&layout.server, &SERVER_LINK)?),
            (Link::Second, listen(&layout.server, &SERVER_SECOND_LINK)?),
        ];
        let at_client = listen(&layout.client, &CLIENT_LINK)?;
        let fence = [
            udp(&layout.client, NEIGHBOUR.socket(family, FENCE_PORT))?,
            udp(&layout.server, ORIGINAL.socket(family, FENCE_PORT))?,
        ];
        for (variable, value) in [
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/icmp_msgs_per_sec", "100000"),
            ("ipv4/icmp_msgs_burst", "100000"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            // Which of them a namespace has differs between kernels.
            if layout.router.sysctl(variable)?.is_some() {
                layout.router.set_sysctl(variable, value)?;
            }
        }
        for namespace in [&layout.client, &layout.router] {
            // They would be random.
            namespace.set_sysctl("ipv6/auto_flowlabels", "0")?;
        }
        let servers = [upstream(family), original(family)]
            .map(|address| {
                let socket = udp(&layout.server, address)?;
                anyhow::Ok(Server {
                    socket,
                    is_alone: false,
                })
            })
            .into_iter()
            .collect::<Result<_>>()?;
        let mut lab = Self {
            servers,
            settling: Settling::Fence,
            links,
            at_client,
            clients: BTreeMap::new(),
            peers: BTreeMap::new(),
            fence,
            sent: 0,
            family,
            context,
            setup,
            _pinned: pinned,
        };
        lab.warm_up()?;
        Ok(lab)
    }

    /// The network.
    pub fn layout(&self) -> &Layout {
        &self.setup.layout
    }

    /// The IP version.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Runs `ip` commands in the router.
    pub fn ip(&self, script: &str) -> Result<()> {
        iproute2::run(&self.layout().router, self.family, script)
    }

    /// Loads rules of nftables in the router.
    pub fn nft(&self, script: &str) -> Result<()> {
        nft::load(&self.layout().router, script)
    }

    /// A table that leads everything over the second link.
    pub fn add_second_table(&self, table: u32) -> Result<()> {
        let gateway = server_on_second(self.family);
        self.ip(&format!(
            "route add default via {gateway} dev second table {table}\n"
        ))
    }

    /// Serves another address of the servers'.
    pub fn serve(&mut self, address: SocketAddr) -> Result<()> {
        let socket = udp(&self.layout().server, address)?;
        self.add_server(socket, false).map(drop)
    }

    /// Serves an address of the router's.
    pub fn serve_on_router(&mut self, address: SocketAddr) -> Result<&UdpSocket> {
        let socket = udp(&self.layout().router, address)?;
        self.add_server(socket, true)
    }

    /// Serves an address of the client's.
    pub fn serve_at_client(&mut self, address: SocketAddr) -> Result<&UdpSocket> {
        let socket = udp(&self.layout().client, address)?;
        self.add_server(socket, true)
    }

    fn add_server(&mut self, socket: UdpSocket, is_alone: bool) -> Result<&UdpSocket> {
        self.servers.push(Server { socket, is_alone });
        let last = self.servers.last().context("just added")?;
        Ok(&last.socket)
    }

    /// Closes the servers' sockets, so that others may have their addresses.
    pub fn stop_serving(&mut self) {
        self.servers.clear();
    }

    /// Has a client's socket at another address than the usual one.
    pub fn client_at(&mut self, way: Way, flow: u16, address: SocketAddr) -> Result<&UdpSocket> {
        let socket = udp(self.setup.client(way), address)?;
        self.clients.insert((way, flow), socket);
        self.clients.get(&(way, flow)).context("just made")
    }

    /// From now on the router may forward nothing, so that only time tells that all has passed.
    pub fn wait_for_silence(&mut self, time: Duration) {
        self.settling = Settling::Wait(time);
    }

    /// The router forwards again.
    pub fn wait_for_fence(&mut self) {
        self.settling = Settling::Fence;
    }

    /// Takes the second link away; routes over it go with it.
    pub fn delete_second_link(&mut self) -> Result<()> {
        // Its channel would only say that the link is gone.
        self.links.truncate(1);
        RouteSocket::open(&self.layout().router)?.delete_link(ROUTER_SECOND_LINK.index)
    }

    /// Makes it again.
    pub fn restore_second_link(&mut self) -> Result<()> {
        add_second_link(self.layout())?;
        let (server, link) = (&self.layout().server, SERVER_SECOND_LINK);
        offload::set(
            &self.layout().router,
            &ROUTER_SECOND_LINK,
            Offload::TxChecksum,
            false,
        )?;
        let channel = Channel::with_patience(server, &link, self.family, Duration::ZERO)?;
        self.links.push((Link::Second, channel));
        Ok(())
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
        self.settle()?;
        self.look(label).map(|sights| Fate {
            refused: None,
            sights,
        })
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
            while let Some(frame) = channel.receive(&[UPSTREAM.mac, SERVER_SECOND_LINK.mac])? {
                let packet = wire::parse(frame).context("on a link")?;
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

    /// Waits until the links, which come up in the kernel's own time, carry something.
    fn warm_up(&mut self) -> Result<()> {
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
            while let Some(frame) = channel.receive(&[UPSTREAM.mac, SERVER_SECOND_LINK.mac])? {
                let class = class(frame);
                let plain = without_options(frame);
                match wire::parse(plain.as_deref().unwrap_or(frame)) {
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
        while let Some(frame) = self.at_client.receive(&[CLIENT.mac])? {
            let Ok(report) = Report::parse(frame) else {
                continue;
            };
            // Neighbours ask for each other where a test has none that are permanent.
            if !is_error(self.family, report.kind) {
                continue;
            }
            let about = [&frame[..ETHERNET], &report.about].concat();
            let about = wire::parse(&about).ok();
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

    /// Takes everything down.
    pub fn finish(self) -> Result<()> {
        drop((self.context, self.links, self.at_client));
        drop((self.servers, self.clients, self.fence));
        // A test may have taken it down already.
        let _ = RouteSocket::open(&self.setup.layout.router)?.delete_link(ROUTER_SECOND_LINK.index);
        self.setup.finish()
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

fn rules(redirects: &[Redirect]) -> Vec<proxy::Rule> {
    redirects
        .iter()
        .flat_map(|redirect| {
            PROTOCOLS
                .map(|protocol| proxy::redirect(protocol, redirect.original, redirect.upstream))
        })
        .collect()
}

fn dnat(redirects: &[Redirect]) -> String {
    let rules: String = redirects.iter().map(Redirect::dnat).collect();
    format!(
        "table inet redirected {{
    chain incoming {{
        type nat hook prerouting priority -100;
{rules}    }}
    chain own {{
        type nat hook output priority -100;
{rules}    }}
}}
"
    )
}

fn add_second_link(layout: &Layout) -> Result<()> {
    quieten(&layout.router)?;
    let mut router = RouteSocket::open(&layout.router)?;
    router.add_veth(&ROUTER_SECOND_LINK, &SERVER_SECOND_LINK, &layout.server)?;
    let mut server = RouteSocket::open(&layout.server)?;
    let ends = [
        (&mut router, ROUTER_SECOND_LINK, SERVER_SECOND_LINK, 1),
        (&mut server, SERVER_SECOND_LINK, ROUTER_SECOND_LINK, 2),
    ];
    for (socket, own, other, number) in ends {
        socket.set_up(own.index)?;
        for family in FAMILIES {
            let prefix = match family {
                Family::V4 => 24,
                Family::V6 => 64,
            };
            socket.add_address(own.index, on_second(family, number), prefix)?;
            socket.add_neighbour(own.index, on_second(family, 3 - number), other.mac)?;
        }
    }
    for family in FAMILIES {
        let [near, far] = [1, 2].map(|number| SocketAddr::new(on_second(family, number), 0));
        wait_for_way((&layout.router, near), (&layout.server, far))?;
    }
    Ok(())
}

/// Does `scenario` under nft, where `check` must hold, and under the module, where the same must come
/// out, packet by packet.
pub fn beside_nft(
    family: Family,
    redirects: &[Redirect],
    scenario: impl Fn(&mut Lab, &mut Trace) -> Result<()>,
    check: impl Fn(&Trace) -> Result<()>,
) -> Result<()> {
    let under = |subject| {
        let mut lab = Lab::new(subject, family, redirects)?;
        let mut trace = Trace::default();
        scenario(&mut lab, &mut trace).with_context(|| format!("under {subject:?}"))?;
        lab.finish().with_context(|| format!("under {subject:?}"))?;
        anyhow::Ok(trace)
    };
    let nft = under(Subject::Nft)?;
    check(&nft).context("nft does not do what this test takes for granted")?;
    under(Subject::Module)?.ensure_same(&nft)
}

/// Does all of `cases`, and fails with what all that failed say.
pub fn each<T>(
    cases: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    run: impl Fn(&T) -> Result<()>,
) -> Result<()> {
    let mut failures = Vec::new();
    let mut count = 0;
    for case in cases {
        count += 1;
        if let Err(error) = run(&case) {
            failures.push(format!("{}: {error:#}", name(&case)));
        }
    }
    ensure!(
        failures.is_empty(),
        "{} of {count} cases failed\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}
