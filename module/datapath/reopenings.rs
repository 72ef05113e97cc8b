// SPDX-License-Identifier: GPL-2.0

//! SYNs of connections that a flow knows by another one.
//!
//! A SYN in an established connection is a new connection if both ends have forgotten the old one; or it is late, or forged, and
//! an end that lives does not take it (RFC 5961, section 4). Only the answer tells. Until then the SYN is kept
//! here, and the flow stays as it was. (nf_conntrack keeps it with each of its entries; a flow has no room for it.)
//!
//! Whoever can send in the name of both ends can also forge the answer. As with nf_conntrack a SYN is believed, and the
//! connection begins anew. A RST, which no living client would answer, is not: it makes the connection half open.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::tcp::{Segment, Syn};

/// How many SYNs are kept at once: one a slot.
pub const SLOTS: usize = 256;

/// The SYNs of one namespace: the newest for each slot, found by the flow's hash. One that is pushed out is
/// missed as one that was never kept.
#[derive(Debug)]
#[repr(transparent)]
pub struct Reopenings([AtomicU64; SLOTS]);

/// The number after the SYN, the bytes of its data, its window shift and two, or one if it has none, and more of the hash;
/// zero without one.
///
/// ```text
/// 63        32 31        16 15   11 10     0
/// |   first   |    data    | shift |  tag  |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept(u64);

impl Kept {
    const SHIFT_AT: u32 = 11;
    const TAG: u32 = (1 << Self::SHIFT_AT) - 1;

    fn new(tag: u32, syn: &Syn) -> Self {
        // A packet has no more data, and no greater shift is allowed.
        let data = syn.data.min(u16::MAX.into());
        let shift = syn.shift.map_or(1, |shift| u32::from(shift.min(14)) + 2);
        let low = data << 16 | shift << Self::SHIFT_AT | tag & Self::TAG;
        Self(u64::from(syn.first) << 32 | u64::from(low))
    }

    fn syn(self, tag: u32) -> Option<Syn> {
        let low = self.0 as u32;
        let shift = (low >> Self::SHIFT_AT & 0x1f).checked_sub(1)?;
        (low & Self::TAG == tag & Self::TAG).then_some(Syn {
            first: (self.0 >> 32) as u32,
            data: low >> 16,
            shift: shift.checked_sub(1).map(|shift| shift as u8),
        })
    }
}

impl Reopenings {
    /// Without any.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }
}

impl Default for Reopenings {
    fn default() -> Self {
        Self::new()
    }
}

impl Reopenings {
    fn slot(&self, hash: u32) -> (&AtomicU64, u32) {
        // Of as many slots as a byte has values.
        let [index, ..] = hash.to_le_bytes();
        (&self.0[usize::from(index)], hash >> 8)
    }

    /// Keeps the SYN of a flow with `hash`, or the same once more.
    pub fn keep(&self, hash: u32, syn: &Syn) {
        let (slot, tag) = self.slot(hash);
        let before = Kept(slot.load(Relaxed)).syn(tag);
        let syn = before
            .and_then(|before| before.once_more(syn))
            .unwrap_or(*syn);
        slot.store(Kept::new(tag, &syn).0, Relaxed);
    }

    /// The SYN of the flow with `hash` that `segment` acknowledges, if it was kept. It is kept no longer.
    pub fn take(&self, hash: u32, segment: &Segment) -> Option<Syn> {
        let (slot, tag) = self.slot(hash);
        let kept = slot.load(Relaxed);
        let syn = Kept(kept).syn(tag).filter(|syn| syn.is_acked_by(segment))?;
        // For one of those that ask at once. Nothing else is told by it: no order is needed.
        slot.compare_exchange(kept, 0, Relaxed, Relaxed)
            .is_ok()
            .then_some(syn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::TCP_HEADER;
    use super::*;
    use proptest::prelude::*;

    fn acking(ack: u32) -> Segment {
        let mut header = [0; TCP_HEADER];
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = 16;
        Segment::read(&header, 20)
    }

    fn syn(first: u32, data: u32, shift: impl Into<Option<u8>>) -> Syn {
        let shift = shift.into();
        Syn { first, data, shift }
    }

    #[test]
    fn what_is_kept_is_taken_once_by_its_flow() {
        let reopenings = Reopenings::new();
        assert_eq!(reopenings.take(0, &acking(0)), None);
        let one = syn(0, 0, 0);
        reopenings.keep(0x0001_0000, &one);
        for hash in [0, 0x0002_0000, 0x0001_0001, 0x0000_0100] {
            assert_eq!(reopenings.take(hash, &acking(0)), None, "{hash:#x}");
        }
        assert_eq!(reopenings.take(0x0001_0000, &acking(1)), None);
        assert_eq!(reopenings.take(0x0001_0000, &acking(0)), Some(one));
        assert_eq!(reopenings.take(0x0001_0000, &acking(0)), None);
    }

    // Both see it; one begins anew with it.
    #[test]
    fn of_two_cpus_one_takes_it() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let (reopenings, barrier) = (Reopenings::new(), std::sync::Barrier::new(2));
        let take = || {
            let mut taken = 0_u32;
            for round in 0..rounds {
                reopenings.keep(5, &syn(round, 0, 7));
                barrier.wait();
                taken += u32::from(reopenings.take(5, &acking(round)).is_some());
                barrier.wait();
            }
            taken
        };
        let taken = std::thread::scope(|scope| {
            let other = scope.spawn(take);
            take() + other.join().unwrap()
        });
        assert_eq!(taken, rounds);
    }

    #[test]
    fn the_newest_of_a_slot_is_kept() {
        let reopenings = Reopenings::new();
        reopenings.keep(5, &syn(10, 0, 7));
        reopenings.keep(0x105, &syn(20, 0, 7));
        reopenings.keep(6, &syn(30, 0, 7));
        assert_eq!(reopenings.take(5, &acking(10)), None);
        assert_eq!(reopenings.take(0x105, &acking(20)), Some(syn(20, 0, 7)));
        assert_eq!(reopenings.take(6, &acking(30)), Some(syn(30, 0, 7)));
    }

    #[test]
    fn a_repeated_syn_takes_no_data_back() {
        let reopenings = Reopenings::new();
        reopenings.keep(5, &syn(10, 100, 7));
        reopenings.keep(5, &syn(10, 0, 7));
        assert_eq!(reopenings.take(5, &acking(110)), Some(syn(10, 100, 7)));
    }

    proptest! {
        #[test]
        fn any_syn_comes_back(hash: u32, first: u32, data in 0..65_536_u32, shift in prop::option::of(0..15_u8)) {
            let reopenings = Reopenings::new();
            let kept = syn(first, data, shift);
            for ack in [first, first.wrapping_add(data)] {
                reopenings.keep(hash, &kept);
                prop_assert_eq!(reopenings.take(hash, &acking(first.wrapping_sub(1))), None);
                prop_assert_eq!(reopenings.take(hash, &acking(first.wrapping_add(data + 1))), None);
                let taken = reopenings.take(hash, &acking(ack)).unwrap();
                prop_assert_eq!(taken, kept);
            }
        }
    }
}
