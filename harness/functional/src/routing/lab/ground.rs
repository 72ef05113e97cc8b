// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machines and their links, and who redirects between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use pnet::util::MacAddr;

use super::super::super::pinned::Pinned;
use super::super::super::redirector::Redirector;
use super::super::super::setup::{original, upstream, wait_for_way, Setup, FAMILIES, PROTOCOLS};
use super::super::super::sockets::udp;
use super::super::fate::{Link, Trace};
use mutexlab_guest::net::iproute2;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{
    quieten, Layout, CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use mutexlab_guest::net::netlink::{RouteSocket, VethEnd};
use mutexlab_guest::net::nft;
use mutexlab_guest::net::offload;
use mutexlab_guest::net::offload::Offload;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{NEIGHBOUR, ORIGINAL};

use super::settling::Settling;

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

/// A socket that is served.
pub struct Server {
    /// Where it receives.
    pub socket: UdpSocket,
    /// No link that is watched shows that something arrived there.
    pub is_alone: bool,
}

/// A network with one who redirects at work in its router.
pub struct Lab {
    /// The module's context, under the module. Before the module, which cannot go while it is open.
    pub context: Option<Context>,
    /// The module, loaded also under nft: without a context it has no hooks.
    pub setup: Setup,
    pub(super) family: Family,
    pub(super) links: Vec<(Link, Channel)>,
    pub(super) at_client: Channel,
    pub(super) servers: Vec<Server>,
    pub(super) clients: BTreeMap<(Way, u16), UdpSocket>,
    /// Which server saw each flow last, and whom as its sender.
    pub(super) peers: BTreeMap<u32, (usize, SocketAddr)>,
    pub(super) fence: [UdpSocket; 2],
    pub(super) settling: Settling,
    pub(super) sent: u32,
    // What is received by two CPUs has no order, and the fence would tell nothing.
    _pinned: Pinned,
}

impl Lab {
    /// Lays everything out and lets `redirector` do what `redirects` say.
    pub fn new(redirector: Redirector, family: Family, redirects: &[Redirect]) -> Result<Self> {
        let pinned = Pinned::to(0)?;
        let setup = Setup::new()?;
        add_second_link(&setup.layout)?;
        let context = match redirector {
            Redirector::Module => Some(setup.context(&rules(redirects))?),
            Redirector::Nft => {
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
            (&layout.server, SERVER_LINK),
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
            mac_of(NEIGHBOUR),
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
        let channel = Channel::with_patience(server, &link, self.family, Duration::ZERO)?;
        self.links.push((Link::Second, channel));
        Ok(())
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

fn rules(redirects: &[Redirect]) -> Vec<context::Rule> {
    redirects
        .iter()
        .flat_map(|redirect| {
            PROTOCOLS
                .map(|protocol| context::redirect(protocol, redirect.original, redirect.upstream))
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
    // Whatever is seen on it has its checksums.
    for (namespace, link) in [
        (&layout.router, ROUTER_SECOND_LINK),
        (&layout.server, SERVER_SECOND_LINK),
    ] {
        offload::set(namespace, &link, Offload::TxChecksum, false)?;
    }
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
    let under = |redirector| {
        let mut lab = Lab::new(redirector, family, redirects)?;
        let mut trace = Trace::default();
        scenario(&mut lab, &mut trace).with_context(|| format!("under {redirector:?}"))?;
        lab.finish()
            .with_context(|| format!("under {redirector:?}"))?;
        anyhow::Ok(trace)
    };
    let nft = under(Redirector::Nft)?;
    check(&nft).context("nft does not do what this test takes for granted")?;
    under(Redirector::Module)?.ensure_same(&nft)
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
