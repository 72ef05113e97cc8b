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

/// Switches a feature that only has a name, such as `rx-gro-list`, and makes sure that it is switched.
pub fn set_feature(namespace: &Namespace, link: &VethEnd, name: &str, on: bool) -> Result<()> {
    // Of linux/ethtool.h: ETHTOOL_GSTRINGS, ETH_SS_FEATURES, ETHTOOL_GFEATURES, ETHTOOL_SFEATURES.
    const STRINGS: u32 = 0x1b;
    const FEATURES: u32 = 4;
    const GET: u32 = 0x3a;
    const SET: u32 = 0x3b;
    /// Bytes of each name.
    const NAME: usize = 32;
    /// The most features: the kernel has no more than 128 yet.
    const MOST: usize = 256;
    let switched = || -> Result<bool> {
        // struct ethtool_gstrings: command, set, count; then the names.
        let mut strings = vec![0_u32; 3 + MOST * NAME / 4];
        (strings[0], strings[1]) = (STRINGS, FEATURES);
        run(link.name, &mut strings)?;
        let count = strings[2] as usize;
        let names: Vec<u8> = strings[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let number = names
            .chunks(NAME)
            .take(count)
            .position(|bytes| bytes.split(|&byte| byte == 0).next() == Some(name.as_bytes()))
            .context("the kernel has no such feature")?;
        let (block, bit) = (number / 32, 1_u32 << (number % 32));
        // struct ethtool_sfeatures: command, count of blocks; then valid and requested bits of each.
        let blocks = count.div_ceil(32);
        let mut request = vec![0; 2 + 2 * blocks];
        (request[0], request[1]) = (SET, blocks as u32);
        request[2 + 2 * block] = bit;
        request[3 + 2 * block] = if on { bit } else { 0 };
        run(link.name, &mut request)?;
        // struct ethtool_gfeatures: the same; then available, requested, active and never changed.
        let mut now = vec![0; 2 + 4 * blocks];
        (now[0], now[1]) = (GET, blocks as u32);
        run(link.name, &mut now)?;
        Ok(now[2 + 4 * block + 2] & bit != 0)
    };
    namespace
        .run(|| {
            let now = switched()?;
            if now != on {
                bail!("it is still {}", if now { "on" } else { "off" });
            }
            Ok(())
        })
        .with_context(|| format!("cannot switch {name} of {}", link.name))
}

/// Runs one of ethtool's commands that take or return a single number.
fn ethtool(interface: &str, command: u32, value: u32) -> Result<u32> {
    // struct ethtool_value: command, data.
    let mut request = [command, value];
    run(interface, &mut request)?;
    Ok(request[1])
}

/// Runs the command that `request` begins with, whose answer takes no more room than it has.
fn run(interface: &str, request: &mut [u32]) -> Result<()> {
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
    // SAFETY: The descriptor is open, and SIOCETHTOOL reads the ifreq, and reads and writes no more of
    // what that points to than the command's structure has, for which there is room, as whoever calls
    // this sees to; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut ifreq) };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("ioctl SIOCETHTOOL");
    }
    Ok(())
}
