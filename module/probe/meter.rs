// SPDX-License-Identifier: GPL-2.0

//! Follows packets through their hooks and sums up what that cost.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use kernel::prelude::*;

use crate::abi::bytes::Writer;
use crate::abi::histogram;
use crate::abi::probe::{Direction, Filter, Report, HOOKS, PRECISION_BITS, RANGE_BITS};
use crate::abi::proxy::{Family, Protocol};
use crate::datapath::packet::{Header, Parsed};
use crate::datapath::tuple::{Ports, V4, V6};
use crate::sys::hooks::{Hooknum, Packet};
use crate::sys::marks;
use crate::sys::percpu::PerCpu;
use crate::sys::time;

type Scale = histogram::Scale<PRECISION_BITS, RANGE_BITS>;

/// A filter in one word, so that hooks see either the old one or the new; zero records nothing.
#[derive(Default)]
struct PackedFilter(AtomicU64);

impl PackedFilter {
    fn set(&self, filter: Filter) {
        let packed = (filter.family as u64) << 40
            | (filter.protocol as u64) << 32
            | u64::from(filter.client_port_first) << 16
            | u64::from(filter.client_port_last);
        self.0.store(packed, Relaxed);
    }

    fn direction(&self, family: Family, protocol: Protocol, ports: Ports) -> Option<Direction> {
        let packed = self.0.load(Relaxed);
        let (first, last) = ((packed >> 16) as u16, packed as u16);
        if packed >> 32 != (family as u64) << 8 | protocol as u64 {
            return None;
        }
        let is_client = |port: u16| (first..=last).contains(&u16::from_be(port));
        if is_client(ports.source()) {
            Some(Direction::Original)
        } else {
            is_client(ports.destination()).then_some(Direction::Reply)
        }
    }
}

/// What one CPU has seen of one direction. Only this CPU's hooks write it, and for the packet that is followed
/// none interrupts another between reading and writing a counter.
struct Totals {
    packets: AtomicU64,
    interrupted: AtomicU64,
    torn: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    least_gap: AtomicU64,
    hook_sum: [AtomicU64; HOOKS],
    hook_spans: [AtomicU64; HOOKS],
    buckets: KVVec<AtomicU32>,
}

impl Totals {
    fn new() -> Result<Self> {
        let mut buckets = KVVec::with_capacity(Scale::BUCKETS, GFP_KERNEL)?;
        for _ in 0..Scale::BUCKETS {
            buckets.push(AtomicU32::new(0), GFP_KERNEL)?;
        }
        Ok(Self {
            packets: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            torn: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            least_gap: AtomicU64::new(u64::MAX),
            hook_sum: Default::default(),
            hook_spans: Default::default(),
            buckets,
        })
    }

    fn reset(&self) {
        for bucket in self.used() {
            bucket.store(0, Relaxed);
        }
        for counter in [
            &self.packets,
            &self.interrupted,
            &self.torn,
            &self.sum,
            &self.max,
        ] {
            counter.store(0, Relaxed);
        }
        self.min.store(u64::MAX, Relaxed);
        self.least_gap.store(u64::MAX, Relaxed);
        for counter in Iterator::chain(self.hook_sum.iter(), &self.hook_spans) {
            counter.store(0, Relaxed);
        }
    }

    /// The buckets up to the last one that something is in: most are never used, and looking at all of them takes longer than
    /// what is measured.
    fn used(&self) -> &[AtomicU32] {
        let last = Scale::index(self.max.load(Relaxed));
        self.buckets.get(..=last).unwrap_or(&self.buckets)
    }

    fn record(&self, spans: &[AtomicU64; HOOKS], passed: u32) {
        let mut sum = 0;
        for (hook, span) in Iterator::zip(0..HOOKS, spans) {
            if passed & 1_u32.wrapping_shl(hook as u32) == 0 {
                continue;
            }
            let span = span.load(Relaxed);
            sum = u64::wrapping_add(sum, span);
            if let (Some(total), Some(count)) = (self.hook_sum.get(hook), self.hook_spans.get(hook))
            {
                add(total, span);
                add(count, 1);
            }
        }
        add(&self.packets, 1);
        add(&self.sum, sum);
        self.min.store(self.min.load(Relaxed).min(sum), Relaxed);
        self.max.store(self.max.load(Relaxed).max(sum), Relaxed);
        if let Some(bucket) = self.buckets.get(Scale::index(sum)) {
            bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// One CPU's share of the meter.
struct Lane {
    // The id of the packet that is followed; zero for none.
    packet: AtomicUsize,
    reply: AtomicBool,
    interrupted: AtomicBool,
    // The span that is open.
    started: AtomicU64,
    interrupts: AtomicU64,
    // The spans of the packet so far, and a bit for each hook that it passed.
    spans: [AtomicU64; HOOKS],
    passed: AtomicU32,
    // When its way began, and that of the packet before it.
    begun: AtomicU64,
    begun_before: AtomicU64,
    totals: [Totals; 2],
}

impl Lane {
    fn new() -> Result<Self> {
        Ok(Self {
            packet: AtomicUsize::new(0),
            reply: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            started: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            spans: Default::default(),
            passed: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            begun_before: AtomicU64::new(0),
            totals: [Totals::new()?, Totals::new()?],
        })
    }

    fn totals(&self) -> &Totals {
        let [original, reply] = &self.totals;
        if self.reply.load(Relaxed) {
            reply
        } else {
            original
        }
    }

    // After a packet's way: notes how long after the previous packet's beginning it began.
    fn note_gap(&self) {
        let begun = self.begun.load(Relaxed);
        let gap = begun.wrapping_sub(self.begun_before.swap(begun, Relaxed));
        let least = &self.totals().least_gap;
        least.store(least.load(Relaxed).min(gap), Relaxed);
    }

    // Gives up the packet that was followed, if there is one.
    fn tear(&self) {
        if self.packet.swap(0, Relaxed) != 0 {
            add(&self.totals().torn, 1);
        }
    }
}

/// Measures the packets of a namespace.
pub(crate) struct Meter {
    filter: PackedFilter,
    lanes: PerCpu<Lane>,
}

impl Meter {
    /// A meter that records nothing yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            filter: PackedFilter::default(),
            lanes: PerCpu::new(Lane::new)?,
        })
    }

    /// Empties everything and records the packets of `filter`.
    pub(crate) fn record(&self, filter: Filter) {
        for lane in self.lanes.iter() {
            lane.packet.store(0, Relaxed);
            lane.totals.iter().for_each(Totals::reset);
        }
        self.filter.set(filter);
    }

    /// A packet comes to a hook: the last thing done here is to look at the clock.
    #[inline(always)]
    pub(crate) fn before(&self, family: Family, hooknum: Hooknum, packet: &mut Packet<'_>) {
        let lane = self.lanes.this();
        if matches!(hooknum, Hooknum::PreRouting | Hooknum::LocalOut) {
            // A packet that was followed and never reached its last hook was dropped or queued.
            lane.tear();
            let Some(direction) = self.direction(family, packet) else {
                return;
            };
            lane.reply.store(direction == Direction::Reply, Relaxed);
            lane.interrupted.store(false, Relaxed);
            lane.passed.store(0, Relaxed);
            lane.packet.store(packet.skb.id(), Relaxed);
            marks::packet_in();
        } else if lane.packet.load(Relaxed) != packet.skb.id() {
            return;
        }
        lane.interrupts.store(time::interrupts(), Relaxed);
        marks::span_begin();
        lane.started.store(time::ticks(), Relaxed);
    }

    /// A packet has passed a hook: the first thing done here is to look at the clock.
    #[inline(always)]
    pub(crate) fn after(&self, hooknum: Hooknum, packet: &Packet<'_>) {
        let now = time::ticks();
        let lane = self.lanes.this();
        if lane.packet.load(Relaxed) != packet.skb.id() {
            return;
        }
        marks::span_end();
        if time::interrupts() != lane.interrupts.load(Relaxed) {
            lane.interrupted.store(true, Relaxed);
        }
        if let Some(span) = lane.spans.get(hooknum as usize) {
            span.store(now.wrapping_sub(lane.started.load(Relaxed)), Relaxed);
        }
        if matches!(hooknum, Hooknum::PreRouting | Hooknum::LocalOut) {
            lane.begun.store(lane.started.load(Relaxed), Relaxed);
        }
        let passed = lane.passed.load(Relaxed) | 1 << hooknum as u32;
        lane.passed.store(passed, Relaxed);
        if matches!(hooknum, Hooknum::LocalIn | Hooknum::PostRouting) {
            marks::packet_out();
            lane.packet.store(0, Relaxed);
            if lane.interrupted.load(Relaxed) {
                add(&lane.totals().interrupted, 1);
            } else {
                lane.totals().record(&lane.spans, passed);
            }
            lane.note_gap();
        }
    }

    fn direction(&self, family: Family, packet: &mut Packet<'_>) -> Option<Direction> {
        match family {
            Family::V4 => self.direction_of::<V4>(packet),
            Family::V6 => self.direction_of::<V6>(packet),
        }
    }

    fn direction_of<A: Header>(&self, packet: &mut Packet<'_>) -> Option<Direction> {
        loop {
            match A::parse(packet.skb.linear()) {
                Parsed::Transport(found) => {
                    let tuple = &found.tuple;
                    return self
                        .filter
                        .direction(A::FAMILY, tuple.protocol, tuple.ports);
                }
                Parsed::Short(needed) if packet.skb.pull(needed) => {}
                _ => return None,
            }
        }
    }

    /// Everything recorded so far, as the records of `abi::probe`.
    pub(crate) fn snapshot(&self) -> Result<KVVec<u8>> {
        let mut bytes = KVVec::new();
        for direction in [Direction::Original, Direction::Reply] {
            self.append(direction, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn append(&self, direction: Direction, bytes: &mut KVVec<u8>) -> Result {
        let all = || {
            self.lanes
                .iter()
                .filter_map(|lane| lane.totals.get(direction as usize))
        };
        let sum = |field: fn(&Totals) -> &AtomicU64| {
            all().fold(0_u64, |sum, totals| {
                sum.wrapping_add(field(totals).load(Relaxed))
            })
        };
        let count = |bucket: usize| {
            all()
                .filter_map(|totals| totals.buckets.get(bucket))
                .fold(0_u32, |sum, count| sum.wrapping_add(count.load(Relaxed)))
        };
        let mut report = Report {
            packets: sum(|totals| &totals.packets),
            interrupted: sum(|totals| &totals.interrupted),
            torn: sum(|totals| &totals.torn),
            sum: sum(|totals| &totals.sum),
            min: all()
                .map(|totals| totals.min.load(Relaxed))
                .min()
                .unwrap_or(0),
            max: all()
                .map(|totals| totals.max.load(Relaxed))
                .max()
                .unwrap_or(0),
            least_gap: all()
                .map(|totals| totals.least_gap.load(Relaxed))
                .min()
                .filter(|&least| least != u64::MAX)
                .unwrap_or(0),
            ..Report::default()
        };
        if report.packets == 0 {
            report.min = 0;
        }
        for totals in all() {
            for (to, from) in report.hook_sum.iter_mut().zip(&totals.hook_sum) {
                *to = to.wrapping_add(from.load(Relaxed));
            }
            for (to, from) in report.hook_spans.iter_mut().zip(&totals.hook_spans) {
                *to = to.wrapping_add(from.load(Relaxed));
            }
        }
        let header = bytes.len();
        bytes.extend_from_slice(&[0; Report::SIZE], GFP_KERNEL)?;
        let used = all().map(|totals| totals.used().len()).max();
        for bucket in 0..used.unwrap_or(0) {
            let count = count(bucket);
            if count != 0 {
                bytes.extend_from_slice(&(bucket as u32).to_le_bytes(), GFP_KERNEL)?;
                bytes.extend_from_slice(&count.to_le_bytes(), GFP_KERNEL)?;
                report.buckets = report.buckets.wrapping_add(1);
            }
        }
        let header = bytes.get_mut(header..).ok_or(EINVAL)?;
        report.encode(&mut Writer::new(header)).ok_or(EINVAL)
    }
}
