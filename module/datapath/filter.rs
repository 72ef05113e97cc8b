// SPDX-License-Identifier: GPL-2.0

//! Tells most packets that are not the proxy's by their ports alone, before anything is hashed.
//!
//! A packet of a flow goes to a port that some rule or upstream has, or comes from one. Ports
//! are only ever added while there are flows; one too many costs a look-up.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::range::Range;
use super::tuple::Ports;

/// Words of a filter: a bit for each port.
pub const WORDS: usize = (1 << 16) / 64;

/// A set of ports, of all bits zero when it is empty.
#[repr(transparent)]
pub struct Filter<S>(S);

impl<S: core::ops::Deref<Target = [AtomicU64; WORDS]>> Filter<S> {
    /// From words, of which each is a part of the set.
    pub const fn new(words: S) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn word(&self, port: u16) -> &AtomicU64 {
        // In bounds: the compiler sees it.
        &self.0[(usize::from(port) / 64) & (WORDS - 1)]
    }

    #[inline(always)]
    fn has(&self, port: u16) -> bool {
        self.word(port).load(Relaxed) >> (port % 64) & 1 != 0
    }

    /// Whether a packet with these ports may be the proxy's.
    #[inline(always)]
    pub fn passes(&self, ports: Ports) -> bool {
        // Ports are used as they lie in the packet; what counts is that `add` does the same.
        self.has(ports.destination()) || self.has(ports.source())
    }

    /// Adds these ports.
    pub fn add(&self, ports: Range<u16>) {
        for port in (ports.first..=ports.last).map(u16::to_be) {
            self.word(port).fetch_or(1 << (port % 64), Relaxed);
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
        fn behaves_like_a_set(
            ranges in prop::collection::vec(any_range(), 0..3),
            packets in prop::collection::vec(any::<[u16; 2]>(), 1..50),
        ) {
            let filter = empty();
            for &[a, b] in &ranges {
                filter.add(Range { first: a.min(b), last: a.max(b) });
            }
            let has = |port: u16| {
                ranges.iter().any(|&[a, b]| (a.min(b)..=a.max(b)).contains(&port))
            };
            let edges = ranges.iter().flat_map(|&[first, last]| {
                let beside = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                beside.map(|port| [port; 2])
            });
            for [source, destination] in packets.into_iter().chain(edges) {
                let ports = Ports::new(source.to_be(), destination.to_be());
                let expected = has(destination) || has(source);
                prop_assert_eq!(filter.passes(ports), expected);
            }
        }
    }

    #[test]
    fn the_last_port_is_one_too() {
        let filter = empty();
        filter.add(Range::one(u16::MAX));
        assert!(filter.passes(Ports::new(0, u16::MAX)));
        assert!(filter.passes(Ports::new(u16::MAX, 0)));
        assert!(!filter.passes(Ports::new(0, 0)));
    }

    #[test]
    fn it_takes_a_bit_for_each_port() {
        assert_eq!(size_of::<[AtomicU64; WORDS]>(), 8192);
    }
}
