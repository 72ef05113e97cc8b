// SPDX-License-Identifier: MIT OR Apache-2.0

//! When packets are sent, and how many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rfc2544::back_to_back::BackToBack;
use crate::rfc2544::throughput::Goal;

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
