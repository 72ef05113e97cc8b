// SPDX-License-Identifier: MIT OR Apache-2.0

//! What instructions, misses and transfers might take, in cycles.
//!
//! An estimate to rank by, as that of KCachegrind: each instruction takes a cycle, each access that
//! leaves the first level the time of where it is answered from, and nothing overlaps. A CPU of
//! today runs several instructions at once and does not wait for what it does not need yet: it is
//! faster, and not by the same factor for each program.

use mutexlab_lens_recording::recording::Costs;
use serde::{Deserialize, Serialize};

/// Cycles by what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// An instruction.
    pub instruction: u64,
    /// An access that is answered from L2.
    pub l2: u64,
    /// One from the last level.
    pub last: u64,
    /// One from memory.
    pub memory: u64,
    /// One from another CPU's caches, or that makes another CPU give a line up.
    pub transfer: u64,
}

/// Latencies of an Intel Xeon within one socket, from T. David, R. Guerraoui and V. Trigonakis,
/// "Everything you always wanted to know about synchronization but were afraid to ask", SOSP 2013: L2,
/// last level and memory, and the load of a line that another core of the same die has modified.
pub const WEIGHTS: Weights = Weights {
    instruction: 1,
    l2: 11,
    last: 44,
    memory: 355,
    transfer: 109,
};

impl Weights {
    /// The estimate for all of `costs`.
    pub const fn cycles(&self, costs: &Costs) -> u64 {
        let beyond_l1 = costs.l1i_misses + costs.l1d_misses;
        let l2 = beyond_l1.saturating_sub(costs.l2_misses);
        let elsewhere = costs.last_misses + costs.transfers;
        let last = costs.l2_misses.saturating_sub(elsewhere);
        self.instruction * costs.instructions
            + self.l2 * l2
            + self.last * last
            + self.memory * costs.last_misses
            + self.transfer * costs.transfers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_takes_the_time_of_where_it_is_answered_from() {
        let costs = Costs {
            instructions: 1000,
            // 60 accesses leave the first level, 40 of them the second: 25 are of the last level.
            l1i_misses: 20,
            l1d_misses: 40,
            l2_misses: 40,
            last_misses: 10,
            transfers: 5,
            ..Costs::default()
        };
        let expected = 1000 + 20 * 11 + 25 * 44 + 10 * 355 + 5 * 109;
        assert_eq!(WEIGHTS.cycles(&costs), expected);
        assert_eq!(WEIGHTS.cycles(&Costs::default()), 0);
    }
}
