// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers that say what they are: from a measurement to named metrics with units.

use super::metric::{
    ratio, to_float, Better, Clock, Kind, Metric, Unit, BULK_PER_KIB, FIRST_PACKET,
    FIRST_PACKET_P10, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE, PERCENTILES, ROUTER,
};
use super::{counters, cpu, travel};
use mutexlab_model::facts::{Counts, Facts};
use mutexlab_model::measured::{BulkCost, HookCost};
use mutexlab_model::mode::Mode;
use mutexlab_model::traffic::{Load, Traffic};
use mutexlab_protocol::measurement::Measurement;

/// All metrics of a measurement of `traffic`, with a subject of which this is known, but [`PATH_OVER_NONE`], which needs another cell.
pub fn of(
    measurement: &Measurement,
    facts: &Facts,
    traffic: &Traffic,
    clock: Clock,
) -> Vec<Metric> {
    let unit = Unit::of(clock.mode);
    let exact_if = |condition| match (clock.mode, condition) {
        (Mode::Virtual, true) => Kind::Exact,
        _ => Kind::Sampled,
    };
    // How many flows share a chain of connection tracking's is another matter in each boot.
    // It does some things once a tick only, and in an open loop packets come when they come.
    let closed = matches!(traffic.load, Load::Closed { .. });
    // Where packets that come at once wait for each other, what others cost is in it, too: their way
    // through the rest of the router, which differs by some instructions from boot to boot. Only
    // where they do not is there such a number of the router.
    let apart = traffic.load.burst() == 1 || measurement.router.is_some();
    let Counts {
        conntrack: tracked,
        exact: promised,
        ..
    } = facts.counts;
    let steady = traffic.flows == 1 && closed || !tracked;
    let exact = exact_if(promised && apart && steady);
    let mut metrics = Vec::new();
    let mut add = |name: String, kind: Kind, value: Option<f64>| {
        metrics.extend(value.map(|ticks| Metric {
            name,
            unit,
            better: Better::Lower,
            kind,
            value: clock.time(ticks),
        }));
    };
    for (span, cost) in [
        ("hook.original", &measurement.original),
        ("hook.reply", &measurement.reply),
    ] {
        for (name, thousandths) in PERCENTILES {
            let value = cost.histogram.percentile(thousandths);
            add(format!("{span}.{name}"), exact, value.map(to_float));
        }
        let any = cost.packets > 0;
        let max = any.then_some(to_float(cost.max));
        add(format!("{span}.max"), exact, max);
        let mean = ratio(cost.sum, cost.packets);
        add(format!("{span}.mean"), exact, mean);
    }
    // No percentiles of both directions together: a median of two halves lies where they meet,
    // and a single packet more in one of them moves it from one to the other.
    // The mean gives each direction the same weight, so that it does not depend on which packets
    // an interrupt spoilt.
    let mean = |cost: &HookCost| ratio(cost.sum, cost.packets);
    let means = mean(&measurement.original).zip(mean(&measurement.reply));
    let mean = means.map(|(original, reply)| f64::midpoint(original, reply));
    add(HOOK_MEAN.to_owned(), exact, mean);
    // Which of its two buckets connection tracking locks first, whether both have the same lock, and
    // whether another connection is on them, is a matter of the boot's key. Half of the first packets
    // take the cheaper order, so that the median is now of these and now of those; of a single
    // measured flow's 31, more than three do in all but one of some ten thousand boots, and one in a
    // thousand has a single lock.
    let median = measurement.first_packet.map(|first| to_float(first.median));
    add(
        FIRST_PACKET.to_owned(),
        exact_if(promised && !tracked),
        median,
    );
    let p10 = measurement.first_packet.map(|first| to_float(first.p10));
    let kind = exact_if(promised && (!tracked || traffic.flows == 1));
    add(FIRST_PACKET_P10.to_owned(), kind, p10);
    for (direction, cost) in [
        ("original", &measurement.original),
        ("reply", &measurement.reply),
    ] {
        for (hook, &mean) in &cost.by_hook {
            add(format!("hook.{direction}.{hook}.mean"), exact, Some(mean));
        }
    }
    let path = ratio(measurement.path.ticks, measurement.path.packets);
    let router = measurement.router.map(to_float);
    add(ROUTER.to_owned(), Kind::Sampled, router);
    add(PATH_MEAN.to_owned(), Kind::Sampled, path);
    metrics.extend(measurement.bulk.map(|bulk| of_bulk(&bulk, clock)));
    metrics.extend(cpu::of(measurement, clock));
    metrics.extend(counters::of(measurement, clock.mode));
    metrics.extend(measurement.flow_memory.map(|bytes| Metric {
        name: MEMORY_PER_FLOW.to_owned(),
        unit: Unit::BytesPerFlow,
        better: Better::Lower,
        kind: Kind::Exact,
        value: to_float(bytes) / f64::from(traffic.flows),
    }));
    metrics.extend(travel::of(measurement));
    // In virtual mode boots repeat.
    if clock.mode == Mode::Virtual {
        for metric in &mut metrics {
            if metric.kind == Kind::Sampled {
                metric.kind = Kind::Repeatable;
            }
        }
    }
    metrics
}

/// What a stream took.
fn of_bulk(bulk: &BulkCost, clock: Clock) -> Metric {
    // Of the guest's clock, on which an instruction of virtual mode takes one.
    let nanoseconds = clock.time(to_float(bulk.ticks));
    Metric {
        name: BULK_PER_KIB.to_owned(),
        unit: match clock.mode {
            Mode::Virtual => Unit::InstructionsPerKib,
            Mode::Wall => Unit::NanosecondsPerKib,
        },
        better: Better::Lower,
        kind: Kind::Sampled,
        value: nanoseconds * 1024.0 / to_float(bulk.bytes),
    }
}

/// [`PATH_OVER_NONE`] from the paths of a subject and of `none`.
pub fn path_over_none(path: f64, none: f64, mode: Mode) -> Metric {
    Metric {
        name: PATH_OVER_NONE.to_owned(),
        unit: Unit::of(mode),
        better: Better::Lower,
        // A small difference of two numbers that move a little: a hundredth of it is no change.
        kind: Kind::Sampled,
        value: path - none,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use mutexlab_model::histogram::Histogram;
    use mutexlab_model::measured::{Delivery, FirstPacket, PathCost};
    use mutexlab_model::subject::ModuleRules;
    use mutexlab_model::traffic::{
        Checksum, Cloned, Ends, Family, Load, Payload, Popularity, Protocol, Steering, Way,
    };

    const VIRTUAL: Clock = Clock {
        mode: Mode::Virtual,
        khz: 1_000_000,
    };
    const TRAFFIC: Traffic = Traffic {
        ends: Ends::Wire,
        way: Way::Forward,
        family: Family::V4,
        protocol: Protocol::Udp,
        payload: Payload::Bytes(64),
        flows: 1_000,
        spread: None,
        steering: Steering::Symmetric,
        popularity: Popularity::Uniform,
        load: Load::Closed {
            round_trips: 1_000,
            burst: 1,
        },
        checksum: Checksum::None,
        cloned: Cloned::No,
        warm_up: 0,
    };

    fn module() -> Facts {
        Facts::of_module(ModuleRules::Redirect)
    }

    fn cost(histogram: &[(u64, u64)]) -> HookCost {
        HookCost {
            packets: histogram.iter().map(|&(_, packets)| packets).sum(),
            sum: histogram
                .iter()
                .map(|&(value, packets)| value * packets)
                .sum(),
            max: histogram.last().map_or(0, |&(value, _)| value),
            histogram: Histogram::from_pairs(histogram.iter().copied()),
            by_hook: [("pre_routing".to_owned(), 7.0)].into(),
            ..HookCost::default()
        }
    }

    fn measurement() -> Measurement {
        Measurement {
            delivery: Delivery::default(),
            original: cost(&[(100, 999), (5000, 1)]),
            reply: cost(&[(40, 500), (100, 500)]),
            first_packet: Some(FirstPacket {
                median: 6000,
                p10: 5900,
            }),
            flow_memory: Some(208_000),
            router: Some(2_000),
            path: PathCost {
                ticks: 20_000_000,
                nanoseconds: 20_000_000,
                packets: 2000,
                bytes: 100_000,
            },
            round_trip: None,
            open: None,
            bulk: Some(BulkCost {
                bytes: 2048,
                ticks: 4_000,
                nanoseconds: 4_000,
                work: 3_000,
                frames: 2,
                frame_bytes: 2_180,
            }),
            proxy_time: None,
            cores: Vec::new(),
            received: Vec::new(),
            buckets: None,
            counters: BTreeMap::new(),
            memory_map: None,
        }
    }

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        metrics
            .iter()
            .find(|metric| metric.name == name)
            .map(|metric| metric.value)
    }

    #[test]
    fn percentiles_and_means_are_those_of_the_histograms() {
        let metrics = of(&measurement(), &module(), &TRAFFIC, VIRTUAL);
        for (name, expected) in [
            ("hook.original.p50", 100.0),
            ("hook.original.p99.9", 100.0),
            ("hook.original.max", 5000.0),
            ("hook.original.mean", 104.9),
            ("hook.reply.p50", 40.0),
            ("hook.reply.p90", 100.0),
            ("hook.mean", 87.45),
            ("hook.first_packet", 6000.0),
            ("hook.first_packet.p10", 5900.0),
            ("hook.reply.pre_routing.mean", 7.0),
            ("path.mean", 10_000.0),
            ("memory_per_flow", 208.0),
            ("bulk.per_kib", 2_000.0),
            ("throughput.pps", 500_000.0),
            ("throughput.gbit", 4.36),
            ("router.packet", 2_000.0),
        ] {
            assert_eq!(value(&metrics, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn ticks_of_real_time_become_nanoseconds() {
        let clock = Clock {
            mode: Mode::Wall,
            khz: 2_000_000,
        };
        let metrics = of(&measurement(), &module(), &TRAFFIC, clock);
        let metric = metrics
            .iter()
            .find(|metric| metric.name == "hook.original.p50");
        let metric = metric.unwrap();
        assert_eq!((metric.value, metric.kind), (50.0, Kind::Sampled));
        assert_eq!(metric.unit, Unit::NanosecondsPerPacket);
    }

    #[test]
    fn what_waiting_packets_cost_is_of_their_boot() {
        let burst = Traffic {
            load: Load::Closed {
                round_trips: 1_000,
                burst: 64,
            },
            ..TRAFFIC
        };
        for (traffic, router, kind) in [
            (TRAFFIC, None, Kind::Exact),
            (burst, Some(2_000), Kind::Exact),
            (burst, None, Kind::Repeatable),
        ] {
            let measurement = Measurement {
                router,
                ..measurement()
            };
            let metrics = of(&measurement, &module(), &traffic, VIRTUAL);
            let mean = metrics.iter().find(|metric| metric.name == HOOK_MEAN);
            assert_eq!(mean.unwrap().kind, kind);
        }
    }

    #[test]
    fn what_a_boot_s_key_decides_is_of_that_boot() {
        let kind = |facts: Facts, flows, name: &str| {
            let traffic = Traffic { flows, ..TRAFFIC };
            let metrics = of(&measurement(), &facts, &traffic, VIRTUAL);
            let metric = metrics.into_iter().find(|metric| metric.name == name);
            metric.unwrap().kind
        };
        let conntrack = Facts {
            counts: Counts {
                conntrack: true,
                exact: true,
                ..Counts::default()
            },
            ..Facts::default()
        };
        // What promises nothing has nothing exact.
        let unknown = Facts::default();
        for (facts, flows, [mean, median, p10]) in [
            (module(), 1, [Kind::Exact; 3]),
            (module(), 1_000, [Kind::Exact; 3]),
            (conntrack, 1, [Kind::Exact, Kind::Repeatable, Kind::Exact]),
            (conntrack, 1_000, [Kind::Repeatable; 3]),
            (unknown, 1, [Kind::Repeatable; 3]),
        ] {
            assert_eq!(kind(facts, flows, HOOK_MEAN), mean);
            assert_eq!(kind(facts, flows, FIRST_PACKET), median);
            assert_eq!(kind(facts, flows, FIRST_PACKET_P10), p10);
        }
    }

    #[test]
    fn names_are_unique() {
        let metrics = of(&measurement(), &module(), &TRAFFIC, VIRTUAL);
        for (index, metric) in metrics.iter().enumerate() {
            assert!(!metrics[..index]
                .iter()
                .any(|other| other.name == metric.name));
        }
    }

    #[test]
    fn no_packets_give_no_numbers() {
        let nothing = Measurement {
            original: HookCost::default(),
            reply: HookCost::default(),
            first_packet: None,
            flow_memory: None,
            router: None,
            path: PathCost::default(),
            bulk: None,
            proxy_time: None,
            buckets: None,
            ..measurement()
        };
        assert_eq!(of(&nothing, &module(), &TRAFFIC, VIRTUAL), []);
    }
}
