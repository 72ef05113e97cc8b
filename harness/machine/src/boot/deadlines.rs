// SPDX-License-Identifier: MIT OR Apache-2.0

//! When to give a guest up.

use std::time::Duration;

use mutexlab_protocol::Order;

/// How often flags and deadlines are looked at.
pub const POLL: Duration = Duration::from_millis(50);

/// How long a guest may take, in time of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the start until the agent says that it is up.
    pub up: Duration,
    /// From one event to the next.
    pub silence: Duration,
    /// The whole boot.
    pub total: Duration,
}

impl Deadlines {
    /// For a kernel as it is meant to run.
    pub const PLAIN: Self = Self {
        up: Duration::from_secs(90),
        silence: Duration::from_secs(120),
        total: Duration::from_secs(1200),
    };
    /// For a kernel with sanitizers and validators, several times as slow.
    pub const DEBUG: Self = Self {
        up: Duration::from_secs(240),
        silence: Duration::from_secs(240),
        total: Duration::from_secs(1800),
    };
    /// As good as no deadline: 30 years, so that sums with it can be told.
    pub const NEVER: Duration = Duration::from_secs(1_000_000_000);
    /// What a flow may take until it is established. It was seen to take a tenth of a millisecond.
    const FLOW: Duration = Duration::from_millis(3);
    /// What a CPU may take to come up: with 64 of them it was seen to take half a second.
    const CPU: Duration = Duration::from_secs(2);

    /// For a kernel with its checkers, or as it is meant to run.
    pub const fn of(debug: bool) -> Self {
        if debug {
            Self::DEBUG
        } else {
            Self::PLAIN
        }
    }

    /// The same with time for so many CPUs to come up.
    #[must_use]
    pub fn for_cpus(self, cpus: u32) -> Self {
        let more = Self::CPU * cpus;
        Self {
            up: self.up + more,
            total: self.total + more,
            ..self
        }
    }

    /// The same with time for the bursts that an order's cells search, and of which the agent tells
    /// nothing meanwhile.
    #[must_use]
    pub fn for_bursts(self, order: &Order) -> Self {
        let each = order.bursts().map(|goal| goal.patience_in_all());
        let (longest, all) = each.fold((Duration::ZERO, Duration::ZERO), |(longest, all), one| {
            (longest.max(one), all + one)
        });
        Self {
            silence: self.silence + longest,
            total: self.total + all,
            ..self
        }
    }

    /// The same with time to establish the flows of an order.
    #[must_use]
    pub fn for_flows(self, order: &Order) -> Self {
        let flows = order.flows();
        let total = u32::try_from(flows.total).unwrap_or(u32::MAX);
        Self {
            silence: self.silence + Self::FLOW * flows.max,
            total: self.total + Self::FLOW * total,
            ..self
        }
    }

    /// The same for so many tests, of which the agent tells when each ends; one of them may take `longer` than
    /// the others.
    #[must_use]
    pub fn for_tests(self, tests: u32, longer: Duration) -> Self {
        let silence = self.silence + longer;
        Self {
            silence,
            // No more than each of them may be silent: how many there are is no reason to give up.
            total: self.total.max(self.up + self.silence * tests + longer),
            ..self
        }
    }

    /// So many times as long.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            up: self.up * times,
            silence: self.silence * times,
            total: self.total * times,
        }
    }

    /// The same for a guest that somebody looks around in: it may be silent, or stopped by a debugger,
    /// for as long as they like.
    #[must_use]
    pub fn without_end(self) -> Self {
        Self {
            silence: Self::NEVER,
            total: Self::NEVER,
            ..self
        }
    }
}
