// SPDX-License-Identifier: MIT OR Apache-2.0

//! How busy CPUs were, and with what.

use crate::metric::{to_float, Better, Clock, Kind, Metric, Unit};
use mutexlab_model::mode::Mode;
use mutexlab_protocol::measurement::Measurement;

/// Of the time of what was measured, how much a proxy's processes spent, with the kernel's work
/// for them.
pub const PROXY: &str = "cpu.proxy";
/// Of the time of a stream, how much both ends, a proxy and the kernel's work for them took: the rest
/// is waiting, and interrupts while nothing ran.
pub const BUSY: &str = "cpu.busy";

/// Over how many hundredths of a second a core's time has to be told for its hundredths to mean
/// something.
const CORE_TIME_MIN: u64 = 100;

/// The metrics of a measurement's CPUs: those two, `cpu.N.busy` of each core, of streams that
/// take a second at least, and `cpu.N.received` of each CPU, of flows that are spread over CPUs: each of the
/// four links that a round trip passes has a packet received.
pub fn of(measurement: &Measurement, clock: Clock) -> Vec<Metric> {
    let stream = measurement.bulk.map_or(0, |bulk| bulk.ticks);
    let elapsed = clock.time(to_float(measurement.path.ticks + stream));
    let share = |part: u64| (elapsed > 0.0).then(|| 100.0 * to_float(part) / elapsed);
    let proxy = measurement.proxy_time;
    let busy = measurement
        .bulk
        .and_then(|bulk| share(bulk.work + proxy.unwrap_or(0)))
        // The clocks are read just before and after, which takes a little as well.
        .map(|busy| busy.min(100.0));
    let cores = measurement
        .cores
        .iter()
        .filter(|core| core.all >= CORE_TIME_MIN)
        .map(|core| {
            let busy = to_float(core.all - core.idle.min(core.all));
            (
                format!("cpu.{}.busy", core.cpu),
                Better::Neither,
                Some(100.0 * busy / to_float(core.all)),
            )
        });
    let received = measurement
        .received
        .iter()
        .enumerate()
        .map(|(cpu, &packets)| Metric {
            name: format!("cpu.{cpu}.received"),
            unit: Unit::Packets,
            better: Better::Neither,
            kind: match clock.mode {
                Mode::Virtual => Kind::Exact,
                Mode::Wall => Kind::Sampled,
            },
            value: to_float(packets),
        });
    [
        (PROXY.to_owned(), Better::Lower, proxy.and_then(share)),
        (BUSY.to_owned(), Better::Neither, busy),
    ]
    .into_iter()
    .chain(cores)
    .filter_map(|(name, better, value)| {
        Some(Metric {
            name,
            unit: Unit::Percent,
            better,
            kind: Kind::Sampled,
            value: value?,
        })
    })
    .chain(received)
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use mutexlab_model::measured::{BulkCost, CoreTime, Delivery, HookCost, PathCost};

    fn shares(path: u64, bulk: Option<BulkCost>, cores: Vec<CoreTime>) -> Vec<(String, f64)> {
        let measurement = Measurement {
            router: None,
            delivery: Delivery::default(),
            original: HookCost::default(),
            reply: HookCost::default(),
            first_packet: None,
            flow_memory: None,
            path: PathCost {
                ticks: path,
                ..PathCost::default()
            },
            round_trip: None,
            open: None,
            bulk,
            proxy_time: Some(600),
            cores,
            received: Vec::new(),
            buckets: None,
            counters: BTreeMap::new(),
            memory_map: None,
        };
        let clock = Clock {
            mode: Mode::Virtual,
            khz: 1_000_000,
        };
        let metrics = of(&measurement, clock);
        metrics
            .into_iter()
            .map(|metric| (metric.name, metric.value))
            .collect()
    }

    #[test]
    fn messages_have_the_share_of_the_proxy_alone() {
        assert_eq!(
            shares(1_000, None, Vec::new()),
            [("cpu.proxy".into(), 60.0)]
        );
        assert_eq!(shares(0, None, Vec::new()), []);
    }

    #[test]
    fn streams_tell_of_both_ends_and_of_cores() {
        let bulk = BulkCost {
            bytes: 1,
            ticks: 2_000,
            nanoseconds: 2_000,
            work: 1_300,
            frames: 1,
            frame_bytes: 1,
        };
        let core = |cpu, idle, all| CoreTime { cpu, idle, all };
        let cores = vec![core(0, 50, 200), core(1, 9, 10)];
        let expected = [
            ("cpu.proxy".to_owned(), 30.0),
            ("cpu.busy".to_owned(), 95.0),
            // The other one's time is too short.
            ("cpu.0.busy".to_owned(), 75.0),
        ];
        assert_eq!(shares(0, Some(bulk), cores), expected);
    }
}
