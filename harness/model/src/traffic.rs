// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets a cell has: the data that scenario, plan, agent and results share.

mod axis;
mod check;
mod checksum;
mod cloned;
mod ends;
mod header;
mod load;
mod name;
mod payload;
mod popularity;
mod steering;
mod unfit;
mod usual;

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use checksum::Checksum;
pub use cloned::Cloned;
pub use ends::{Ends, Way};
pub use header::{Family, Protocol};
pub use load::Load;
pub use payload::{Mix, Payload, MAX_PAYLOAD};
pub use popularity::Popularity;
pub use steering::Steering;
pub use unfit::{Part, Unfit};
pub use usual::Usual;

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rfc2544::throughput::Goal;

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
            assert_eq!(traffic.check(), Ok(()), "{name}");
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
            assert!(bad.check().is_err(), "{}", bad.name());
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
