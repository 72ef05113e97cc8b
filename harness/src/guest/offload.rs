// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a network interface does for its stack: checksums, segmentation, merging.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{bail, Context, Result};
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use super::namespace::Namespace;
use super::netlink::VethEnd;

/// One of the features that the ioctls of ethtool switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of packets sent.
    TxChecksum,
    /// Checksums of packets received.
    RxChecksum,
    /// TCP segmentation by the device.
    Tso,
    /// Segmentation at the last moment before the device.
    Gso,
    /// Merging of received packets.
    Gro,
}

impl Offload {
    /// All of them, in an order in which they can be switched on: segmentation needs checksums.
    pub const ALL: [Self; 5] = [
        Self::TxChecksum,
        Self::RxChecksum,
        Self::Gso,
        Self::Tso,
        Self::Gro,
    ];

    // ETHTOOL_G* and ETHTOOL_S* of linux/ethtool.h.
    const fn commands(self) -> (u32, u32) {
        match self {
            Self::TxChecksum => (0x16, 0x17),
            Self::RxChecksum => (0x14, 0x15),
            Self::Tso => (0x1e, 0x1f),
            Self::Gso => (0x23, 0x24),
            Self::Gro => (0x2b, 0x2c),
        }
    }
}

/// Switches an offload of `link` and makes sure that it is switched.
pub fn set(namespace: &Namespace, link: &VethEnd, offload: Offload, on: bool) -> Result<()> {
    let (get, set) = offload.commands();
    namespace
        .run(|| {
            ethtool(link.name, set, u32::from(on))?;
            let now = ethtool(link.name, get, 0)? != 0;
            if now != on {
                bail!("it is still {}", if now { "on" } else { "off" });
            }
            Ok(())
        })
        .with_context(|| {
            let to = if on { "on" } else { "off" };
            format!("cannot switch {offload:?} of {} {to}", link.name)
        })
}

/// Runs one of ethtool's commands that take or return a single number.
fn ethtool(interface: &str, command: u32, value: u32) -> Result<u32> {
    // struct ethtool_value: command, data.
    let mut request = [command, value];
    // SAFETY: All bytes zero are a valid ifreq.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let name = ifreq.ifr_name.iter_mut().rev().skip(1).rev();
    for (to, from) in name.zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    let socket = socket::socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("cannot open a socket")?;
    // SAFETY: The descriptor is open, and SIOCETHTOOL with these commands reads the ifreq and
    // reads or writes the eight bytes that it points to; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut ifreq) };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("ioctl SIOCETHTOOL");
    }
    Ok(request[1])
}
