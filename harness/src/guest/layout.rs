// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network of the guest: client, router and server, each a network namespace.
//!
//! ```text
//!  client                router                 server
//!  .2, wire .100 ──── .1        .1 ──── .2, .3, wire .100 and .200
//!  192.0.2.0/24                        198.51.100.0/24
//!  2001:db8:1::/64                     2001:db8:2::/64
//! ```
//!
//! Both nets have addresses of two sorts. Those of a *stack* are assigned to the interface, for
//! sockets. Those of the *wire* belong to nobody: neighbour entries lead them to Ethernet
//! addresses that no interface has, so that the stack drops the frames at once and only a packet
//! socket sees them. Nobody ever has to resolve an address, and nothing else is on the links.
//!
//! For traffic of many flows there is a *crowd* of clients, 198.18.0.0/15 and 2001:2::/48 (for
//! benchmarks: RFC 2544, RFC 5180), to which the router's way leads over the wire's .100.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use pnet::util::MacAddr;

use super::namespace::Namespace;
use super::netlink::{RouteSocket, VethEnd, LOOPBACK};
use crate::protocol::Family;

/// Port that the client uses; no subject changes it, so the probe knows its packets by it.
pub const CLIENT_PORT: u16 = 40_000;
/// Port of a client that the probe does not look at; those after it are for further flows.
pub const UNMEASURED_PORT: u16 = 40_001;
/// Port that the client addresses: echo, RFC 862.
pub const ORIGINAL_PORT: u16 = 7;
/// Port that a redirected packet goes to.
pub const UPSTREAM_PORT: u16 = 7007;

/// How many clients are in the crowd.
pub const CROWD_MEMBERS_MAX: u32 = 1 << 16;
/// The first client of the crowd is the first of this net, and the last is within it.
const CROWD_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const CROWD_V4_PREFIX: u8 = 15;
/// See [`CROWD_V4`].
const CROWD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
const CROWD_V6_PREFIX: u8 = 48;

/// A machine on one of the two nets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    net: Net,
    number: u8,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Net {
    Client = 1,
    Server = 2,
}

impl Host {
    const fn new(net: Net, number: u8, mac: u8) -> Self {
        Self {
            net,
            number,
            mac: MacAddr(2, 0, 0, 0, net as u8, mac),
        }
    }

    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        match (family, self.net) {
            (Family::V4, Net::Client) => Ipv4Addr::new(192, 0, 2, self.number).into(),
            (Family::V4, Net::Server) => Ipv4Addr::new(198, 51, 100, self.number).into(),
            (Family::V6, net) => {
                let number = u16::from(self.number);
                Ipv6Addr::new(0x2001, 0xdb8, net as u16, 0, 0, 0, 0, number).into()
            }
        }
    }

    /// Address of the given client of the crowd.
    pub fn crowd(family: Family, member: u32) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(CROWD_V4.to_bits() + 1 + member).into(),
            Family::V6 => Ipv6Addr::from_bits(CROWD_V6.to_bits() + 1 + u128::from(member)).into(),
        }
    }

    /// Which client of the crowd has the address, if any has.
    pub fn crowd_member(address: IpAddr) -> Option<u32> {
        let offset = match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(CROWD_V4.to_bits())?,
            IpAddr::V6(address) => {
                let offset = address.to_bits().checked_sub(CROWD_V6.to_bits())?;
                u32::try_from(offset).ok()?
            }
        };
        offset
            .checked_sub(1)
            .filter(|&member| member < CROWD_MEMBERS_MAX)
    }

    /// Its address with a port.
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        (self.address(family), port).into()
    }
}

/// The router on the client's net.
pub const ROUTER_CLIENT_SIDE: Host = Host::new(Net::Client, 1, 1);
/// The router on the server's net; from here its own connections start.
pub const ROUTER_SERVER_SIDE: Host = Host::new(Net::Server, 1, 1);
/// The client's stack.
pub const CLIENT: Host = Host::new(Net::Client, 2, 2);
/// Another machine on the client's net; only who needs it gives it to the client's interface.
pub const NEIGHBOUR: Host = Host::new(Net::Client, 3, 2);
/// The server's stack where redirected connections go.
pub const UPSTREAM: Host = Host::new(Net::Server, 2, 2);
/// The server's stack where connections were meant to go; the same interface.
pub const ORIGINAL: Host = Host::new(Net::Server, 3, 2);
/// The generator on the client's net.
pub const WIRE_CLIENT: Host = Host::new(Net::Client, 100, 100);
/// The generator on the server's net where redirected packets go.
pub const WIRE_UPSTREAM: Host = Host::new(Net::Server, 100, 100);
/// The generator on the server's net where packets were meant to go.
pub const WIRE_ORIGINAL: Host = Host::new(Net::Server, 200, 200);

/// The client's interface.
pub const CLIENT_LINK: VethEnd = VethEnd {
    name: "lan",
    index: 2,
    mac: CLIENT.mac,
};
/// The router's interface to the client.
pub const ROUTER_CLIENT_LINK: VethEnd = VethEnd {
    name: "clients",
    index: 2,
    mac: ROUTER_CLIENT_SIDE.mac,
};
/// The router's interface to the server.
pub const ROUTER_SERVER_LINK: VethEnd = VethEnd {
    name: "servers",
    index: 3,
    mac: ROUTER_SERVER_SIDE.mac,
};
/// The server's interface.
pub const SERVER_LINK: VethEnd = VethEnd {
    name: "lan",
    index: 2,
    mac: UPSTREAM.mac,
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The three namespaces, joined and configured. Dropping it takes them down.
pub struct Layout {
    /// Where the client is.
    pub client: Namespace,
    /// Where the subject is.
    pub router: Namespace,
    /// Where upstream and original destination are.
    pub server: Namespace,
}

impl Layout {
    /// Lays everything out.
    pub fn new() -> Result<Self> {
        let layout = Self {
            client: Namespace::new("client")?,
            router: Namespace::new("router")?,
            server: Namespace::new("server")?,
        };
        for namespace in [&layout.client, &layout.router, &layout.server] {
            quieten(namespace)?;
        }
        layout.router.set_sysctl("ipv4/ip_forward", "1")?;
        layout.router.set_sysctl("ipv6/conf/all/forwarding", "1")?;

        let mut router = RouteSocket::open(&layout.router)?;
        router.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &layout.client)?;
        router.add_veth(&ROUTER_SERVER_LINK, &SERVER_LINK, &layout.server)?;
        configure(
            &mut router,
            ROUTER_CLIENT_LINK.index,
            &[ROUTER_CLIENT_SIDE],
            &[CLIENT, WIRE_CLIENT],
        )?;
        configure(
            &mut router,
            ROUTER_SERVER_LINK.index,
            &[ROUTER_SERVER_SIDE],
            &[UPSTREAM, ORIGINAL, WIRE_UPSTREAM, WIRE_ORIGINAL],
        )?;

        let mut client = RouteSocket::open(&layout.client)?;
        let gateway = ROUTER_CLIENT_SIDE;
        configure(&mut client, CLIENT_LINK.index, &[CLIENT], &[gateway])?;
        let mut server = RouteSocket::open(&layout.server)?;
        let near = ROUTER_SERVER_SIDE;
        configure(
            &mut server,
            SERVER_LINK.index,
            &[UPSTREAM, ORIGINAL],
            &[near],
        )?;
        for family in FAMILIES {
            client.add_default_route(gateway.address(family))?;
            server.add_default_route(near.address(family))?;
        }
        Ok(layout)
    }

    /// Leads the crowd's packets from the router to the client on the wire. Only who needs it
    /// does: a route more may make the way to all others longer.
    pub fn route_crowd(&self, family: Family) -> Result<()> {
        let (net, prefix) = match family {
            Family::V4 => (CROWD_V4.into(), CROWD_V4_PREFIX),
            Family::V6 => (CROWD_V6.into(), CROWD_V6_PREFIX),
        };
        RouteSocket::open(&self.router)?.add_route(net, prefix, WIRE_CLIENT.address(family))
    }

    /// Takes the links down before the namespaces go, so that nothing is left to the kernel's
    /// own good time but the empty namespaces.
    pub fn tear_down(self) -> Result<()> {
        let mut router = RouteSocket::open(&self.router)?;
        router.delete_link(ROUTER_CLIENT_LINK.index)?;
        router.delete_link(ROUTER_SERVER_LINK.index)
    }
}

/// Keeps a namespace from sending anything that nobody asked for.
pub fn quieten(namespace: &Namespace) -> Result<()> {
    for scope in ["all", "default"] {
        for (variable, value) in [
            // No duplicate address detection, no router discovery, no link-local addresses.
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
            ("addr_gen_mode", "1"),
            // Multicast listener reports can't be switched off: have them over in a moment.
            ("mldv1_unsolicited_report_interval", "1"),
            ("mldv2_unsolicited_report_interval", "1"),
        ] {
            namespace.set_sysctl(&format!("ipv6/conf/{scope}/{variable}"), value)?;
        }
        // A redirected connection's packets may well come from elsewhere than its route says.
        namespace.set_sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        namespace.set_sysctl(&format!("ipv4/conf/{scope}/send_redirects"), "0")?;
    }
    Ok(())
}

/// Brings a link up with the addresses `own` and permanent entries for its `neighbours`.
fn configure(socket: &mut RouteSocket, link: u32, own: &[Host], neighbours: &[Host]) -> Result<()> {
    socket.set_up(LOOPBACK)?;
    socket.set_up(link)?;
    for family in FAMILIES {
        let prefix = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        for host in own {
            socket.add_address(link, host.address(family), prefix)?;
        }
        for host in neighbours {
            socket.add_neighbour(link, host.address(family), host.mac)?;
        }
    }
    Ok(())
}
