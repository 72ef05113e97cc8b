// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets a cell has: the data that scenario, plan, agent and results share.

mod check;
mod checksum;
mod cloned;
mod payload;
mod steering;
mod usual;

use std::fmt::Write;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::back_to_back::BackToBack;
use crate::search::Goal;

pub use checksum::Checksum;
pub use cloned::Cloned;
pub use payload::{Mix, Payload, MAX_PAYLOAD};
pub use steering::Steering;
pub use usual::Usual;

/// Where the client is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// In the client's namespace: its packets pass through the router.
    Forward,
    /// On the router itself.
    Local,
}

/// IP version.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Transport protocol.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who makes the packets at both ends.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// The agent, with pnet, and every packet is checked.
    #[default]
    Wire,
    /// The kernel's sockets, as for any program; a proxy in user space understands no others.
    Stack,
}

/// How often each of several flows has a packet.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Popularity {
    /// All the same.
    #[default]
    Uniform,
    /// The *n*-th most popular one in proportion to 1/*n*: Zipf's law with exponent 1.
    Zipf,
}

/// When packets are sent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// Each packet of the client is answered before the next one is sent.
    #[serde(rename_all = "kebab-case")]
    Closed {
        /// Round trips that are measured.
        #[schemars(range(min = 1))]
        round_trips: u32,
        /// Packets of the client that reach the router at once in each of them.
        #[schemars(range(min = 1, max = 128))]
        burst: u32,
    },
    /// At times that were fixed before, whatever comes back.
    #[serde(rename_all = "kebab-case")]
    Open {
        /// Packets a second of the guest's time.
        #[schemars(range(min = 1))]
        rate: u32,
        /// Packets that are measured.
        #[schemars(range(min = 1))]
        packets: u32,
        /// New flows a second, each in the place of an old one.
        churn: u32,
    },
    /// Open loops at one rate after the other, until the greatest is found at which no more packets
    /// are lost than may be.
    Search(Goal),
    /// Bursts at one rate, until the longest is found that gets through without a loss.
    BackToBack(BackToBack),
    /// One stream of TCP, as fast as it goes.
    #[serde(rename_all = "kebab-case")]
    Bulk {
        /// Bytes of payload.
        #[schemars(range(min = 1))]
        bytes: u64,
    },
}

impl Load {
    /// Round trips of a closed loop, or packets of an open one: how long a cell takes.
    pub const fn packets(&self) -> u32 {
        match *self {
            Self::Closed { round_trips, .. } => round_trips,
            Self::Open { packets, .. } => packets,
            // Of the greatest rate: there are more trials, of fewer packets.
            Self::Search(goal) => goal.to.saturating_mul(goal.trial_ms) / 1_000,
            Self::BackToBack(goal) => goal.longest,
            Self::Bulk { .. } => 1,
        }
    }

    /// Packets of the client that come at once.
    pub const fn burst(&self) -> u32 {
        match self {
            Self::Closed { burst, .. } => *burst,
            Self::Open { .. } | Self::Search(_) | Self::BackToBack(_) | Self::Bulk { .. } => 1,
        }
    }

    /// Whether packets are sent at times that were fixed before: then they may be lost.
    pub const fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::Search(_) | Self::BackToBack(_)
        )
    }
}

/// The packets of a cell.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Who makes the packets.
    pub ends: Ends,
    /// Where the client is.
    pub way: Way,
    /// IP version.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Payload of each packet.
    pub payload: Payload,
    /// Flows, all established before anything is measured; each packet is of one of them.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub flows: u32,
    /// Over how many CPUs of the guest flows are spread, as many on each: packets of flow *f* are sent
    /// and forwarded on CPU *f* modulo this, and round trips go round the CPUs in turn. Left
    /// out, CPU 0 does all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<NonZeroU32>,
    /// Whether answers are handled on that CPU, too.
    #[serde(default, skip_serializing_if = "Usual::is_usual")]
    pub steering: Steering,
    /// Of which one.
    pub popularity: Popularity,
    /// With which checksum status the router receives them.
    #[serde(default, skip_serializing_if = "Usual::is_usual")]
    pub checksum: Checksum,
    /// What they share with clones.
    #[serde(default, skip_serializing_if = "Usual::is_usual")]
    pub cloned: Cloned,
    /// When packets are sent.
    pub load: Load,
    /// Round trips on the same flows before anything is measured.
    pub warm_up: u32,
}

impl Way {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Local => "local",
        }
    }
}

impl Family {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

impl Protocol {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Traffic {
    /// What most have: one flow of UDP over IPv4, forwarded, in a closed loop on the wire.
    pub const USUAL: Self = Self {
        ends: Ends::Wire,
        way: Way::Forward,
        family: Family::V4,
        protocol: Protocol::Udp,
        payload: Payload::Bytes(64),
        flows: 1,
        spread: None,
        steering: Steering::Symmetric,
        popularity: Popularity::Uniform,
        load: Load::Closed {
            round_trips: 1,
            burst: 1,
        },
        checksum: Checksum::None,
        cloned: Cloned::No,
        warm_up: 0,
    };

    /// New flows that take the place of others while packets are measured.
    pub fn churned(&self) -> u32 {
        let Load::Open {
            rate,
            packets,
            churn,
        } = self.load
        else {
            return 0;
        };
        // As many as whole periods end before the last packet is sent.
        let due = u64::from(churn) * u64::from(packets.saturating_sub(1)) / u64::from(rate.max(1));
        u32::try_from(due).unwrap_or(u32::MAX)
    }

    /// All flows, with those that take the place of others.
    pub fn flows_in_all(&self) -> u32 {
        self.flows.saturating_add(self.churned())
    }

    /// Flows on each CPU, if they are spread over CPUs.
    pub fn flows_per_cpu(&self) -> Option<u32> {
        self.spread.map(|cpus| self.flows / cpus)
    }

    /// The same on a machine of so many CPUs; without [`Self::spread`] it is the same anywhere.
    #[must_use]
    pub fn on_cpus(self, cpus: NonZeroU32) -> Self {
        match self.flows_per_cpu() {
            None => self,
            Some(flows) => Self {
                flows: flows.saturating_mul(cpus.get()),
                spread: Some(cpus),
                ..self
            },
        }
    }

    /// Whether a socket of a stack is the client, be it the client's or the router's.
    pub fn has_stack_client(&self) -> bool {
        self.ends == Ends::Stack || self.way == Way::Local || self.cloned == Cloned::Payload
    }

    /// Why there can be no packets of such a kind; `None` if there can.
    pub fn refusal(&self) -> Option<&'static str> {
        let (checksum, cloned) = (self.checksum, self.cloned);
        if checksum.is_usual() && cloned.is_usual() {
            return None;
        }
        if self.ends == Ends::Stack {
            return Some("between sockets the kernel decides about checksums and clones");
        }
        if !matches!(self.load, Load::Closed { burst: 1, .. }) {
            return Some("checksum and cloned are for closed loops of single packets");
        }
        if checksum == Checksum::Unnecessary && !cloned.is_usual() {
            return Some(
                "a device that verifies checksums delivers packets that nobody else holds",
            );
        }
        match (cloned, self.way) {
            (Cloned::Payload, Way::Local) => {
                Some("the router's own TCP sockets send such clones in any case")
            }
            (Cloned::Payload, Way::Forward) if self.protocol != Protocol::Tcp => {
                Some("only TCP sockets keep what they send")
            }
            (Cloned::Payload, Way::Forward) if self.flows != 1 || self.spread.is_some() => {
                Some("there can be only 1 flow: each would need a socket")
            }
            _ => None,
        }
    }

    /// The name in ids, such as `forward-v4-udp-64`; what is unlike the usual is added, such as
    /// `-1000flows`.
    pub fn name(&self) -> String {
        let mut name = format!(
            "{}-{}-{}-{}",
            self.way.name(),
            self.family.name(),
            self.protocol.name(),
            self.payload
        );
        for part in self.unusual() {
            // Writing to a string cannot fail.
            let _ = write!(name, "-{part}");
        }
        name
    }

    /// What is unlike one flow in a closed loop on the wire, in the words of [`Self::name`].
    pub fn unusual(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.ends == Ends::Stack {
            parts.push("stack".to_owned());
        }
        match self.flows_per_cpu() {
            Some(flows) => parts.push(format!("{flows}percpu")),
            None if self.flows == 1 => {}
            None => parts.push(format!("{}flows", self.flows)),
        }
        if self.steering == Steering::Asymmetric {
            parts.push("asymmetric".to_owned());
        }
        if self.popularity == Popularity::Zipf {
            parts.push("zipf".to_owned());
        }
        if !self.checksum.is_usual() {
            parts.push(self.checksum.name().to_owned());
        }
        match self.cloned {
            Cloned::No => {}
            Cloned::Payload => parts.push("cloned".to_owned()),
            Cloned::Header => parts.push("header-cloned".to_owned()),
        }
        match self.load {
            Load::Closed { burst: 1, .. } => {}
            Load::Closed { burst, .. } => parts.push(format!("burst{burst}")),
            Load::Open { rate, churn, .. } => {
                parts.push(format!("{rate}pps"));
                if churn != 0 {
                    parts.push(format!("churn{churn}"));
                }
            }
            // Non-drop rate and partial-drop rate.
            Load::Search(Goal { loss_ppm: 0, .. }) => parts.push("ndr".to_owned()),
            Load::Search(Goal { loss_ppm, .. }) => {
                parts.push(format!("pdr{}", f64::from(loss_ppm) / 1e4));
            }
            Load::BackToBack(goal) => parts.push(format!("b2b{}", goal.rate)),
            Load::Bulk { .. } => parts.push("bulk".to_owned()),
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Traffic = Traffic::USUAL;

    #[test]
    fn names_tell_what_is_unusual() {
        assert_eq!(USUAL.name(), "forward-v4-udp-64");
        let rare = Traffic {
            ends: Ends::Stack,
            payload: Payload::Mix(Mix::Imix),
            flows: 1000,
            popularity: Popularity::Zipf,
            load: Load::Open {
                rate: 50_000,
                packets: 9,
                churn: 100,
            },
            ..USUAL
        };
        assert_eq!(
            rare.name(),
            "forward-v4-udp-imix-stack-1000flows-zipf-50000pps-churn100"
        );
        let search = |loss_ppm| Traffic {
            load: Load::Search(Goal {
                from: 1,
                to: 2,
                resolution: 1,
                loss_ppm,
                repeats: 1,
                trial_ms: 1,
            }),
            ..USUAL
        };
        assert_eq!(search(0).name(), "forward-v4-udp-64-ndr");
        assert_eq!(search(1_000).name(), "forward-v4-udp-64-pdr0.1");
        let burst = Traffic {
            load: Load::Closed {
                round_trips: 1,
                burst: 64,
            },
            ..USUAL
        };
        assert_eq!(burst.name(), "forward-v4-udp-64-burst64");
    }

    #[test]
    fn kinds_of_packets_are_named_and_some_cannot_be() {
        let tcp = |checksum, cloned| Traffic {
            protocol: Protocol::Tcp,
            checksum,
            cloned,
            ..USUAL
        };
        for (checksum, cloned, name) in [
            (Checksum::Partial, Cloned::No, "partial"),
            (Checksum::Unnecessary, Cloned::No, "unnecessary"),
            (Checksum::None, Cloned::Payload, "cloned"),
            (Checksum::Partial, Cloned::Header, "partial-header-cloned"),
        ] {
            let traffic = tcp(checksum, cloned);
            assert_eq!(traffic.name(), format!("forward-v4-tcp-64-{name}"));
            assert_eq!(traffic.refusal(), None, "{name}");
        }
        let socket = tcp(Checksum::None, Cloned::Payload);
        for bad in [
            tcp(Checksum::Unnecessary, Cloned::Header),
            Traffic {
                protocol: Protocol::Udp,
                ..socket
            },
            Traffic {
                way: Way::Local,
                ..socket
            },
            Traffic { flows: 2, ..socket },
            Traffic {
                ends: Ends::Stack,
                ..socket
            },
            Traffic {
                load: Load::Closed {
                    round_trips: 1,
                    burst: 2,
                },
                ..tcp(Checksum::Partial, Cloned::No)
            },
        ] {
            assert!(bad.refusal().is_some(), "{}", bad.name());
        }
    }

    #[test]
    fn spread_flows_have_one_name_on_all_machines() {
        let [one, four] = [1, 4].map(|cpus| NonZeroU32::new(cpus).unwrap());
        let traffic = Traffic {
            flows: 12,
            spread: Some(four),
            ..USUAL
        };
        assert_eq!(traffic.name(), "forward-v4-udp-64-3percpu");
        let alone = traffic.on_cpus(one);
        assert_eq!((alone.flows, alone.spread), (3, Some(one)));
        assert_eq!(alone.name(), traffic.name());
        assert_eq!(alone.on_cpus(four), traffic);
        let asymmetric = Traffic {
            steering: Steering::Asymmetric,
            ..traffic
        };
        assert_eq!(asymmetric.name(), "forward-v4-udp-64-3percpu-asymmetric");
        assert_eq!(USUAL.on_cpus(four), USUAL);
    }

    #[test]
    fn traffic_that_is_not_spread_is_written_as_ever() {
        let text = serde_json::to_string(&USUAL).unwrap();
        assert!(
            !["spread", "steering", "checksum", "cloned"]
                .iter()
                .any(|key| text.contains(key)),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Traffic>(&text).unwrap(), USUAL);
    }

    #[test]
    fn flows_are_added_while_packets_are_sent() {
        let open = |rate, packets, churn| Traffic {
            flows: 10,
            load: Load::Open {
                rate,
                packets,
                churn,
            },
            ..USUAL
        };
        assert_eq!(USUAL.flows_in_all(), 1);
        assert_eq!(open(1_000, 1_001, 0).churned(), 0);
        assert_eq!(open(1_000, 1_001, 100).churned(), 100);
        assert_eq!(open(1_000, 1_000, 100).flows_in_all(), 109);
    }
}
