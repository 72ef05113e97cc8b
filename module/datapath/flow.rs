// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering};

use super::abi::proxy::Family;
use super::checksum::{Delta, Sum};
use super::tcp::{Fins, Flags, State};
use super::tuple::Tuple;

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client, towards what it believes to be its server.
    Original = 0,
    /// From the upstream, towards the client.
    Reply = 1,
}

impl Side {
    /// From the side of a link.
    #[inline(always)]
    pub const fn from_index(index: usize) -> Self {
        if index == 0 {
            Self::Original
        } else {
            Self::Reply
        }
    }
}

/// What translating a packet changes in its checksums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// The addresses: the IPv4 header's checksum, and the pseudo header of the transport's.
    pub addresses: Delta,
    /// Addresses and ports: the transport's checksum.
    pub transport: Delta,
}

impl Change {
    fn between(old: &Tuple, new: &Tuple) -> Self {
        let addresses = |tuple: &Tuple| {
            Sum::default()
                .add_address(tuple.source())
                .add_address(tuple.destination())
        };
        let ports = |tuple: &Tuple| {
            let ports = tuple.ports();
            Sum::default()
                .add(ports.source.into())
                .add(ports.destination.into())
        };
        let addresses = Delta::between(addresses(old), addresses(new));
        let ports = Delta::between(ports(old), ports(new));
        Self {
            addresses,
            transport: addresses.and(ports),
        }
    }
}

/// A connection from a client to an original destination, and from the same client, as the
/// upstream sees it, to the upstream.
#[repr(C)]
pub struct Flow {
    // What packets of each side look like on arrival.
    tuples: [Tuple; 2],
    changes: [Change; 2],
    /// The context whose rule made the flow.
    pub owner: u32,
    last_seen: AtomicU32,
    // State in the low bits, FINs seen above.
    life: AtomicU8,
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

const FINS_SHIFT: u32 = 4;
const STATE_MASK: u8 = (1 << FINS_SHIFT) - 1;

impl Flow {
    /// A flow whose packets look like `original` when they come from the client, and like
    /// `upstream` when they leave for the upstream.
    pub fn new(original: Tuple, upstream: Tuple, owner: u32, now: u32) -> Self {
        let reply = upstream.reverse();
        Self {
            tuples: [original, reply],
            changes: [
                Change::between(&original, &upstream),
                Change::between(&reply, &original.reverse()),
            ],
            owner,
            last_seen: AtomicU32::new(now),
            life: AtomicU8::new(State::Opening as u8),
            packets: Default::default(),
            bytes: Default::default(),
        }
    }

    /// What packets of `side` look like on arrival.
    #[inline(always)]
    pub const fn tuple(&self, side: Side) -> &Tuple {
        &self.tuples[side as usize]
    }

    /// What packets of `side` look like when they leave.
    #[inline(always)]
    pub const fn translated(&self, side: Side) -> Tuple {
        match side {
            Side::Original => self.tuples[Side::Reply as usize].reverse(),
            Side::Reply => self.tuples[Side::Original as usize].reverse(),
        }
    }

    /// How translating a packet of `side` changes its checksums.
    #[inline(always)]
    pub const fn change(&self, side: Side) -> Change {
        self.changes[side as usize]
    }

    /// The IP version of both sides.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        self.tuples[0].family()
    }

    /// Takes note of a packet: of `length` bytes, at time `now`.
    ///
    /// Packets of one side are counted without a locked instruction: two CPUs that take packets of
    /// one side at the same moment may count one of them.
    #[inline(always)]
    pub fn note(&self, side: Side, flags: Flags, length: u32, now: u32) {
        let add = |counter: &AtomicU64, by: u64| {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(by),
                Ordering::Relaxed,
            );
        };
        add(&self.packets[side as usize], 1);
        add(&self.bytes[side as usize], length.into());
        self.last_seen.store(now, Ordering::Relaxed);
        let life = self.life.load(Ordering::Relaxed);
        if life != State::Established as u8 || !flags.is_plain() {
            self.advance(life, side, flags);
        }
    }

    #[cold]
    fn advance(&self, life: u8, side: Side, flags: Flags) {
        let fins = Fins(life >> FINS_SHIFT).with(side, flags);
        let state = State::from_number(life & STATE_MASK);
        let state = state.after(self.tuples[0].protocol(), side, flags, fins);
        // Two CPUs that advance a flow at once may lose one step; a retransmission or the time-out
        // makes up for it.
        self.life
            .store(fins.0 << FINS_SHIFT | state as u8, Ordering::Relaxed);
    }

    /// Where the flow is in its life.
    pub fn state(&self) -> State {
        State::from_number(self.life.load(Ordering::Relaxed) & STATE_MASK)
    }

    /// How long ago the last packet came, in the unit of `now`.
    pub fn idle(&self, now: u32) -> u32 {
        // A packet may come between reading the clock and this: that is no idle time.
        let idle = now.wrapping_sub(self.last_seen.load(Ordering::Relaxed));
        if idle > u32::MAX / 2 {
            0
        } else {
            idle
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::proxy::Protocol;
    use super::super::tuple::tests::any_tuple;
    use super::super::tuple::{v4, Ports};
    use super::*;
    use proptest::prelude::*;

    // Pseudo header and ports: all that translating changes under a transport checksum.
    fn sum(tuple: &Tuple) -> Sum {
        Sum::default()
            .add_address(tuple.source())
            .add_address(tuple.destination())
            .add(tuple.ports().source.into())
            .add(tuple.ports().destination.into())
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_identity(
            original in any_tuple(), address in any::<[u32; 4]>(), ports in any::<[u16; 2]>(),
        ) {
            let address = match original.family() {
                Family::V4 => v4(address[0]),
                Family::V6 => address,
            };
            let upstream = original.to(address, ports[0]).from_port(ports[1]);
            let flow = Flow::new(original, upstream, 0, 0);
            prop_assert_eq!(flow.translated(Side::Original), upstream);
            prop_assert_eq!(*flow.tuple(Side::Reply), upstream.reverse());
            prop_assert_eq!(flow.translated(Side::Reply), original.reverse());
            for side in [Side::Original, Side::Reply] {
                let (before, after) = (*flow.tuple(side), flow.translated(side));
                let got = flow.change(side).transport.apply(!sum(&before).fold());
                prop_assert_eq!(!got % 0xffff, sum(&after).fold() % 0xffff);
            }
        }
    }

    #[test]
    fn idle_time_wraps_and_never_is_negative() {
        let ports = Ports {
            source: 1,
            destination: 2,
        };
        let tuple = Tuple::new(Family::V4, Protocol::Udp, v4(1), v4(2), ports);
        let flow = Flow::new(tuple, tuple.to(v4(3), 4), 0, u32::MAX - 1);
        assert_eq!(flow.idle(u32::MAX), 1);
        assert_eq!(flow.idle(3), 5);
        assert_eq!(flow.idle(u32::MAX - 2), 0);
    }

    #[test]
    fn a_flow_fits_in_four_cache_lines_with_its_links() {
        // 16 bytes of links before it, 16 of a callback head behind it, two users of 256 bytes.
        assert!(size_of::<Flow>() <= 256 - 32, "{}", size_of::<Flow>());
    }
}
