// SPDX-License-Identifier: MIT OR Apache-2.0

//! The network of the guest as [`addresses`](mutexlab_protocol::addresses) has it: links, routes, neighbours.

use anyhow::Result;
use pnet::util::MacAddr;

use super::namespace::Namespace;
use super::netlink::{RouteSocket, VethEnd, LOOPBACK};
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    Host, CLIENT, CLIENTS_LINK, CROWD_V4, CROWD_V4_PREFIX, CROWD_V6, CROWD_V6_PREFIX, ORIGINAL,
    ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, SERVERS_LINK, UPSTREAM, WIRE_CLIENT, WIRE_ORIGINAL,
    WIRE_UPSTREAM,
};

/// A machine's Ethernet address.
pub const fn mac_of(Host { mac, .. }: Host) -> MacAddr {
    let [a, b, c, d, e, f] = mac;
    MacAddr(a, b, c, d, e, f)
}

/// The client's interface.
pub const CLIENT_LINK: VethEnd = VethEnd {
    name: "lan",
    index: 2,
    mac: mac_of(CLIENT),
};
/// The router's interface to the client.
pub const ROUTER_CLIENT_LINK: VethEnd = VethEnd {
    name: CLIENTS_LINK,
    index: 2,
    mac: mac_of(ROUTER_CLIENT_SIDE),
};
/// The router's interface to the server.
pub const ROUTER_SERVER_LINK: VethEnd = VethEnd {
    name: SERVERS_LINK,
    index: 3,
    mac: mac_of(ROUTER_SERVER_SIDE),
};
/// The server's interface.
pub const SERVER_LINK: VethEnd = VethEnd {
    name: "lan",
    index: 2,
    mac: mac_of(UPSTREAM),
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
            socket.add_neighbour(link, host.address(family), mac_of(*host))?;
        }
    }
    Ok(())
}
