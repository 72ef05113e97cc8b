// SPDX-License-Identifier: MIT OR Apache-2.0

//! A listener on a device, as tcpdump is one: of each packet that the device sends it holds a clone, and the
//! packet goes on as one whose headers are shared (dev_queue_xmit_nit()).

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use super::namespace::Namespace;
use super::netlink::VethEnd;
use mutexlab_wire::frame::FRAME_MAX;

// Of linux/if_packet.h.
const PACKET_OUTGOING: u8 = 4;

/// A packet socket for all that passes a device.
pub struct Tap {
    socket: OwnedFd,
    buffer: RefCell<Box<[u8; FRAME_MAX]>>,
}

/// A packet that it held, whose bytes are in the buffer.
struct Held {
    direction: u8,
    length: usize,
}

impl Tap {
    /// Listens on `link` of `namespace` from now on.
    pub fn open(namespace: &Namespace, link: &VethEnd) -> Result<Self> {
        let socket = namespace.run(|| {
            Ok(socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?)
        })?;
        // SAFETY: All bytes zero are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(link.index)?;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the descriptor is open, and the address outlives the call, with its length.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error()).context("cannot listen on a device");
        }
        Ok(Self {
            socket,
            buffer: RefCell::new(Box::new([0; FRAME_MAX])),
        })
    }

    /// Lets go what it holds, of whomever it is: the stack may have sent something of its own.
    pub fn let_go(&self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Lets go what it holds. Fails unless the `frame` that the device has just sent is there, once: it was a clone
    /// until now, if nobody on its way has let it wait.
    pub fn let_go_of(&self, frame: &[u8]) -> Result<()> {
        let mut times = 0;
        while let Some(Held { direction, length }) = self.next()? {
            let is_it =
                direction == PACKET_OUTGOING && self.buffer.borrow().get(..length) == Some(frame);
            times += u32::from(is_it);
        }
        ensure!(
            times == 1,
            "the tap holds the frame {times} times instead of once"
        );
        Ok(())
    }

    /// Takes the next packet, which is let go; `None` if there is none.
    fn next(&self) -> Result<Option<Held>> {
        let mut buffer = self.buffer.borrow_mut();
        let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the descriptor is open; buffer, address and length outlive the call, and no more bytes are written
        // than they have.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                address.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error).context("cannot take a packet from a tap"),
            };
        }
        // SAFETY: It was zero, which is valid, and the kernel has written an address over it.
        let address = unsafe { address.assume_init() };
        Ok(Some(Held {
            direction: address.sll_pkttype,
            length: usize::try_from(received)?,
        }))
    }
}
