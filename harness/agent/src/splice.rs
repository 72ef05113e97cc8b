// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab-agent splice-proxy`: a transparent proxy in user space as one would write it today, to
//! compare the module with. One thread, epoll, and splice(2), so that no payload is copied into
//! this process.

mod relay;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;

use anyhow::{bail, Context, Result};
use mutexlab_guest::kernel::locked;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    self, setsockopt, sockopt, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage,
};

use relay::{Relay, Side};

/// Events taken at once.
const EVENTS: usize = 64;
/// The listener's token; relays have two each, from 0.
const LISTENER: u64 = u64::MAX;

/// A proxy that takes connections that a TPROXY rule leads here, and splices them to an upstream. It needs
/// CAP_NET_ADMIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Where the rule leads connections.
    pub listen: SocketAddr,
    /// Where connections to some address go; all others go where they were meant to.
    pub rules: Vec<Rule>,
}

/// Connections to one address go to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    original: SocketAddr,
    upstream: SocketAddr,
}

impl FromStr for Rule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (original, upstream) = text
            .split_once('=')
            .with_context(|| format!("{text:?} has no ="))?;
        let parse = |address: &str| {
            address
                .parse()
                .with_context(|| format!("{address:?} is no address with a port"))
        };
        Ok(Self {
            original: parse(original)?,
            upstream: parse(upstream)?,
        })
    }
}

impl Splice {
    /// Runs until it is killed.
    ///
    /// # Errors
    /// If it cannot listen; what befalls a connection is no error.
    pub fn run(self) -> Result<()> {
        locked::keep()?;
        let mut proxy = Proxy::new(self.listen, self.rules)?;
        loop {
            proxy.turn()?;
        }
    }
}

struct Proxy {
    listener: TcpListener,
    rules: Vec<Rule>,
    epoll: Epoll,
    relays: Vec<Option<Relay>>,
}

impl Proxy {
    fn new(listen: SocketAddr, rules: Vec<Rule>) -> Result<Self> {
        let listener =
            transparent_listener(listen).with_context(|| format!("cannot listen at {listen}"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?;
        epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
            .context("cannot watch the listener")?;
        Ok(Self {
            listener,
            rules,
            epoll,
            relays: Vec::new(),
        })
    }

    /// Waits for events and deals with them.
    fn turn(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            result => result.context("cannot wait for events")?,
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(),
                token => self.relay(token),
            }
        }
        Ok(())
    }

    /// Takes a connection, if there is one, and starts to connect to where it goes. A connection
    /// that cannot be served is closed, as any server does.
    fn accept(&mut self) {
        let Ok((client, _)) = self.listener.accept() else {
            return;
        };
        // Its own address is where the client wanted to go: that is what TPROXY is for.
        let Ok(original) = client.local_addr() else {
            return;
        };
        let rule = self.rules.iter().find(|rule| rule.original == original);
        let to = rule.map_or(original, |rule| rule.upstream);
        if let Err(error) = self.start(client, to) {
            eprintln!("mutexlab-agent splice-proxy: connection to {original}: {error:#}");
        }
    }

    fn start(&mut self, client: TcpStream, to: SocketAddr) -> Result<()> {
        client.set_nonblocking(true)?;
        let server = start_connecting(to)?;
        let relay = Relay::new(client, server)?;
        let place = self.relays.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.relays.push(None);
            self.relays.len() - 1
        });
        for side in Side::BOTH {
            let event = EpollEvent::new(relay.interest(side), token(place, side));
            self.epoll.add(relay.socket(side), event)?;
        }
        self.relays[place] = Some(relay);
        Ok(())
    }

    /// Goes on with the relay of a token, and drops it when it is done or broken.
    fn relay(&mut self, token: u64) {
        let place = usize::try_from(token / 2).unwrap_or(usize::MAX);
        let Some(Some(relay)) = self.relays.get_mut(place) else {
            // It ended while this event waited.
            return;
        };
        let before = Side::BOTH.map(|side| relay.interest(side));
        let goes_on = relay.go_on().unwrap_or(false);
        if !goes_on {
            // Closed sockets leave the epoll by themselves.
            self.relays[place] = None;
            return;
        }
        for (side, before) in Side::BOTH.into_iter().zip(before) {
            let now = relay.interest(side);
            if now == before {
                continue;
            }
            let mut event = EpollEvent::new(now, self::token(place, side));
            if self.epoll.modify(relay.socket(side), &mut event).is_err() {
                self.relays[place] = None;
                return;
            }
        }
    }
}

fn token(place: usize, side: Side) -> u64 {
    2 * place as u64 + side as u64
}

/// Listens for connections to any address.
fn transparent_listener(address: SocketAddr) -> Result<TcpListener> {
    let socket = open(address)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)
        .context("cannot take connections to other machines: it needs CAP_NET_ADMIN")?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(TcpListener::from(socket))
}

/// A connection that is on its way.
fn start_connecting(to: SocketAddr) -> Result<TcpStream> {
    let socket = open(to)?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => bail!("cannot connect to {to}: {error}"),
    }
}

fn open(address: SocketAddr) -> Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket::socket(family, SockType::Stream, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_two_addresses() {
        let rule: Rule = "[::1]:7=127.0.0.1:7007".parse().unwrap();
        assert_eq!(rule.original, "[::1]:7".parse().unwrap());
        assert_eq!(rule.upstream, "127.0.0.1:7007".parse().unwrap());
        for bad in ["", "1.2.3.4:5", "1.2.3.4:5=", "1.2.3.4=1.2.3.4:5"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }
}
