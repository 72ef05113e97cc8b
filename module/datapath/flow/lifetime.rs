// SPDX-License-Identifier: GPL-2.0

//! How long a flow lasts: how long it may be idle, and which go first when the table is full.

use core::sync::atomic::Ordering::Relaxed;

use super::super::abi::proxy::Protocol;
use super::super::state::{FlowState, Timeouts};
use super::super::tuple::{Address, Tuple};
use super::{birth, Direction, Flow, PerDirection, ASSURED, BIRTH_UNIT};

/// A datagram flow is assured once a packet of either direction comes so many seconds after it began, and at the most
/// two units of its birth later, as with connection tracking (nf_conntrack_proto_udp.c). It begins with what its client
/// sent last before the answer, as far as somebody asked for it since.
const ASSURED_AFTER: u32 = 2;

impl<R> Flow<R> {
    // Whether a datagram flow is more than a question and an answer. Said once, it stays so. For who may
    // change the table, of a flow that is in it.
    fn is_assured(&self, hz: u32) -> bool {
        let dir = self.dir(Direction::Original);
        let born = dir.high.load(Relaxed);
        if born == ASSURED {
            return true;
        }
        // For how long nobody answered says nothing.
        if self.state() != FlowState::Established {
            dir.high.store(birth(dir.last_seen.load(Relaxed)), Relaxed);
            return false;
        }
        // Of whole units; a last packet before the first is one of another CPU, whose clock is late.
        let age =
            |dir: &PerDirection<R>| match birth(dir.last_seen.load(Relaxed)).wrapping_sub(born) {
                0 | 0x8000.. => 0,
                units => u32::from(units - 1) << BIRTH_UNIT,
            };
        let [original, reply] = &self.dirs;
        let assured = age(original).max(age(reply)) >= ASSURED_AFTER.wrapping_mul(hz);
        if assured {
            dir.high.store(ASSURED, Relaxed);
        }
        assured
    }

    /// How long it may be idle now; `original` is the key of its original direction. To be asked now and
    /// then, at least once in 2^22 units of the clock, by who may change the table that the flow is in: it
    /// takes note of what has lasted.
    pub fn timeout<A: Address>(&self, original: &Tuple<A>, timeouts: &Timeouts) -> u32 {
        let [short, transient, lasting] = timeouts.udp;
        let [opening, established, closing, closed] = timeouts.tcp;
        match (original.protocol, self.state()) {
            (Protocol::Udp, _) if self.is_assured(timeouts.hz) => lasting,
            (Protocol::Udp, _) if original.goes_to_well_known_port() => short,
            (Protocol::Udp, _) => transient,
            (Protocol::Tcp, FlowState::Opening) => opening,
            (Protocol::Tcp, FlowState::Established) if self.is_half_open() => opening,
            (Protocol::Tcp, FlowState::Established) => established,
            (Protocol::Tcp, FlowState::Closing) => closing,
            (Protocol::Tcp, FlowState::Closed) => closed,
        }
    }

    /// How much better it is to evict this flow than others when the table is full, for one that is to be `direct` or not:
    /// most of all what is closed, then what was never answered or is half open, what closes and is idle, a
    /// single exchange of datagrams, and any other direct flow, without which nothing goes elsewhere; of these what has been
    /// idle longest. `None`: it must stay, as a redirected one for a direct one. As for `timeout`.
    pub fn early_drop_rank(
        &self,
        protocol: Protocol,
        direct: bool,
        now: u32,
        hz: u32,
    ) -> Option<u32> {
        /// So long a connection that one end has closed is idle before it is taken for dead, in seconds.
        const HALF_CLOSED: u32 = 10;
        const CLASS: u32 = 1 << 29;
        if direct && !self.is_direct() {
            return None;
        }
        let idle = self.idle(now);
        let class = match (protocol, self.state()) {
            (_, FlowState::Closed) => 4,
            // Whoever floods the table must not push out who has only closed one direction.
            (_, FlowState::Opening) => 3,
            (Protocol::Tcp, _) if self.is_half_open() => 3,
            (_, FlowState::Closing) if idle > HALF_CLOSED.wrapping_mul(hz) => 2,
            (Protocol::Udp, _) if !self.is_assured(hz) => 1,
            _ if self.is_direct() => 0,
            _ => return None,
        };
        Some(CLASS.wrapping_mul(class) | idle.min(CLASS - 1))
    }

    /// How long ago the last packet came, in the unit of `now`.
    pub fn idle(&self, now: u32) -> u32 {
        let idle = |dir: &PerDirection<R>| {
            // A packet may come between reading the clock and this: that is no idle time.
            let idle = now.wrapping_sub(dir.last_seen.load(Relaxed));
            if idle > u32::MAX / 2 {
                0
            } else {
                idle
            }
        };
        let [original, reply] = &self.dirs;
        idle(original).min(idle(reply))
    }
}
