// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a new connection ends up: at the upstream, at the original destination, refused, or nowhere.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use super::setup::{client_address, original, upstream, Setup};
use super::sockets::{accept, is_readable, listen, start_connecting, udp};
use mutexlab_model::traffic::{Family, Protocol, Way};

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// At the upstream.
    Upstream,
    /// Where it was meant to go.
    Original,
    /// The client is told that nobody takes it.
    Refused,
    /// Nobody hears of it, not even the client.
    Nowhere,
}

/// Each client has a port of its own: flows of those before it are still there, as other rules made them.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 10_000;

/// So long somebody may hear of it.
const TRIES: u32 = 40;
const TRY: Duration = Duration::from_millis(5);

/// Sockets at both servers, and a client that this thread opens as whoever it is.
pub fn land(setup: &Setup, way: Way, family: Family, protocol: Protocol) -> Result<Landing> {
    land_as(setup, way, family, protocol, |_| Ok(()))
}

/// The same with a client whose datagrams' socket is `changed` first.
pub fn land_as(
    setup: &Setup,
    way: Way,
    family: Family,
    protocol: Protocol,
    changed: impl Fn(&UdpSocket) -> Result<()>,
) -> Result<Landing> {
    let mut from = client_address(way, family);
    from.set_port(FIRST_PORT + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS);
    let to = original(family);
    let landing = match protocol {
        Protocol::Udp => {
            let client = udp(setup.client(way), from)?;
            changed(&client)?;
            datagram(setup, &client, family)
        }
        Protocol::Tcp => connection(setup, way, from, to, family),
    };
    landing.with_context(|| format!("{way:?} {family:?} {protocol:?}"))
}

fn datagram(setup: &Setup, client: &UdpSocket, family: Family) -> Result<Landing> {
    let servers = [upstream(family), original(family)];
    let servers = servers.map(|address| udp(&setup.layout.server, address));
    let [there, here] = servers;
    let (there, here) = (there?, here?);
    client.connect(original(family))?;
    client.set_nonblocking(true)?;
    match client.send(&[1]) {
        Ok(_) => {}
        // A machine's own hears at once.
        Err(error) if is_refusal(&error) => return Ok(Landing::Refused),
        // What a hook drops on the way out.
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {}
        Err(error) => return Err(error.into()),
    }
    for _ in 0..TRIES {
        if is_readable(&there, TRY)? {
            return Ok(Landing::Upstream);
        }
        if is_readable(&here, Duration::ZERO)? {
            return Ok(Landing::Original);
        }
        match client.recv(&mut [0]) {
            Err(error) if is_refusal(&error) => return Ok(Landing::Refused),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => bail!("the client heard {other:?}"),
        }
    }
    Ok(Landing::Nowhere)
}

fn is_refusal(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}

fn connection(
    setup: &Setup,
    way: Way,
    from: SocketAddr,
    to: SocketAddr,
    family: Family,
) -> Result<Landing> {
    let there = listen(&setup.layout.server, upstream(family))?;
    let here = listen(&setup.layout.server, original(family))?;
    let client = setup.client(way).run(|| start_connecting(from, to))?;
    for _ in 0..TRIES {
        for (server, landing) in [(&there, Landing::Upstream), (&here, Landing::Original)] {
            if is_readable(server, TRY)? {
                accept(server)?;
                return Ok(landing);
            }
        }
        match getsockopt(&client.as_fd(), sockopt::SocketError)? {
            0 => {}
            error if error == Errno::ECONNREFUSED as i32 => return Ok(Landing::Refused),
            error => bail!("the client is told {}", Errno::from_raw(error)),
        }
    }
    Ok(Landing::Nowhere)
}

/// Fails if a connection of any of these does not land there.
pub fn ensure_lands(
    setup: &Setup,
    ways: &[Way],
    protocols: &[Protocol],
    expected: Landing,
) -> Result<()> {
    for &way in ways {
        for &protocol in protocols {
            for family in super::setup::FAMILIES {
                let landing = land(setup, way, family, protocol)?;
                ensure!(
                    landing == expected,
                    "{way:?} {family:?} {protocol:?}: expected {expected:?}, got {landing:?}"
                );
            }
        }
    }
    Ok(())
}
