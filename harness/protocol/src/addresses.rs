// SPDX-License-Identifier: MIT OR Apache-2.0

//! The addresses of the guest's network: client, router and server, each a network namespace.
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

use mutexlab_model::facts::Place;
use mutexlab_model::traffic::{Ends, Family, Traffic};

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
pub const CROWD_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// See [`CROWD_V4`].
pub const CROWD_V4_PREFIX: u8 = 15;
/// See [`CROWD_V4`].
pub const CROWD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// See [`CROWD_V4`].
pub const CROWD_V6_PREFIX: u8 = 48;

/// A machine on one of the two nets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    net: Net,
    number: u8,
    /// Its Ethernet address.
    pub mac: [u8; 6],
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
            mac: [2, 0, 0, 0, net as u8, mac],
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

/// The router's link to the client.
pub const CLIENTS_LINK: &str = "clients";
/// The router's link to the servers.
pub const SERVERS_LINK: &str = "servers";

/// Where a server listens for `traffic`.
pub fn place(place: Place, traffic: &Traffic) -> SocketAddr {
    let (host, port) = match (traffic.ends, place) {
        (Ends::Wire, Place::Original) => (WIRE_ORIGINAL, ORIGINAL_PORT),
        (Ends::Wire, Place::Upstream) => (WIRE_UPSTREAM, UPSTREAM_PORT),
        (Ends::Stack, Place::Original) => (ORIGINAL, ORIGINAL_PORT),
        (Ends::Stack, Place::Upstream) => (UPSTREAM, UPSTREAM_PORT),
    };
    host.socket(traffic.family, port)
}
