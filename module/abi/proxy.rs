// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `/dev/mutex_proxy`: an open descriptor is a proxy context.
//!
//! * `open` needs CAP_NET_ADMIN in the caller's network namespace; the context belongs to that
//!   namespace and keeps it alive. ENOSPC if that has [`MAX_CONTEXTS`] already.
//! * `write` takes one whole [`Config`] in a single call and puts it in the place of the context's
//!   former one, all or nothing.
//! * `read` returns the same bytes from the file position on.
//! * `ioctl` with [`IOC_STATS`] fills a [`Stats`].
//! * `ioctl` with [`IOC_ORIGINAL`] takes a [`Connection`] as the server to which it was redirected sees
//!   it, and replaces the server's end by the original destination. ENOENT: no such connection was
//!   redirected in the namespace.
//! * `close` of the last reference removes the rules and the flows that they made.

use super::bytes::{Reader, Writer};

pub mod config;
pub mod connection;
pub mod rule;
pub mod upstream;

pub use config::{Config, ConfigHeader, Group, Selection};
pub use connection::{Connection, Endpoint};
pub use rule::{Action, Rule, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
pub use upstream::Upstream;

/// Where the descriptor comes from.
pub const DEVICE: &str = "mutex_proxy";
/// First four bytes of a configuration: "MTXP".
pub const MAGIC: u32 = u32::from_le_bytes(*b"MTXP");
/// Version of the records in this file.
pub const VERSION: u16 = 3;
/// The most contexts that one network namespace takes: `open` fails with ENOSPC beyond.
pub const MAX_CONTEXTS: usize = 64;
/// The most rules that a network namespace takes, of all its contexts together: `write` fails with ENOSPC beyond.
pub const MAX_RULES: usize = 4096;
/// The most groups of upstreams that one context takes.
pub const MAX_GROUPS: usize = 256;
/// The most upstreams that one group takes.
pub const MAX_MEMBERS: usize = 256;
/// The most upstreams that a network namespace takes, in all groups of its contexts together: as with rules.
pub const MAX_UPSTREAMS: usize = 4096;
/// Bytes of the name of an interface, with at least one zero at its end: IFNAMSIZ.
pub const NAME_SIZE: usize = 16;
/// `_IOR('M', 1, [u8; Stats::SIZE])`. Counters are only ever added at the end of the record: a caller that asks
/// for fewer bytes gets the first ones.
pub const IOC_STATS: u32 = ioc_stats(Stats::SIZE);

/// `_IOWR('M', 2, [u8; Connection::SIZE])`.
pub const IOC_ORIGINAL: u32 =
    (3 << 30) | ((Connection::SIZE as u32) << 16) | ((b'M' as u32) << 8) | 2;

/// [`IOC_STATS`] for a record of `size` bytes; the command has 14 bits for that.
pub const fn ioc_stats(size: usize) -> u32 {
    (2 << 30) | ((size as u32 & IOC_SIZES) << 16) | ((b'M' as u32) << 8) | 1
}

/// How many bytes of counters a command asks for; `None` if it asks for something else.
pub const fn stats_asked_for(command: u32) -> Option<usize> {
    if command & !(IOC_SIZES << 16) == ioc_stats(0) {
        Some((command >> 16 & IOC_SIZES) as usize)
    } else {
        None
    }
}

const IOC_SIZES: u32 = (1 << 14) - 1;

/// Why a configuration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Fewer or more bytes than the header announces.
    Length,
    /// Not a configuration.
    Magic,
    /// A version that this side does not speak.
    Version,
    /// More than [`MAX_RULES`].
    TooManyRules,
    /// More than [`MAX_GROUPS`].
    TooManyGroups,
    /// More than [`MAX_UPSTREAMS`], or [`MAX_MEMBERS`] of a group.
    TooManyUpstreams,
    /// A field of the header has no meaning.
    Header,
    /// A field of a group has no meaning.
    Group,
    /// A field of an upstream has no meaning.
    Upstream,
    /// A field of a rule has no meaning.
    Rule,
}

/// The transport protocols that can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp = 6,
    /// User Datagram Protocol, RFC 768.
    Udp = 17,
}

impl Protocol {
    /// From the number in the IP header.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// RFC 791.
    V4 = 4,
    /// RFC 8200.
    V6 = 6,
}

impl Family {
    /// From the IP version number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    // Whether `address` is one of this version: bytes that the version does not use are zero.
    fn has(self, address: &[u8; 16]) -> bool {
        self == Self::V6 || address.iter().skip(4).all(|&byte| byte == 0)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of the network namespace, summed over CPUs, since its first context opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The counters' names, in the order of the record.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// Size in bytes.
            pub const SIZE: usize = 8 * Self::NAMES.len();

            /// Reads a record; `None` if it is too short.
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                let mut reader = Reader::new(bytes);
                Some(Self { $($name: reader.u64()?,)* })
            }

            /// The record as bytes.
            pub fn encode(&self) -> [u8; Self::SIZE] {
                let mut out = [0; Self::SIZE];
                let mut writer = Writer::new(&mut out);
                $(let _ = writer.put(&self.$name.to_le_bytes());)*
                out
            }

            /// The counters in the order of [`Self::NAMES`].
            pub fn values(&self) -> [u64; Self::SIZE / 8] {
                [$(self.$name),*]
            }
        }
    };
}

stats! {
    /// Packets redirected to an upstream.
    packets_original,
    /// Packets of an upstream given back their original source.
    packets_reply,
    /// Bytes of the packets redirected to an upstream, from the IP header on.
    bytes_original,
    /// Bytes of the packets given back their original source, from the IP header on.
    bytes_reply,
    /// Flows created, direct ones included.
    flows_created,
    /// Flows that timed out, made room for others, whose context closed, or whose first packet did not
    /// leave the machine.
    flows_removed,
    /// Of those, the ones that made room for new ones (early drop).
    flows_evicted,
    /// Flows in the table now.
    flows_current,
    /// Packets dropped because there was no memory for a flow or for a writable header.
    dropped_no_memory,
    /// Packets dropped because the table was full.
    dropped_table_full,
    /// Packets dropped because no source port was free at the upstream.
    dropped_no_port,
    /// Packets dropped because no route led to the upstream.
    dropped_no_route,
    /// Packets let through untouched because their headers were malformed or cut short.
    malformed,
    /// Errors of ICMP and ICMPv6 about packets of flows that were translated.
    icmp_translated,
    /// Look-ups that the CPU's cache of flows answered (`perf_cache_size`).
    cache_hits,
    /// Look-ups that it did not answer, whether there was a flow or not.
    cache_misses,
    /// How often a table of flows was locked: for each change of it, and while `perf_enable_rcu` is
    /// off for every packet that may be of a flow.
    lock_acquisitions,
    /// Of those, how often another CPU held the lock.
    lock_contentions,
    /// Packets of direct flows: of connections that the rules were asked about and that are not redirected.
    packets_direct,
    /// Bytes of these packets, from the IP header on.
    bytes_direct,
    /// Of the flows created, the direct ones.
    flows_direct,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_how_much_it_asks_for() {
        assert_eq!(stats_asked_for(IOC_STATS), Some(Stats::SIZE));
        assert_eq!(stats_asked_for(ioc_stats(8)), Some(8));
        for other in [IOC_STATS ^ 1, IOC_STATS ^ 1 << 8, IOC_STATS ^ 1 << 31] {
            assert_eq!(stats_asked_for(other), None);
        }
    }

    #[test]
    fn stats_survive_encoding() {
        let stats = Stats {
            bytes_reply: 7,
            malformed: u64::MAX,
            ..Stats::default()
        };
        assert_eq!(Stats::decode(&stats.encode()), Some(stats));
        assert_eq!(Stats::decode(&stats.encode()[1..]), None);
    }
}
