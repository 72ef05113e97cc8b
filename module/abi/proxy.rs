// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the proxy is told, and what it tells: values, and how many of them there can be. [`super::netlink`] says how they are
//! in messages.

pub mod condition;
pub mod connection;
pub mod flow;
pub mod group;
pub mod label;
pub mod rule;
pub mod set;
pub mod upstream;

pub use condition::{Condition, Conditions, Field, ValueKind, Values, MAX_CONDITIONS};
pub use connection::{Connection, Endpoint};
pub use group::{Group, Selection};
pub use label::Label;
pub use rule::{Action, Rule, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
pub use set::Set;
pub use upstream::Upstream;

/// The most contexts that one network namespace takes, and the most sockets in it that stage something.
pub const MAX_CONTEXTS: usize = 64;
/// The most rules that a network namespace takes, of all its contexts together.
pub const MAX_RULES: usize = 4096;
/// The most groups of upstreams that one context takes.
pub const MAX_GROUPS: usize = 256;
/// The most upstreams that one group takes.
pub const MAX_MEMBERS: usize = 256;
/// The most upstreams that a network namespace takes, in all groups of its contexts together: as with rules.
pub const MAX_UPSTREAMS: usize = 4096;
/// The most sets that a network namespace takes, of all its contexts together.
pub const MAX_SETS: usize = 4096;
/// The most elements of these sets together. Neighbouring networks, and numbers one after the other, are one element.
pub const MAX_ELEMENTS: usize = 1 << 20;
/// Bytes of the name of an interface, with at least one zero at its end: IFNAMSIZ.
pub const NAME_SIZE: usize = 16;
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
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of the network namespace, summed over CPUs, since its first context opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The counters' names, in the order of their numbers in messages, from 1 on.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// The counter at a place in [`Self::NAMES`].
            pub fn by_place(&mut self, place: usize) -> Option<&mut u64> {
                let all = [$(&mut self.$name),*];
                all.into_iter().nth(place)
            }

            /// The counters in the order of [`Self::NAMES`].
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
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
    /// Packets whose headers were malformed or cut short: they pass untouched, unless a rule blocks.
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
    /// Packets dropped because a rule blocks their connection.
    packets_blocked,
}
