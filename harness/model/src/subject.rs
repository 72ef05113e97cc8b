// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured: the data that scenario, plan, agent and results share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::traffic::{Ends, Family, Protocol, Traffic, Way};

/// The thing that is measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Bare forwarding.
    None,
    /// The kernel's own destination NAT: conntrack and an nftables `dnat` rule.
    NftDnat,
    /// The same with a flow table in software, over which packets of established flows take a
    /// short cut past all hooks.
    NftFlowtable,
    /// A TPROXY rule of nftables and a proxy in user space that splices streams of TCP.
    Tproxy,
    /// A redirect rule of nftables, redsocks, and a SOCKS server.
    Redsocks,
    /// mutex_proxy.ko.
    Module,
    /// mutex_proxy.ko with rules that match none of the packets: what it costs others.
    ModuleUnmatched,
    /// Connection tracking and NAT that redirect everything but what goes to the LAN, where the packets go, behind
    /// many rules for others.
    NftDnatDirect,
    /// mutex_proxy.ko with such rules.
    ModuleDirect,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::NftDnat,
        Self::NftFlowtable,
        Self::Tproxy,
        Self::Redsocks,
        Self::Module,
        Self::ModuleUnmatched,
        Self::NftDnatDirect,
        Self::ModuleDirect,
    ];

    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NftDnat => "nft-dnat",
            Self::NftFlowtable => "nft-flowtable",
            Self::Tproxy => "tproxy",
            Self::Redsocks => "redsocks",
            Self::Module => "module",
            Self::ModuleUnmatched => "module-unmatched",
            Self::NftDnatDirect => "nft-dnat-direct",
            Self::ModuleDirect => "module-direct",
        }
    }

    /// Whether the module is loaded.
    pub const fn is_module(self) -> bool {
        matches!(
            self,
            Self::Module | Self::ModuleUnmatched | Self::ModuleDirect
        )
    }

    /// Whether the kernel's connection tracking is at work, which picks numbers at random in every
    /// boot: the key of its hash, and each connection's own.
    pub const fn tracks_connections(self) -> bool {
        matches!(
            self,
            Self::NftDnat | Self::NftDnatDirect | Self::NftFlowtable | Self::Redsocks
        )
    }

    /// Whether a program ends the client's connections and makes others.
    pub const fn is_in_user_space(self) -> bool {
        matches!(self, Self::Tproxy | Self::Redsocks)
    }

    /// Whether packets reach another server than they were sent to. Those of redsocks pass another
    /// one, which hands them on to where they were sent.
    pub const fn redirects(self) -> bool {
        matches!(
            self,
            Self::NftDnat | Self::NftFlowtable | Self::Tproxy | Self::Module
        )
    }

    /// Why this subject cannot have such traffic; `None` if it can.
    pub fn refusal(self, traffic: &Traffic) -> Option<&'static str> {
        match self {
            Self::NftFlowtable if traffic.way == Way::Local => {
                Some("a flow table takes none but forwarded packets")
            }
            Self::NftFlowtable if traffic.ends == Ends::Wire => {
                Some("the short cut passes none of the hooks that are measured on the wire")
            }
            Self::Tproxy | Self::Redsocks if traffic.ends == Ends::Wire => {
                Some("a proxy in user space understands no packets that are made on the wire")
            }
            Self::Tproxy | Self::Redsocks if traffic.protocol == Protocol::Udp => {
                Some("the proxy in user space is one for TCP")
            }
            Self::Redsocks if traffic.family == Family::V6 => Some("redsocks is for IPv4 only"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Checksum, Cloned, Load, Payload, Popularity, Steering};

    const TRAFFIC: Traffic = Traffic {
        ends: Ends::Stack,
        way: Way::Forward,
        family: Family::V4,
        protocol: Protocol::Tcp,
        payload: Payload::Bytes(64),
        flows: 1,
        spread: None,
        steering: Steering::Symmetric,
        popularity: Popularity::Uniform,
        load: Load::Bulk { bytes: 1 },
        checksum: Checksum::None,
        cloned: Cloned::No,
        warm_up: 0,
    };

    #[test]
    fn everybody_can_have_forwarded_streams_between_sockets() {
        for subject in Subject::ALL {
            assert_eq!(subject.refusal(&TRAFFIC), None, "{}", subject.name());
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        let wire = Traffic {
            ends: Ends::Wire,
            ..TRAFFIC
        };
        let udp = Traffic {
            protocol: Protocol::Udp,
            ..TRAFFIC
        };
        let local = Traffic {
            way: Way::Local,
            ..TRAFFIC
        };
        let v6 = Traffic {
            family: Family::V6,
            ..TRAFFIC
        };
        for (subject, traffic, reason) in [
            (
                Subject::Tproxy,
                wire,
                "no packets that are made on the wire",
            ),
            (Subject::Redsocks, udp, "for TCP"),
            (Subject::Redsocks, v6, "IPv4"),
            (Subject::NftFlowtable, wire, "none of the hooks"),
            (Subject::NftFlowtable, local, "forwarded"),
        ] {
            let refusal = subject.refusal(&traffic);
            assert!(refusal.is_some_and(|refusal| refusal.contains(reason)));
        }
        for subject in [Subject::None, Subject::NftDnat, Subject::Module] {
            for traffic in [wire, udp, local, v6] {
                assert_eq!(subject.refusal(&traffic), None);
            }
        }
    }
}
