// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events of the family `mutex-proxy`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use mutex_abi::netlink::attribute::Attributes;
use mutex_abi::netlink::event::Event;
use mutex_abi::netlink::message::{EVENTS, FAMILY};

use crate::error::Error;
use crate::generic::GenericSocket;

/// Listens to what happens in the network namespace of the thread that opened it.
///
/// Events are told within a second or so, to those who listen then.
#[derive(Debug)]
pub struct Monitor {
    socket: GenericSocket,
    family: u16,
    waiting: VecDeque<Event>,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.descriptor()
    }
}

impl Monitor {
    /// Begins to listen, which needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// [`Error::NoModule`] if the module is not loaded; EPERM.
    pub fn open() -> Result<Self, Error> {
        let mut socket = GenericSocket::open()?;
        let family = socket.family(FAMILY)?;
        socket.join(FAMILY, EVENTS)?;
        Ok(Self {
            socket,
            family,
            waiting: VecDeque::new(),
        })
    }

    /// Waits for the next event; events of later versions are passed over.
    ///
    /// # Errors
    /// ENOBUFS: some were lost, since they were not taken in time. Others come.
    pub fn wait(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            for (command, attributes) in self.socket.listen(self.family)? {
                let read = Event::read(command, Attributes::new(&attributes));
                let nonsense = |_| Error::Protocol("attributes that mean nothing");
                self.waiting.extend(read.map_err(nonsense)?);
            }
        }
    }
}
