// SPDX-License-Identifier: MIT OR Apache-2.0

//! A link that loses, delays, reorders or repeats packets: the kernel's netem.

use std::time::Duration;

use anyhow::Result;

use super::namespace::Namespace;
use super::netlink::{RouteSocket, VethEnd};
use mutexlab_model::random::Random;

// Of linux/pkt_sched.h.
const RATE: u16 = 6;
const LATENCY64: u16 = 10;
const JITTER64: u16 = 11;
const SLOT: u16 = 12;
const PRNG_SEED: u16 = 14;

/// Packets that wait at the most; more than any test has under way.
const LIMIT: u32 = 10_000;

/// What happens to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netem {
    /// Packets that are lost, in percent.
    pub loss: u8,
    /// Packets that are sent twice, in percent.
    pub duplicate: u8,
    /// How long each takes.
    pub delay: Duration,
    /// By how much that varies; packets overtake each other.
    pub jitter: Duration,
    /// If not zero: packets wait for the end of slots of this length, and then go all at once.
    pub slot: Duration,
    /// How many bytes a second go; 0 for no limit.
    pub rate: u32,
    /// How many packets wait at the most, if not as many as any test has under way.
    pub limit: Option<u32>,
    /// Of the random numbers that decide.
    pub seed: u64,
}

impl Netem {
    /// Does it to what `namespace` sends over `link`. Needs CONFIG_NET_SCH_NETEM.
    pub fn apply(&self, namespace: &Namespace, link: &VethEnd) -> Result<()> {
        RouteSocket::open(namespace)?.add_queue_discipline(link.index, "netem", self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter; both times are told
        // below, in nanoseconds.
        let mut bytes: Vec<u8> = [
            0,
            self.limit.unwrap_or(LIMIT),
            probability(self.loss),
            0,
            probability(self.duplicate),
            0,
        ]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
        for (attribute, value) in [
            (LATENCY64, self.delay.as_nanos() as u64),
            (JITTER64, self.jitter.as_nanos() as u64),
            // The kernel's generator begins with a run of small numbers after a small seed: it would
            // lose the first packets all.
            (PRNG_SEED, Random::new(self.seed).next()),
        ] {
            // struct nlattr: length with this header, and type.
            bytes.extend(12_u16.to_ne_bytes());
            bytes.extend(attribute.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        if self.rate != 0 {
            // struct tc_netem_rate: bytes a second; nothing is added to a packet's length.
            bytes.extend(20_u16.to_ne_bytes());
            bytes.extend(RATE.to_ne_bytes());
            for word in [self.rate, 0, 0, 0] {
                bytes.extend(word.to_ne_bytes());
            }
        }
        if !self.slot.is_zero() {
            // struct tc_netem_slot: least and most delay, packets and bytes (no limit), and a
            // distribution (none).
            let slot = self.slot.as_nanos() as u64;
            bytes.extend(44_u16.to_ne_bytes());
            bytes.extend(SLOT.to_ne_bytes());
            for word in [slot, slot, 0, 0, 0] {
                bytes.extend(word.to_ne_bytes());
            }
        }
        bytes
    }
}

/// What netem calls `percent`: all bits set are 100.
fn probability(percent: u8) -> u32 {
    (u64::from(u32::MAX) * u64::from(percent.min(100)) / 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_span_all_numbers() {
        assert_eq!(probability(0), 0);
        assert_eq!(probability(50), u32::MAX / 2);
        assert_eq!(probability(100), u32::MAX);
    }

    #[test]
    fn options_are_laid_out_as_the_kernel_reads_them() {
        let bytes = Netem {
            loss: 100,
            delay: Duration::from_nanos(7),
            ..Netem::default()
        }
        .encode();
        assert_eq!(bytes.len(), 24 + 3 * 12);
        assert_eq!(bytes[8..12], [0xff; 4]);
        assert_eq!(bytes[24..28], [12, 0, 10, 0]);
        assert_eq!(bytes[28..36], 7_u64.to_ne_bytes());
    }
}
