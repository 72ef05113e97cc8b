// SPDX-License-Identifier: MIT OR Apache-2.0

//! What joins the client and the server of an open loop: the router, or nothing but a link.

use anyhow::Result;

use super::layout::{quieten, Layout, CLIENT_LINK, SERVER_LINK};
use super::namespace::Namespace;
use super::netlink::{RouteSocket, LOOPBACK};
use crate::net::layout::mac_of;
use crate::traffic::target::Target;
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, WIRE_CLIENT};
use mutexlab_wire::frame::Hop;

/// Two namespaces joined by one link, whose stacks have no address.
pub struct Cable {
    client: Namespace,
    server: Namespace,
}

/// From where to where the frames of both ends go, and in which namespaces.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    /// Where the client is.
    pub client: &'a Namespace,
    /// Where the server is.
    pub server: &'a Namespace,
    /// Where packets must arrive.
    pub target: Target,
    /// Of the client's frames.
    pub to_server: Hop,
    /// Of the server's.
    pub to_client: Hop,
}

impl Cable {
    /// Lays it.
    pub fn new() -> Result<Self> {
        let cable = Self {
            client: Namespace::new("cable's client")?,
            server: Namespace::new("cable's server")?,
        };
        for namespace in [&cable.client, &cable.server] {
            quieten(namespace)?;
        }
        let mut client = RouteSocket::open(&cable.client)?;
        client.add_veth(&CLIENT_LINK, &SERVER_LINK, &cable.server)?;
        let server = RouteSocket::open(&cable.server)?;
        for (mut socket, link) in [(client, &CLIENT_LINK), (server, &SERVER_LINK)] {
            socket.set_up(LOOPBACK)?;
            socket.set_up(link.index)?;
        }
        Ok(cable)
    }

    /// Its ends, where packets arrive as they were sent.
    pub fn wire(&self) -> Wire<'_> {
        let target = Target::Original;
        Wire {
            client: &self.client,
            server: &self.server,
            target,
            to_server: Hop {
                source: mac_of(WIRE_CLIENT),
                destination: mac_of(target.host()),
            },
            to_client: Hop {
                source: mac_of(target.host()),
                destination: mac_of(WIRE_CLIENT),
            },
        }
    }

    /// Takes the link down before the namespaces go.
    pub fn tear_down(self) -> Result<()> {
        RouteSocket::open(&self.client)?.delete_link(CLIENT_LINK.index)
    }
}

impl Layout {
    /// The ends of what leads through the router to `target`.
    pub fn wire(&self, target: Target) -> Wire<'_> {
        Wire {
            client: &self.client,
            server: &self.server,
            target,
            to_server: Hop {
                source: mac_of(WIRE_CLIENT),
                destination: mac_of(ROUTER_CLIENT_SIDE),
            },
            to_client: Hop {
                source: mac_of(target.host()),
                destination: mac_of(ROUTER_SERVER_SIDE),
            },
        }
    }
}
