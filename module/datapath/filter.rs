// SPDX-License-Identifier: GPL-2.0

//! Tells most packets that are not the proxy's by their ports alone, before anything is hashed.
//!
//! A flow's packets go to a port that some rule names, or come from a port of an upstream. Ports
//! are only ever added while there are flows; one too many costs a look-up.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::flow::Direction;
use super::tuple::Ports;

const BITS: usize = 1 << 16;
/// Words of a filter: a bit for each port, for each direction.
pub const WORDS: usize = 2 * BITS / 64;

/// A set of ports for each direction of flows, of all bits zero when it is empty.
#[repr(transparent)]
pub struct Filter<S>(S);

impl<S: core::ops::Deref<Target = [AtomicU64; WORDS]>> Filter<S> {
    /// From words, of which each is a part of a set.
    pub const fn new(words: S) -> Self {
        Self(words)
    }

    // Sides take turns word by word: the ports of one packet often are near each other.
    #[inline(always)]
    fn word(&self, direction: Direction, port: u16) -> &AtomicU64 {
        let index = usize::from(port) / 64 * 2 + direction as usize;
        // In bounds: the compiler sees it.
        &self.0[index & (WORDS - 1)]
    }

    #[inline(always)]
    fn has(&self, direction: Direction, port: u16) -> bool {
        self.word(direction, port).load(Relaxed) >> (port % 64) & 1 != 0
    }

    /// Whether a packet with these ports may be the proxy's.
    #[inline(always)]
    pub fn passes(&self, ports: Ports) -> bool {
        // Ports are used as they lie in the packet; what counts is that `add` does the same.
        self.has(Direction::Original, ports.destination())
            || self.has(Direction::Reply, ports.source())
    }

    /// Adds the ports `first` to `last`: destinations of packets of the original direction, or sources
    /// of those of the reply direction.
    pub fn add(&self, direction: Direction, first: u16, last: u16) {
        for port in (first..=last).map(u16::to_be) {
            self.word(direction, port)
                .fetch_or(1 << (port % 64), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn empty() -> Filter<Box<[AtomicU64; WORDS]>> {
        Filter::new(Box::new([const { AtomicU64::new(0) }; WORDS]))
    }

    // Short ones under Miri, which takes its time.
    fn any_range() -> impl Strategy<Value = [u16; 2]> {
        let longest = if cfg!(miri) { 200 } else { u16::MAX };
        any::<[u16; 2]>().prop_map(move |[a, b]| [a, a.saturating_add(b % longest)])
    }

    proptest! {
        #[test]
        fn behaves_like_two_sets(
            ranges in prop::collection::vec((any::<bool>(), any_range()), 0..3),
            packets in prop::collection::vec(any::<[u16; 2]>(), 1..50),
        ) {
            let filter = empty();
            for &(reply, [a, b]) in &ranges {
                filter.add(Direction::from_index(reply.into()), a.min(b), a.max(b));
            }
            let has = |reply: bool, port: u16| {
                let within = |&(direction, [a, b]): &(bool, [u16; 2])| {
                    direction == reply && (a.min(b)..=a.max(b)).contains(&port)
                };
                ranges.iter().any(within)
            };
            let edges = ranges.iter().flat_map(|&(_, [first, last])| {
                let beside = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                beside.map(|port| [port; 2])
            });
            for [source, destination] in packets.into_iter().chain(edges) {
                let ports = Ports::new(source.to_be(), destination.to_be());
                let expected = has(false, destination) || has(true, source);
                prop_assert_eq!(filter.passes(ports), expected);
            }
        }
    }

    #[test]
    fn the_last_port_is_one_too() {
        let filter = empty();
        filter.add(Direction::Original, u16::MAX, u16::MAX);
        assert!(filter.passes(Ports::new(0, u16::MAX)));
        assert!(!filter.passes(Ports::new(u16::MAX, 0)));
    }
}
