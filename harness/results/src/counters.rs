// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the module's counters come to.

use crate::metric::{ratio, to_float, Better, Kind, Metric, Unit};
use mutexlab_model::mode::Mode;
use mutexlab_protocol::measurement::Measurement;

/// The metrics of a measurement's counters; none of other subjects than the module.
///
/// Packets are those that the module redirected, both ways, warm-up included. A cell's table has
/// the same buckets in every boot. How often memory is had and the table is locked hangs on when the
/// module's work in the background falls as well.
pub fn of(measurement: &Measurement, mode: Mode) -> Vec<Metric> {
    let count = |name: &str| measurement.counters.get(name).copied();
    let both = |one, other| Some(count(one)? + count(other)?);
    let packets = both("packets_original", "packets_reply").unwrap_or(0);
    let per_packet = |name| ratio(count(name)?, packets);
    let hit_rate = both("cache_hits", "cache_misses").and_then(|all| {
        let rate = ratio(count("cache_hits")?, all)?;
        Some(100.0 * rate)
    });
    let buckets = measurement.buckets.filter(|buckets| buckets.entries > 0);
    let exact = match mode {
        Mode::Virtual => Kind::Exact,
        Mode::Wall => Kind::Sampled,
    };
    let all = [
        // Of look-ups in the CPU's cache of flows.
        (
            "cache.hit_rate",
            Unit::Percent,
            Better::Higher,
            exact,
            hit_rate,
        ),
        // Memory for a flow that was at hand, and that the kernel's allocator was asked for.
        (
            "alloc.fast",
            Unit::PerPacket,
            Better::Neither,
            Kind::Sampled,
            per_packet("alloc_fast"),
        ),
        (
            "alloc.slow",
            Unit::PerPacket,
            Better::Lower,
            Kind::Sampled,
            per_packet("alloc_slow"),
        ),
        // The table's lock, and how often another CPU had it.
        (
            "lock.acquired",
            Unit::PerPacket,
            Better::Lower,
            Kind::Sampled,
            per_packet("lock_acquisitions"),
        ),
        (
            "lock.contended",
            Unit::PerPacket,
            Better::Lower,
            Kind::Sampled,
            per_packet("lock_contentions"),
        ),
        // Of buckets that are not empty.
        (
            "hash.chain.mean",
            Unit::Entries,
            Better::Lower,
            exact,
            buckets.and_then(|buckets| {
                ratio(
                    buckets.entries,
                    buckets.buckets.saturating_sub(buckets.empty),
                )
            }),
        ),
        (
            "hash.chain.max",
            Unit::Entries,
            Better::Lower,
            exact,
            buckets.map(|buckets| to_float(buckets.longest)),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, unit, better, kind, value)| {
            Some(Metric {
                name: name.to_owned(),
                unit,
                better,
                kind,
                value: value?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use mutexlab_model::measured::{Buckets, Delivery, HookCost, PathCost};

    fn measurement(counters: &[(&str, u64)], buckets: Option<Buckets>) -> Measurement {
        Measurement {
            delivery: Delivery::default(),
            original: HookCost::default(),
            reply: HookCost::default(),
            first_packet: None,
            flow_memory: None,
            router: None,
            path: PathCost::default(),
            round_trip: None,
            open: None,
            bulk: None,
            proxy_time: None,
            cores: Vec::new(),
            received: Vec::new(),
            buckets,
            counters: counters
                .iter()
                .map(|&(name, count)| (name.to_owned(), count))
                .collect(),
            memory_map: None,
        }
    }

    #[test]
    fn counters_become_shares() {
        let buckets = Buckets {
            buckets: 1024,
            entries: 6,
            empty: 1020,
            longest: 2,
        };
        let measurement = measurement(
            &[
                ("packets_original", 60),
                ("packets_reply", 40),
                ("cache_hits", 99),
                ("cache_misses", 1),
                ("alloc_fast", 5),
                ("alloc_slow", 0),
                ("lock_acquisitions", 20),
                ("lock_contentions", 2),
            ],
            Some(buckets),
        );
        let values: BTreeMap<String, f64> = of(&measurement, Mode::Virtual)
            .into_iter()
            .map(|metric| (metric.name, metric.value))
            .collect();
        let expected = [
            ("alloc.fast", 0.05),
            ("alloc.slow", 0.0),
            ("cache.hit_rate", 99.0),
            ("hash.chain.max", 2.0),
            ("hash.chain.mean", 1.5),
            ("lock.acquired", 0.2),
            ("lock.contended", 0.02),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(values, BTreeMap::from(expected));
    }

    #[test]
    fn without_a_module_there_are_none() {
        assert_eq!(of(&measurement(&[], None), Mode::Virtual), []);
    }
}
