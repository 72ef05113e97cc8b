// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two connections whose streams are led into each other, each way through a pipe.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{splice, OFlag, SpliceFFlags};
use nix::sys::epoll::EpollFlags;
use nix::unistd::pipe2;

/// Asked for at once: as much as a pipe holds by default (pipe(7)).
const PIPE: usize = 1 << 16;

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was taken.
    Client,
    /// The one that was made.
    Server,
}

impl Side {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Both connections.
pub struct Relay {
    sockets: [TcpStream; 2],
    // By the side that they start from.
    ways: [Way; 2],
    connected: bool,
}

/// What one way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For something to read.
    Read,
    /// For room to write to.
    Write,
    /// For nothing: its stream has ended.
    Ended,
}

/// One way through a pipe.
struct Way {
    entry: OwnedFd,
    exit: OwnedFd,
    // Bytes in the pipe.
    held: usize,
    wait: Wait,
}

impl Relay {
    /// A relay whose `server` need not be connected yet.
    ///
    /// # Errors
    /// If there can be no more pipes, or a socket is none.
    pub fn new(client: TcpStream, server: TcpStream) -> Result<Self> {
        for socket in [&client, &server] {
            // What comes goes on at once.
            socket
                .set_nodelay(true)
                .context("cannot switch Nagle off")?;
        }
        Ok(Self {
            sockets: [client, server],
            ways: [Way::new()?, Way::new()?],
            connected: false,
        })
    }

    /// The socket of a side.
    pub fn socket(&self, side: Side) -> &TcpStream {
        &self.sockets[side as usize]
    }

    /// What has to happen to the socket of a side.
    pub fn interest(&self, side: Side) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if !self.connected {
            // Nothing can be done before the server is there.
            flags.set(EpollFlags::EPOLLOUT, side == Side::Server);
            return flags;
        }
        let reads = self.ways[side as usize].wait == Wait::Read;
        let writes = self.ways[side.other() as usize].wait == Wait::Write;
        flags.set(EpollFlags::EPOLLIN, reads);
        flags.set(EpollFlags::EPOLLOUT, writes);
        flags
    }

    /// Does what can be done; returns whether there is more to come.
    ///
    /// # Errors
    /// If a connection is broken.
    pub fn go_on(&mut self) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.sockets[Side::Server as usize].take_error()? {
                return Err(error);
            }
            self.connected = true;
        }
        for side in Side::BOTH {
            let (from, to) = (
                &self.sockets[side as usize],
                &self.sockets[side.other() as usize],
            );
            self.ways[side as usize].go_on(from, to)?;
        }
        Ok(self.ways.iter().any(|way| way.wait != Wait::Ended))
    }
}

impl Way {
    fn new() -> Result<Self> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (exit, entry) = pipe2(flags).context("cannot make a pipe")?;
        Ok(Self {
            entry,
            exit,
            held: 0,
            wait: Wait::Read,
        })
    }

    fn go_on(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        while self.wait != Wait::Ended {
            if self.held == 0 {
                match splice(from, None, &self.entry, None, PIPE, flags) {
                    Ok(0) => {
                        self.wait = Wait::Ended;
                        return to.shutdown(Shutdown::Write);
                    }
                    Ok(moved) => self.held = moved,
                    Err(Errno::EAGAIN) => {
                        self.wait = Wait::Read;
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            match splice(&self.exit, None, to, None, self.held, flags) {
                Ok(moved) => self.held -= moved,
                Err(Errno::EAGAIN) => {
                    self.wait = Wait::Write;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if self.held == 0 {
                // If there is more, epoll says so at once.
                self.wait = Wait::Read;
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (there, _) = listener.accept().unwrap();
        there.set_nonblocking(true).unwrap();
        (here, there)
    }

    #[test]
    fn streams_and_their_ends_go_both_ways() {
        let (mut client, near) = pair();
        let (mut server, far) = pair();
        let mut relay = Relay::new(near, far).unwrap();
        assert_eq!(relay.interest(Side::Client), EpollFlags::empty());
        assert_eq!(relay.interest(Side::Server), EpollFlags::EPOLLOUT);

        client.write_all(b"there").unwrap();
        server.write_all(b"and back").unwrap();
        assert!(relay.go_on().unwrap());
        let mut buffer = [0; 16];
        assert_eq!(server.read(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"there");
        assert_eq!(client.read(&mut buffer).unwrap(), 8);
        assert_eq!(relay.interest(Side::Client), EpollFlags::EPOLLIN);

        client.shutdown(Shutdown::Write).unwrap();
        assert!(relay.go_on().unwrap());
        assert_eq!(server.read(&mut buffer).unwrap(), 0);
        // The other way is still open.
        server.write_all(b"more").unwrap();
        assert!(relay.go_on().unwrap());
        assert_eq!(client.read(&mut buffer).unwrap(), 4);
        drop(server);
        assert!(!relay.go_on().unwrap());
        assert_eq!(client.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn whoever_does_not_read_is_waited_for() {
        let (mut client, near) = pair();
        let (mut server, far) = pair();
        let mut relay = Relay::new(near, far).unwrap();
        client.set_nonblocking(true).unwrap();
        let block = [7; 1 << 16];
        let mut sent = 0;
        while relay.ways[0].wait != Wait::Write {
            sent += client.write(&block).unwrap_or(0);
            assert!(relay.go_on().unwrap());
            assert!(sent < 1 << 30, "nothing is ever full");
        }
        assert_eq!(relay.interest(Side::Client), EpollFlags::empty());
        assert_eq!(
            relay.interest(Side::Server),
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT
        );
        drop(client);
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        server.set_nonblocking(true).unwrap();
        loop {
            match server.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => received += read,
                Err(_) => drop(relay.go_on()),
            }
        }
        assert_eq!(received, sent);
    }
}
