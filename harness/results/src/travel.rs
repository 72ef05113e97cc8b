// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metrics of the packets' ways from end to end: how long they took, how many got there, and how many
//! a second. All count by the guest's clock.

use crate::metric::{ratio, to_float, Better, Kind, Metric, Unit, PERCENTILES};
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{BulkCost, OpenLoop, PathCost, Transit};
use mutexlab_model::rfc2544::back_to_back::{Bound, Found};
use mutexlab_protocol::measurement::Measurement;

/// Time from when a packet should have been sent to its answer; in a closed loop, from when it was.
pub const LATENCY: &str = "latency";
/// The same to the server only.
pub const LATENCY_FORWARD: &str = "latency.forward";
/// By how much later packets of an open loop were sent than they should have been.
pub const LATENESS: &str = "lateness";
/// Packets of the client that were answered, a second; of a stream, frames that reached the server.
pub const THROUGHPUT_PPS: &str = "throughput.pps";
/// Bits of their frames.
pub const THROUGHPUT_GBIT: &str = "throughput.gbit";
/// Packets of the client that were not answered.
pub const LOSS: &str = "loss";
/// Answers that came after one to a later packet.
pub const REORDERED: &str = "reordered";
/// Answers that had come before.
pub const DUPLICATES: &str = "duplicates";
/// New flows that took the place of others.
pub const FLOWS_REPLACED: &str = "flows.replaced";
/// The greatest rate without loss that a search found.
pub const NDR: &str = "ndr.pps";
/// The greatest rate with as much loss as may be that a search found.
pub const PDR: &str = "pdr.pps";
/// Searches of the longest burst without a loss.
pub const B2B_TESTS: &str = "b2b.tests";
/// How many of them a loss ended: only if all were is there a benchmark.
pub const B2B_LOSSY: &str = "b2b.tests.lossy";
/// The longest burst without a loss: mean of all searches (RFC 9004, section 6.3).
pub const B2B_MEAN: &str = "b2b.frames.mean";
/// The least that one found.
pub const B2B_MIN: &str = "b2b.frames.min";
/// The most.
pub const B2B_MAX: &str = "b2b.frames.max";
/// Their standard deviation.
pub const B2B_DEVIATION: &str = "b2b.frames.stddev";
/// Implied DUT Buffer Time (RFC 9004, section 6.4).
pub const B2B_IMPLIED: &str = "b2b.buffer.implied";
/// Corrected DUT Buffer Time.
pub const B2B_CORRECTED: &str = "b2b.buffer.corrected";
/// Packets a second that the generator is capable of by itself.
pub const GENERATOR_LIMIT: &str = "generator.limit";
/// The rate that was asked for, or the one that was achieved if that is more, in percent of
/// [`GENERATOR_LIMIT`].
pub const GENERATOR_SHARE: &str = "generator.share";

/// From this share on a result is bounded by the generator.
pub const GENERATOR_BOUND: f64 = 90.0;

/// Those of a measurement.
pub(super) fn of(measurement: &Measurement) -> Vec<Metric> {
    let mut metrics = Vec::new();
    if let Some(round_trip) = &measurement.round_trip {
        times(&mut metrics, LATENCY, round_trip);
    }
    match (&measurement.open, &measurement.bulk) {
        (Some(open), _) => open_loop(&mut metrics, open),
        (None, Some(bulk)) => stream(&mut metrics, bulk),
        (None, None) => closed_loop(&mut metrics, &measurement.path),
    }
    metrics
}

fn metric(name: &str, unit: Unit, better: Better, kind: Kind, value: f64) -> Metric {
    Metric {
        name: name.to_owned(),
        unit,
        better,
        kind,
        value,
    }
}

/// Statistics of times, less of which is better.
fn times(metrics: &mut Vec<Metric>, span: &str, histogram: &Histogram) {
    let mut add = |statistic: &str, value: Option<f64>| {
        metrics.extend(value.map(|value| {
            metric(
                &format!("{span}.{statistic}"),
                Unit::Nanoseconds,
                Better::Lower,
                Kind::Sampled,
                value,
            )
        }));
    };
    add("mean", histogram.mean());
    for (name, thousandths) in PERCENTILES {
        add(name, histogram.percentile(thousandths).map(to_float));
    }
    add("max", histogram.max().map(to_float));
}

/// Packets a second, and bits of their frames, of packets that took so many nanoseconds.
fn throughput(metrics: &mut Vec<Metric>, packets: u64, bytes: u64, nanoseconds: u64) {
    let mut add = |name: &str, unit: Unit, value: Option<f64>| {
        metrics.extend(value.map(|value| metric(name, unit, Better::Higher, Kind::Sampled, value)));
    };
    let pps = ratio(packets, nanoseconds).map(|each| each * 1e9);
    add(THROUGHPUT_PPS, Unit::PacketsPerSecond, pps);
    // A bit a nanosecond is 10^9 a second.
    let gbit = ratio(8 * bytes, nanoseconds);
    add(THROUGHPUT_GBIT, Unit::GigabitsPerSecond, gbit);
}

fn closed_loop(metrics: &mut Vec<Metric>, path: &PathCost) {
    // Half of the packets are answers.
    throughput(metrics, path.packets / 2, path.bytes, path.nanoseconds);
}

/// Frames that reached the server, of a stream.
fn stream(metrics: &mut Vec<Metric>, bulk: &BulkCost) {
    throughput(metrics, bulk.frames, bulk.frame_bytes, bulk.nanoseconds);
}

fn open_loop(metrics: &mut Vec<Metric>, open: &OpenLoop) {
    times(metrics, LATENCY, &open.round_trip.latency);
    times(metrics, LATENCY_FORWARD, &open.forward.latency);
    times(metrics, LATENESS, &open.lateness);
    fates(metrics, "", &open.round_trip);
    fates(metrics, ".forward", &open.forward);
    let start = metrics.len();
    let answered = open.round_trip.arrived.saturating_sub(1);
    throughput(metrics, answered, open.bytes, open.span);
    let achieved = metrics[start..].first().map_or(0.0, |pps| pps.value);
    if let Some(searched) = &open.searched {
        let name = if searched.goal.loss_ppm == 0 {
            NDR
        } else {
            PDR
        };
        metrics.extend(searched.rate.map(|rate| {
            let unit = Unit::PacketsPerSecond;
            metric(name, unit, Better::Higher, Kind::Sampled, rate.into())
        }));
    }
    if let Some(found) = &open.back_to_back {
        bursts(metrics, found);
    }
    let mut add = |name: &str, unit: Unit, value: f64| {
        metrics.push(metric(name, unit, Better::Neither, Kind::Sampled, value));
    };
    add(FLOWS_REPLACED, Unit::Entries, to_float(open.churned));
    if open.limit > 0 {
        let limit = to_float(open.limit);
        add(GENERATOR_LIMIT, Unit::PacketsPerSecond, limit);
        let share = 100.0 * achieved.max(open.rate.into()) / limit;
        add(GENERATOR_SHARE, Unit::Percent, share);
    }
}

/// What RFC 9004 wants reported (section 7), as far as there is a benchmark; and how many searches
/// there were, and how many of them a loss ended.
fn bursts(metrics: &mut Vec<Metric>, found: &Found) {
    let mut add = |name: &str, unit: Unit, value: f64| {
        metrics.push(metric(name, unit, Better::Neither, Kind::Sampled, value));
    };
    let lossy = found.tests.iter().filter(|test| test.bound == Bound::Loss);
    add(B2B_TESTS, Unit::Entries, to_float(found.tests.len() as u64));
    add(B2B_LOSSY, Unit::Entries, to_float(lossy.count() as u64));
    if let Some(benchmark) = found.benchmark() {
        add(B2B_MEAN, Unit::Packets, benchmark.mean);
        add(B2B_MIN, Unit::Packets, benchmark.min.into());
        add(B2B_MAX, Unit::Packets, benchmark.max.into());
        add(B2B_DEVIATION, Unit::Packets, benchmark.deviation);
        add(B2B_IMPLIED, Unit::Nanoseconds, benchmark.implied);
        add(B2B_CORRECTED, Unit::Nanoseconds, benchmark.corrected);
    }
}

fn fates(metrics: &mut Vec<Metric>, direction: &str, transit: &Transit) {
    for (name, packets) in [
        (LOSS, transit.lost),
        (REORDERED, transit.reordered),
        (DUPLICATES, transit.duplicates),
    ] {
        metrics.push(metric(
            &format!("{name}{direction}"),
            Unit::Packets,
            Better::Lower,
            Kind::Sampled,
            to_float(packets),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_model::rfc2544::back_to_back::{BackToBack, Test};
    use mutexlab_model::rfc2544::throughput::{Goal, Searched};

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        let found = metrics.iter().find(|metric| metric.name == name);
        found.map(|metric| metric.value)
    }

    fn transit(latency: &[(u64, u64)], lost: u64) -> Transit {
        let latency = Histogram::from_pairs(latency.iter().copied());
        Transit {
            arrived: latency.count(),
            lost,
            reordered: 3,
            duplicates: 2,
            latency,
        }
    }

    #[test]
    fn an_open_loop_tells_times_fates_and_rates() {
        let mut metrics = Vec::new();
        let open = OpenLoop {
            rate: 50_000,
            sent: 1_004,
            forward: transit(&[(100, 1_003)], 1),
            round_trip: transit(&[(200, 990), (300, 11)], 4),
            lateness: Histogram::from_pairs([(0, 1_004)]),
            // 1,001 packets are 1,000 spaces.
            span: 20_000_000,
            bytes: 100_000,
            churned: 5,
            limit: 100_000,
            searched: Some(Searched {
                goal: Goal {
                    from: 1,
                    to: 100_000,
                    resolution: 1,
                    loss_ppm: 1_000,
                    repeats: 1,
                    trial_ms: 1,
                },
                rate: Some(50_000),
                trials: Vec::new(),
            }),
            back_to_back: None,
        };
        open_loop(&mut metrics, &open);
        for (name, expected) in [
            ("latency.p50", 200.0),
            ("latency.p99", 300.0),
            ("latency.max", 300.0),
            ("latency.forward.mean", 100.0),
            ("lateness.max", 0.0),
            ("loss", 4.0),
            ("loss.forward", 1.0),
            ("reordered", 3.0),
            ("duplicates.forward", 2.0),
            ("throughput.pps", 50_000.0),
            ("throughput.gbit", 0.04),
            ("flows.replaced", 5.0),
            ("pdr.pps", 50_000.0),
            ("generator.limit", 100_000.0),
            ("generator.share", 50.0),
        ] {
            assert_eq!(value(&metrics, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_closed_loop_has_a_rate_too() {
        let mut metrics = Vec::new();
        let path = PathCost {
            ticks: 1,
            nanoseconds: 2_000_000,
            packets: 200,
            bytes: 10_000,
        };
        closed_loop(&mut metrics, &path);
        assert_eq!(value(&metrics, THROUGHPUT_PPS), Some(50_000.0));
        assert_eq!(value(&metrics, THROUGHPUT_GBIT), Some(0.04));
        metrics.clear();
        closed_loop(&mut metrics, &PathCost::default());
        assert_eq!(metrics, []);
    }
    #[test]
    fn bursts_tell_a_benchmark_if_every_search_met_a_loss() {
        let goal = BackToBack {
            rate: 1_000,
            longest: 100,
            step: 1,
            tests: 2,
            pause_ms: 0,
            trial_ms: 1_000,
        };
        let test = |longest, bound| Test { longest, bound };
        let mut found = Found {
            goal,
            throughput: Some(500),
            tests: vec![test(19, Bound::Loss), test(21, Bound::Loss)],
        };
        let mut metrics = Vec::new();
        bursts(&mut metrics, &found);
        assert_eq!(value(&metrics, B2B_MEAN), Some(20.0));
        assert_eq!(value(&metrics, B2B_IMPLIED), Some(2e7));
        assert_eq!(value(&metrics, B2B_CORRECTED), Some(1e7));
        found.tests.push(test(40, Bound::Generator));
        metrics.clear();
        bursts(&mut metrics, &found);
        assert_eq!(value(&metrics, B2B_MEAN), None);
        assert_eq!(value(&metrics, B2B_TESTS), Some(3.0));
        assert_eq!(value(&metrics, B2B_LOSSY), Some(2.0));
    }
}
