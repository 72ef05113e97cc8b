// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other end of `/dev/mutex_proxy`.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result};
use mutex_abi::proxy::{self, ConfigHeader, Rule, Stats, DEVICE, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use nix::libc;

use super::device;
use super::namespace::Namespace;
use super::protocol::{Family, Protocol};

/// An open context: its rules hold until it is dropped.
pub struct Context {
    file: File,
}

impl Context {
    /// Opens a context for `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open_here)
    }

    /// Opens a context for the namespace of the calling thread.
    pub fn open_here() -> Result<Self> {
        let file = device::open(DEVICE)?;
        Ok(Self { file })
    }

    /// Puts `rules` in the place of the former ones.
    pub fn configure(&self, rules: &[Rule]) -> io::Result<()> {
        let count = u16::try_from(rules.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = ConfigHeader { rules: count }.encode().to_vec();
        for rule in rules {
            bytes.extend(rule.encode());
        }
        self.write(&bytes)
    }

    /// Writes a configuration as it is, right or wrong, in one call.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let written = (&self.file).write(bytes)?;
        if written != bytes.len() {
            return Err(io::Error::other(format!(
                "{written} of {} bytes were taken",
                bytes.len()
            )));
        }
        Ok(())
    }

    /// Reads the configuration back.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        device::read(&self.file)
    }

    /// The namespace's counters.
    pub fn stats(&self) -> Result<Stats> {
        let mut bytes = [0_u8; Stats::SIZE];
        // SAFETY: The descriptor is open, and the request's number says that the kernel writes
        // `Stats::SIZE` bytes, for which there is room.
        let result = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                proxy::IOC_STATS as libc::Ioctl,
                bytes.as_mut_ptr(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot read the counters of {DEVICE}"));
        }
        Stats::decode(&bytes).context("the counters are cut short")
    }
}

/// A rule that sends what goes to `original` to `upstream`, for packets passing through and the
/// machine's own. Both have the same IP version.
pub fn redirect(protocol: Protocol, original: SocketAddr, upstream: SocketAddr) -> Rule {
    let family = match original {
        SocketAddr::V4(_) => proxy::Family::V4,
        SocketAddr::V6(_) => proxy::Family::V6,
    };
    Rule {
        family,
        protocol: abi_protocol(protocol),
        hooks: HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
        prefix: family.bits(),
        port_first: original.port(),
        port_last: original.port(),
        upstream_port: upstream.port(),
        destination: octets(original.ip()),
        upstream: octets(upstream.ip()),
    }
}

/// The protocol as the modules' interface knows it.
pub fn abi_protocol(protocol: Protocol) -> proxy::Protocol {
    match protocol {
        Protocol::Tcp => proxy::Protocol::Tcp,
        Protocol::Udp => proxy::Protocol::Udp,
    }
}

/// The IP version as the modules' interface knows it.
pub fn abi_family(family: Family) -> proxy::Family {
    match family {
        Family::V4 => proxy::Family::V4,
        Family::V6 => proxy::Family::V6,
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => octets = address.octets(),
    }
    octets
}
