// SPDX-License-Identifier: MIT OR Apache-2.0

//! An ordinary redirected connection, to see whether it still works beside something else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::setup::{client_address, original, upstream, FAMILIES, PROTOCOLS};
use super::sockets::{self, accept, connect, listen, udp};
use mutexlab_guest::net::layout::Layout;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};

/// Bytes of each message.
const MESSAGE: usize = 500;

/// Where redirected connections of one IP version arrive, and the namespaces that they cross.
pub struct Servers<'a> {
    layout: &'a Layout,
    family: Family,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl<'a> Servers<'a> {
    /// The upstream of `family`.
    pub fn new(layout: &'a Layout, family: Family) -> Result<Self> {
        Ok(Self {
            layout,
            family,
            tcp: listen(&layout.server, upstream(family))?,
            udp: udp(&layout.server, upstream(family))?,
        })
    }

    /// The upstreams of both IP versions.
    pub fn of_both(layout: &'a Layout) -> Result<Vec<Self>> {
        FAMILIES
            .into_iter()
            .map(|family| Self::new(layout, family))
            .collect()
    }

    /// Opens a connection of the client's, which must be redirected, and says something over it.
    pub fn converse(&self, protocol: Protocol, way: Way) -> Result<Conversation<'_>> {
        let client = match way {
            Way::Forward => &self.layout.client,
            Way::Local => &self.layout.router,
        };
        let from = client_address(way, self.family);
        let ends = match protocol {
            Protocol::Tcp => {
                let client = connect(client, from, original(self.family))?;
                let (server, _) = accept(&self.tcp)?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                Ends::Tcp { client, server }
            }
            Protocol::Udp => Ends::Udp {
                client: udp(client, from)?,
                server: &self.udp,
                seen: None,
            },
        };
        let mut conversation = Conversation {
            ends,
            original: original(self.family),
            turn: 0,
        };
        conversation
            .say()
            .with_context(|| format!("a new {protocol:?} connection, {:?}", self.family))?;
        Ok(conversation)
    }
}

/// One conversation of each protocol with each of `servers`, from the client's namespace.
pub fn of_every_sort<'a>(servers: &'a [Servers<'_>]) -> Result<Vec<Conversation<'a>>> {
    servers
        .iter()
        .flat_map(|servers| PROTOCOLS.map(|protocol| servers.converse(protocol, Way::Forward)))
        .collect()
}

/// A connection with both of its ends.
pub struct Conversation<'a> {
    ends: Ends<'a>,
    original: SocketAddr,
    turn: u32,
}

enum Ends<'a> {
    Tcp {
        client: TcpStream,
        server: TcpStream,
    },
    Udp {
        client: UdpSocket,
        server: &'a UdpSocket,
        // Whom the server sees, which must not change.
        seen: Option<SocketAddr>,
    },
}

impl Conversation<'_> {
    /// Sends a message and its answer; both must arrive whole.
    pub fn say(&mut self) -> Result<()> {
        let label = Label {
            flow: 3,
            sequence: self.turn,
        };
        self.turn += 1;
        match &mut self.ends {
            Ends::Tcp { client, server } => {
                pass(client, server, Kind::Request, label)?;
                pass(server, client, Kind::Answer, label)
            }
            Ends::Udp {
                client,
                server,
                seen,
            } => {
                drain(server)?;
                let now = sockets::send(client, self.original, server, label, MESSAGE)?;
                ensure!(
                    seen.is_none_or(|before| before == now),
                    "the server saw {seen:?} and now sees {now}: it is another flow"
                );
                *seen = Some(now);
                sockets::answer(server, now, client, self.original, label, MESSAGE)
            }
        }
    }
}

/// Forgets what others have sent to `socket`.
fn drain(socket: &UdpSocket) -> Result<()> {
    while sockets::is_readable(socket, Duration::ZERO)? {
        socket.recv_from(&mut [0; MESSAGE])?;
    }
    Ok(())
}

/// Sends a message over a connection; it must arrive whole.
pub fn pass(mut from: &TcpStream, mut to: &TcpStream, kind: Kind, label: Label) -> Result<()> {
    let mut message = [0; MESSAGE];
    payload::fill(&mut message, kind, label);
    from.write_all(&message)
        .with_context(|| format!("cannot send {kind:?} {label:?}"))?;
    let mut received = [0; MESSAGE];
    to.read_exact(&mut received)
        .with_context(|| format!("{kind:?} {label:?} did not arrive"))?;
    ensure!(
        received == message,
        "{kind:?} {label:?} arrived with other content"
    );
    Ok(())
}
