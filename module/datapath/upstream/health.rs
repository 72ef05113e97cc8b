// SPDX-License-Identifier: GPL-2.0

//! Which upstreams seem to be out of order: what is known of one, by how it took connections.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::moment::Moment;

/// How an upstream took a new connection of TCP whose first packet left for it. A packet that was
/// dropped on the way says nothing about the upstream: its flow goes without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It accepted.
    Answered,
    /// It sent a RST.
    Refused,
    /// It said nothing until the flow was forgotten.
    Unanswered,
}

/// What became of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How its upstream took it.
    pub outcome: Outcome,
    /// As [`Moment::client`].
    pub client: u32,
    /// When its client sent last, in the unit of `now`; if it had an answer, `now`.
    pub sent: u32,
    /// The time; it may wrap.
    pub now: u32,
}

// The time from `then` to `now`; another CPU may have read `then` off a clock that was ahead of
// this one's.
fn elapsed(then: u32, now: u32) -> u32 {
    match now.wrapping_sub(then) {
        AHEAD.. => 0,
        elapsed => elapsed,
    }
}

// From here on a difference of two times is one of clocks read late: at most 65,535 ticks, 65 s at
// 1000 Hz. Half the range would keep an upstream failed for weeks that nobody tried for weeks.
const AHEAD: u32 = u32::MAX - 0xffff;

/// What is known of an upstream. Failures count in a row: any answer to anybody makes it `Good`.
///
/// Two failures of one client are taken for that client's trouble, or for the upstream's as far as
/// that client is concerned, and failures of two clients for the upstream's.
///
/// nginx takes one failure (`max_fails=1`) within `fail_timeout`, 10 s; HAProxy takes three checks of
/// its own (`fall`), or ten errors in a row of its traffic (`observe`, `error-limit`). One would let
/// a single SYN decide. Ten would cost ten connections, each of which has already been sent again
/// several times if it was left unanswered; and ten of one client say less than two of two. Two is
/// the least that tells clients apart. There is no window of time, as in HAProxy and unlike nginx:
/// failures by silence of a lone client are `tcp_syn_timeout` apart, by default longer than
/// `upstream_retry`.
/// One answer is enough to be good again (HAProxy's `rise` is two), since it is an answer to a
/// client, not to a check.
///
/// An answer that clears failures also clears those that are still to come of packets sent before:
/// of silence one is told only when the flow is forgotten, after `tcp_syn_timeout`.
///
/// Whoever has two addresses, and SYNs that the upstream does not answer (damaged, or filtered
/// there), can have an upstream marked whenever two of these are reported with no answer to others in
/// between. The next answer to anybody clears it: at once if a connection was under way, else that
/// of the first honest connection that gets a probe; and then for `tcp_syn_timeout` at least no SYN
/// left unanswered counts. Each probe goes to who asks first, so with `a` bad and `h` honest
/// connections a second, honest ones are kept away for about `retry + soon * a / h` of every
/// `tcp_syn_timeout + retry + soon * a / h`. They are not kept from service: they go to the others,
/// and if those are marked as well, none is passed over. An IPv6 host has as many addresses as it
/// likes. The price: an upstream that answers a few of many SYNs is used for as long again.
///
/// That bound is not one for refusals, which are told at once: two addresses that the upstream itself
/// refuses, as by a rule of its own that answers with RST, keep others away for as long as they go on,
/// but for the time from each answer to the next two refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Good,
    /// A connection of this client failed. Good for everybody.
    Suspected {
        client: u32,
    },
    /// Another one of the same client failed, or that client tried: failed for it alone.
    FailedFor {
        client: u32,
        since: u32,
    },
    /// Those of two clients failed.
    Failed {
        since: u32,
    },
    /// As `Failed`, and a connection of this client tried since.
    Tried {
        client: u32,
        since: u32,
    },
}

use Condition::{Failed, FailedFor, Good, Suspected, Tried};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// It failed so long ago that a flow may try it.
    Due,
    Failed,
}

// A word is, from the lowest bit on: a time, a client, and which condition it is. Of the hash of a
// client 29 bits are left: one pair of 2^29 is taken for one client.
const CLIENT_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 61;
const SPARED: u32 = 3;

impl Condition {
    fn from_word(word: u64) -> Self {
        let since = word as u32;
        let client = (word >> CLIENT_SHIFT) as u32 & u32::MAX >> SPARED;
        match word >> KIND_SHIFT {
            0 => Good,
            1 => Suspected { client },
            2 => FailedFor { client, since },
            3 => Failed { since },
            _ => Tried { client, since },
        }
    }

    fn word(self) -> u64 {
        let (kind, client, since) = match self {
            Good => (0, 0, 0),
            Suspected { client } => (1, client, 0),
            FailedFor { client, since } => (2, client, since),
            Failed { since } => (3, 0, since),
            Tried { client, since } => (4, client, since),
        };
        kind << KIND_SHIFT | u64::from(client) << CLIENT_SHIFT | u64::from(since)
    }

    fn health(self, moment: &Moment) -> Health {
        let me = short(moment.client);
        let (since, wait) = match self {
            Good | Suspected { .. } => return Health::Good,
            FailedFor { client, .. } if client != me => return Health::Good,
            Tried { client, since } if client != me => (since, moment.soon()),
            FailedFor { since, .. } | Failed { since } | Tried { since, .. } => {
                (since, moment.retry)
            }
        };
        if elapsed(since, moment.now) >= wait {
            Health::Due
        } else {
            Health::Failed
        }
    }

    // After a flow of this moment tries it.
    fn tried(self, moment: &Moment) -> Self {
        let (client, since) = (short(moment.client), moment.now);
        match self {
            Good | Suspected { .. } => self,
            FailedFor { .. } => FailedFor { client, since },
            Failed { .. } | Tried { .. } => Tried { client, since },
        }
    }

    // After a connection of `client` failed. Where it has failed already, late failures of flows that
    // began before must not keep it so.
    fn failed(self, client: u32, now: u32) -> Self {
        let me = short(client);
        match self {
            Good => Suspected { client: me },
            Suspected { client } if client == me => FailedFor { client, since: now },
            FailedFor { client, .. } if client == me => self,
            Suspected { .. } | FailedFor { .. } => Failed { since: now },
            Failed { .. } | Tried { .. } => self,
        }
    }
}

fn short(client: u32) -> u32 {
    client >> SPARED
}

/// What is known of a member. All CPUs read its line: only a change is written.
///
/// The condition needs no order with other memory, and the changes of one word have one order on
/// every CPU: who reads an older value passes an upstream over, or goes there, a moment longer. A
/// failure looks at both words; who sees the condition that an answer left sees when that was.
#[derive(Debug, Default)]
pub(super) struct Record {
    // The word of a [`Condition`]; zero if it is good.
    condition: AtomicU64,
    // When an answer last cleared failures, above it RECOVERED; zero if none did.
    recovered: AtomicU64,
    // Whether it was last told that it has failed.
    told_failed: AtomicBool,
}

const RECOVERED: u64 = 1 << 32;
/// No packet waits so long for its flow to be forgotten.
const LONG_AGO: u32 = 1 << 31;

impl Record {
    #[inline(always)]
    pub(super) fn is_good(&self) -> bool {
        self.condition.load(Relaxed) == 0
    }

    pub(super) fn health(&self, moment: &Moment) -> Health {
        Condition::from_word(self.condition.load(Relaxed)).health(moment)
    }

    // Whether a connection may go here. Of those that could try a failed one, one does.
    pub(super) fn admits(&self, moment: &Moment) -> bool {
        let word = self.condition.load(Relaxed);
        let condition = Condition::from_word(word);
        match condition.health(moment) {
            Health::Good => true,
            Health::Due => {
                let next = condition.tried(moment).word();
                let old = self
                    .condition
                    .compare_exchange(word, next, Relaxed, Relaxed);
                old.is_ok()
            }
            Health::Failed => false,
        }
    }

    // Whether it works, for all clients, if that is not what was told last. To be asked by one task at a time.
    pub(super) fn news(&self) -> Option<bool> {
        let works = match Condition::from_word(self.condition.load(Relaxed)) {
            Good | Suspected { .. } => true,
            FailedFor { .. } | Failed { .. } | Tried { .. } => false,
        };
        let is_news = self.told_failed.load(Relaxed) == works;
        self.told_failed.store(!works, Relaxed);
        is_news.then_some(works)
    }

    // The only one there is: the connection goes here, whatever is known of it.
    #[cold]
    #[inline(never)]
    pub(super) fn try_alone(&self, moment: impl FnOnce() -> Moment) {
        self.admits(&moment());
    }

    pub(super) fn answered(&self, now: u32) {
        if !self.is_good() {
            self.recovered.store(RECOVERED | u64::from(now), Relaxed);
            self.condition.store(0, Release);
        } else {
            self.forget_recovery(now);
        }
    }

    // When an answer came so long ago that nothing sent before is still to be told of: the time wraps, and must not seem
    // to be a late one again.
    fn forget_recovery(&self, now: u32) {
        let word = self.recovered.load(Relaxed);
        if word != 0 && (LONG_AGO..AHEAD).contains(&now.wrapping_sub(word as u32)) {
            // Another CPU may have found a later one.
            let _ = self.recovered.compare_exchange(word, 0, Relaxed, Relaxed);
        }
    }

    pub(super) fn failed(&self, report: &Report) {
        self.forget_recovery(report.now);
        let mut word = self.condition.load(Acquire);
        // A failure leads at most two changes on; more than a few come only of answers in between.
        for _ in 0..ATTEMPTS {
            let next = Condition::from_word(word).failed(report.client, report.now);
            if next.word() == word || self.has_recovered_since(report) {
                return;
            }
            match self
                .condition
                .compare_exchange(word, next.word(), Relaxed, Acquire)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    fn has_recovered_since(&self, report: &Report) -> bool {
        let word = self.recovered.load(Relaxed);
        word != 0 && elapsed(word as u32, report.now) < elapsed(report.sent, report.now)
    }
}

/// How often a failure is noted that others interfere with.
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // The word has room for what is in it.
        #[test]
        fn a_condition_fits_its_word(client in 0..u32::MAX >> SPARED, since: u32) {
            let all = [
                Good,
                Suspected { client },
                FailedFor { client, since },
                Failed { since },
                Tried { client, since },
            ];
            for condition in all {
                prop_assert_eq!(Condition::from_word(condition.word()), condition);
                prop_assert_eq!(condition.word() == 0, condition == Good);
            }
        }
    }
}
