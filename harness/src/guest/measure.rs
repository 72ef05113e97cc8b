// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cell: what its packets cost, and whether they arrived.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use mutex_abi::histogram::percentile;

use super::between_sockets;
use super::closed_loop::ClosedLoop;
use super::conntrack;
use super::flows::Flows;
use super::layout::{Layout, ROUTER_SERVER_LINK};
use super::offload::{self, Offload};
use super::open_loop::{self, Generator, Stream};
use super::pace;
use super::probe::{Probe, Snapshot};
use super::protocol::{
    Delivery, Ends, GuestCell, Load, Measurement, Mischief, OpenLoop, Outcome, PathCost, Subject,
    Traffic, Way,
};
use super::subject::{self, Installed};
use super::traffic::{Arrival, Stop, Target};
use super::tsc;
use crate::histogram::{Histogram, Recorder};
use crate::search::{Goal, Search, Searched, Step, Trial};

/// Round trips from which the cost of the probe itself is taken.
const CALIBRATION: u32 = 64;

/// Packets of an open loop before those that are measured.
const LEAD_IN: u32 = 64;

/// Round trips of the flow that goes before those that are measured.
pub const REHEARSAL: u32 = 8;

/// How long the kernel is left alone after a change, so that what it puts off (multicast
/// reports, RCU, what a process leaves behind) does not fall into the measurement.
pub const QUIET: Duration = Duration::from_millis(250);
/// The same for each flow of many, after they have gone.
const QUIET_EACH: Duration = Duration::from_micros(20);

/// How old flows are when they are measured: conntrack takes UDP for a stream after two seconds
/// (nf_conntrack_udp_packet()), and treats it otherwise from then on.
pub const SETTLED: Duration = Duration::from_secs(3);

/// How many first packets are sent before the first of them is answered: what fits into the queues
/// of sockets, and between two ticks.
const BATCH: usize = 32;

/// From how many flows on the memory of one is told: few do not fill a table.
const MANY: u32 = 1_000;

/// Measures a cell, in namespaces of its own, so that it does not matter which cells were before
/// it. The probe's module must be loaded.
pub fn run(cell: &GuestCell) -> Outcome {
    let mut delivery = Delivery::default();
    match measure(cell, &mut delivery) {
        Ok(mut measurement) => {
            if let Some(sabotage) = cell.sabotage {
                sabotage.spoil(&mut measurement);
            }
            Outcome::Ok(Box::new(measurement))
        }
        Err(Stop::Subject(reason)) => Outcome::Failed { reason, delivery },
        Err(Stop::Infra(error)) => Outcome::Infra {
            reason: format!("{error:#}"),
        },
    }
}

fn measure(cell: &GuestCell, delivery: &mut Delivery) -> Result<Measurement, Stop> {
    let traffic = &cell.traffic;
    traffic.check()?;
    if traffic.ends == Ends::Stack {
        return between_sockets::measure(cell, delivery);
    }
    if matches!(traffic.load, Load::Bulk { .. }) {
        return Err(anyhow!("the agent has no generator for {}", traffic.name()).into());
    }
    let limit = match traffic.load {
        Load::Open { .. } | Load::Search(_) => open_loop::limit(traffic)?,
        Load::Closed { .. } | Load::Bulk { .. } => 0,
    };
    let layout = Layout::new()?;
    let mut probe = Probe::open(&layout.router)?;
    probe.set_ballast(cell.ballast.map(|_| 0));
    if traffic.way == Way::Local {
        // Else the stack would leave its checksums to a device that there is not, and nobody
        // could tell a wrong one from an unfinished one.
        offload::set(
            &layout.router,
            &ROUTER_SERVER_LINK,
            Offload::TxChecksum,
            false,
        )?;
    }
    let crowd = Flows::measured(traffic).are_of_the_crowd();
    if crowd {
        layout.route_crowd(traffic.family)?;
    }
    let _room = (crowd && cell.subject.tracks_connections())
        .then(|| conntrack::Room::make(&layout.router, traffic.flows_in_all()))
        .transpose()?;
    thread::sleep(QUIET);
    let empty = calibrate(&layout, &probe, traffic)?;
    probe.set_ballast(cell.ballast);

    let installed = Installed::up(cell.subject, &cell.parameters, traffic, &layout)
        .map_err(|error| blame(cell.subject, error))?;
    let target = subject::target(cell.subject);
    rehearse(&layout, traffic, target, delivery)?;
    *delivery = Delivery::default();
    thread::sleep(QUIET);
    let before = installed.counters(&layout.router)?;
    let mut flow_memory = None;
    let measured = exchange(
        &layout,
        &probe,
        traffic,
        target,
        cell.mischief,
        delivery,
        &mut || {
            if cell.subject.redirects() && crowd {
                installed
                    .settle(traffic, &layout.router)
                    .map_err(|error| blame(cell.subject, error))?;
            }
            if cell.subject.redirects() && traffic.flows >= MANY {
                flow_memory = installed.flow_memory(traffic, &layout.router)?;
            }
            Ok(())
        },
    )?;
    let counters = since(&before, installed.counters(&layout.router)?);
    let chains = installed.chains(traffic, &layout.router)?;
    installed
        .ensure_kept(traffic, &layout.router, &counters)
        .map_err(|error| blame(cell.subject, error))?;
    let first = first_packet(&layout, &probe, traffic, target, delivery)?;
    let router = if traffic.load.burst() > 1 && !waits(cell) {
        let gap = measured.snapshot.original.report.least_gap;
        Some(router(&layout, &probe, traffic, target, gap)?)
    } else {
        None
    };
    if !cell.subject.tracks_connections() {
        conntrack::ensure_none(&layout.router)?;
    }
    installed
        .down(&layout.router)
        .map_err(|error| blame(cell.subject, error))?;
    drop(probe);
    layout.tear_down()?;
    if crowd {
        // What the kernel knows of them goes with the namespaces, in its own good time.
        thread::sleep(QUIET + QUIET_EACH * traffic.flows_in_all());
    }

    verify(cell.subject, traffic, delivery)?;
    measured.ensure_seen(traffic)?;
    let original = measured.snapshot.original.net_of(&empty.original)?;
    Ok(Measurement {
        delivery: *delivery,
        first_packet: first.map(|ticks| ticks.saturating_sub(original.overhead)),
        flow_memory,
        router,
        original,
        reply: measured.snapshot.reply.net_of(&empty.reply)?,
        path: measured.path,
        round_trip: measured.round_trip,
        open: measured.open.map(|open| OpenLoop { limit, ..open }),
        bulk: None,
        proxy_time: None,
        cores: Vec::new(),
        chains,
        counters,
    })
}

/// What the probe costs on the way of `traffic` while nothing is between its hooks.
fn calibrate(layout: &Layout, probe: &Probe, traffic: &Traffic) -> Result<Snapshot> {
    let traffic = Traffic {
        flows: 1,
        load: Load::Closed {
            round_trips: CALIBRATION,
            burst: traffic.load.burst(),
        },
        warm_up: CALIBRATION,
        ..*traffic
    };
    let mut delivery = Delivery::default();
    let target = Target::Original;
    let exchanged = exchange(
        layout,
        probe,
        &traffic,
        target,
        None,
        &mut delivery,
        &mut || Ok(()),
    );
    match exchanged {
        Ok(measured) => Ok(measured.snapshot),
        Err(Stop::Infra(error)) => Err(error),
        Err(Stop::Subject(reason)) => Err(anyhow!(reason)),
    }
    .context("cannot take the probe's own cost: traffic fails without any subject")
}

/// Sends a short flow of its own through the subject, so that what the kernel does once only, on
/// a packet or soon after (keys of hashes, the first slab of a cache), is behind it.
pub fn rehearse(
    layout: &Layout,
    traffic: &Traffic,
    arrival: impl Into<Arrival>,
    delivery: &mut Delivery,
) -> Result<(), Stop> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, Flows::rehearsal(traffic), arrival)?;
    closed_loop.open(0..1, delivery)?;
    closed_loop.establish(0..1, delivery)?;
    closed_loop.round_trips((0..REHEARSAL).map(|_| 0), delivery)?;
    closed_loop.close(0, delivery)
}

/// What one exchange of packets showed.
struct Exchanged {
    snapshot: Snapshot,
    path: PathCost,
    round_trip: Option<Histogram>,
    open: Option<OpenLoop>,
}

/// Sends all packets of `traffic`: all flows are established, the warm-up, and what is measured. The
/// host hears nothing in between, since any word to it moves the guest's virtual clock. Calls
/// `established` when all flows are.
fn exchange(
    layout: &Layout,
    probe: &Probe,
    traffic: &Traffic,
    target: Target,
    mischief: Option<Mischief>,
    delivery: &mut Delivery,
    established: &mut dyn FnMut() -> Result<(), Stop>,
) -> Result<Exchanged, Stop> {
    let flows = Flows::measured(traffic);
    let mut closed_loop = ClosedLoop::new(layout, traffic, flows, target)?;
    for flow in 0..flows.count() {
        closed_loop.open(flow..flow + 1, delivery)?;
        closed_loop.establish(flow..flow + 1, delivery)?;
    }
    established()?;
    closed_loop.round_trips(flows.picks().take(traffic.warm_up as usize), delivery)?;
    thread::sleep(SETTLED);
    if flows.are_of_the_crowd() {
        // What comes only once after that time is behind each flow, as it is behind a single one.
        let measured = flows.picks().take(traffic.load.packets() as usize);
        closed_loop.round_trips(measured, delivery)?;
    }
    match traffic.load {
        Load::Closed { .. } => {
            let measured = flows.picks().take(traffic.load.packets() as usize);
            let exchanged = in_closed_loop(
                &mut closed_loop,
                probe,
                traffic,
                measured,
                mischief,
                delivery,
            )?;
            if !flows.are_of_the_crowd() {
                closed_loop.close(0, delivery)?;
            }
            Ok(exchanged)
        }
        Load::Open {
            rate,
            packets,
            churn,
        } => {
            let stream = Stream {
                packets,
                rate,
                churn,
            };
            let connections = closed_loop.hand_over();
            let wire = layout.wire(target);
            let mut generator = Generator::new(&wire, traffic, connections, mischief)?;
            in_open_loop(&mut generator, probe, traffic, &stream, delivery)
        }
        Load::Search(goal) => {
            let connections = closed_loop.hand_over();
            let wire = layout.wire(target);
            let mut generator = Generator::new(&wire, traffic, connections, mischief)?;
            search(&mut generator, probe, traffic, goal, delivery)
        }
        Load::Bulk { .. } => Err(anyhow!("a bulk is no exchange of packets").into()),
    }
}

/// Measures round trips on the flows that are `measured`.
fn in_closed_loop(
    closed_loop: &mut ClosedLoop,
    probe: &Probe,
    traffic: &Traffic,
    measured: impl Iterator<Item = u32> + Clone,
    mischief: Option<Mischief>,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let rehearsal = measured.clone().take(REHEARSAL as usize);
    closed_loop.paced_round_trips(rehearsal, delivery, &mut |_| {})?;
    closed_loop.misbehave(mischief);
    let ports = Flows::measured(traffic).ports();
    probe.reset(traffic.family, traffic.protocol, ports)?;
    let (packets, bytes) = (closed_loop.packets(), closed_loop.bytes());
    let mut each = Recorder::new();
    let mut ticks = 0;
    closed_loop.paced_round_trips(measured, delivery, &mut |took| {
        ticks += took;
        each.record(tsc::nanoseconds(took));
    })?;
    closed_loop.misbehave(None);
    Ok(Exchanged {
        path: PathCost {
            ticks,
            nanoseconds: tsc::nanoseconds(ticks),
            packets: closed_loop.packets() - packets,
            bytes: closed_loop.bytes() - bytes,
        },
        snapshot: probe.snapshot()?,
        round_trip: (traffic.load.burst() == 1).then(|| each.histogram()),
        open: None,
    })
}

/// Measures the packets of `stream`.
fn in_open_loop(
    generator: &mut Generator,
    probe: &Probe,
    traffic: &Traffic,
    stream: &Stream,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let lead_in = Stream {
        packets: LEAD_IN,
        churn: 0,
        ..*stream
    };
    generator.run(&lead_in, delivery)?;
    let ports = Flows::in_all(traffic).ports();
    probe.reset(traffic.family, traffic.protocol, ports)?;
    let open = generator.run(stream, delivery)?;
    Ok(Exchanged {
        snapshot: probe.snapshot()?,
        path: PathCost::default(),
        round_trip: None,
        open: Some(open),
    })
}

/// Tries rates until the one that `goal` looks for is found, and gives the last good trial at it, or the
/// last of all if none was good.
fn search(
    generator: &mut Generator,
    probe: &Probe,
    traffic: &Traffic,
    goal: Goal,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let mut search = Search::new(goal);
    let mut trials = Vec::new();
    let mut good = BTreeMap::new();
    let mut last = None;
    let rate = loop {
        let rate = match search.next() {
            Step::Try(rate) => rate,
            Step::Done(rate) => break rate,
        };
        let stream = Stream {
            packets: goal.packets(rate),
            rate,
            churn: 0,
        };
        let exchanged = in_open_loop(generator, probe, traffic, &stream, delivery)?;
        let trial = exchanged.trial(&goal, rate);
        search.take(&trial);
        trials.push(trial);
        if goal.accepts(&trial) {
            good.insert(rate, exchanged);
        } else {
            last = Some(exchanged);
        }
    };
    let found = rate.and_then(|rate| good.remove(&rate)).or(last);
    let mut exchanged = found.context("a search without a trial")?;
    let searched = Searched { goal, rate, trials };
    if let Some(open) = &mut exchanged.open {
        open.searched = Some(searched);
    }
    Ok(exchanged)
}

/// What the first packet of a flow costs, the probe's own cost included: the median over further
/// flows. `None` if an interrupt fell into each.
fn first_packet(
    layout: &Layout,
    probe: &Probe,
    traffic: &Traffic,
    target: Target,
    delivery: &mut Delivery,
) -> Result<Option<u64>, Stop> {
    let flows = Flows::further(traffic);
    let mut closed_loop = ClosedLoop::new(layout, traffic, flows, target)?;
    let mut histogram: BTreeMap<u64, u64> = BTreeMap::new();
    for start in (0..flows.count()).step_by(BATCH) {
        let batch = start..flows.count().min(start + BATCH as u32);
        probe.reset(traffic.family, traffic.protocol, flows.ports())?;
        pace::until_between_ticks()?;
        closed_loop.open(batch.clone(), delivery)?;
        for (ticks, packets) in probe.snapshot()?.original.histogram {
            *histogram.entry(ticks).or_default() += packets;
        }
        closed_loop.establish(batch, delivery)?;
    }
    // The stack shall be done with its sockets; on the wire there is nothing to be done with.
    if traffic.way == Way::Local {
        (0..flows.count()).try_for_each(|flow| closed_loop.close(flow, delivery))?;
    }
    Ok(percentile(
        histogram.iter().map(|(&ticks, &packets)| (ticks, packets)),
        50_000,
    ))
}

/// Whether packets of a burst wait for each other, so that the next one begins before all is done
/// for one.
fn waits(cell: &GuestCell) -> bool {
    let batching = cell.parameters.get("perf_enable_batching");
    batching.is_some_and(|value| value != "0")
}

/// What the router takes for one packet of a burst, from before it receives it until it receives the
/// next one. `gap` is that with the probe's own work in it; what a second probe adds is taken off.
fn router(
    layout: &Layout,
    probe: &Probe,
    traffic: &Traffic,
    target: Target,
    gap: u64,
) -> Result<u64, Stop> {
    let second = Probe::open(&layout.router)?;
    let ports = Flows::measured(traffic).ports();
    second.reset(traffic.family, traffic.protocol, ports)?;
    let few = Traffic {
        load: Load::Closed {
            round_trips: REHEARSAL,
            burst: traffic.load.burst(),
        },
        ..*traffic
    };
    let mut delivery = Delivery::default();
    let mut nothing = || Ok(());
    let measured = exchange(
        layout,
        probe,
        &few,
        target,
        None,
        &mut delivery,
        &mut nothing,
    )?;
    let with_both = measured.snapshot.original.report.least_gap;
    let own = with_both.checked_sub(gap).filter(|_| gap != 0);
    let router = own.and_then(|own| gap.checked_sub(own));
    Ok(router.with_context(|| {
        format!("packets of a burst are {gap} ticks apart, and {with_both} with a second probe")
    })?)
}

impl Exchanged {
    /// A trial of a search at `rate`.
    fn trial(&self, goal: &Goal, rate: u32) -> Trial {
        let open = self.open.as_ref();
        let late = open.and_then(|open| open.lateness.max()).unwrap_or(0);
        Trial {
            rate,
            sent: open.map_or(0, |open| open.sent),
            lost: open.map_or(0, |open| open.round_trip.lost),
            // A hundredth of the trial, in nanoseconds.
            in_time: late <= u64::from(goal.trial_ms) * 10_000,
        }
    }

    /// Fails if the probe overlooked a packet that was measured.
    fn ensure_seen(&self, traffic: &Traffic) -> Result<()> {
        let packets = u64::from(traffic.load.packets()) * u64::from(traffic.load.burst());
        let (there, back) = match &self.open {
            // What is lost may be lost before the probe, and after it.
            Some(open) => (open.forward.arrived, open.round_trip.arrived),
            None => (packets, packets),
        };
        for (direction, samples, packets) in [
            ("from", &self.snapshot.original, there),
            ("to", &self.snapshot.reply, back),
        ] {
            let seen = samples.seen();
            // The stack's TCP may send segments without payload as well.
            if seen < packets {
                return Err(anyhow!(
                    "the probe saw {seen} packets {direction} the client of {packets}"
                ));
            }
        }
        Ok(())
    }
}

/// What counters rose by since `before`.
pub fn since(
    before: &BTreeMap<String, u64>,
    mut counters: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    for (name, count) in &mut counters {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    counters
}

/// Fails unless every packet arrived where it should and every answer came back from where the
/// client had sent to. In an open loop packets may be lost or come twice, which is counted: it asks
/// for more, perhaps, than can be done.
pub fn verify(subject: Subject, traffic: &Traffic, delivery: &Delivery) -> Result<(), Stop> {
    let (there, elsewhere) = match subject::target(subject) {
        Target::Original => (delivery.at_original, delivery.at_upstream),
        Target::Upstream => (delivery.at_upstream, delivery.at_original),
    };
    let wanted = match traffic.load {
        Load::Open { .. } | Load::Search(_) => [there, delivery.replies],
        Load::Closed { .. } | Load::Bulk { .. } => [delivery.sent; 2],
    };
    let astray = wanted != [there, delivery.replies]
        || delivery.replies != delivery.replies_from_original
        || elsewhere != 0;
    let damaged = delivery.bad_payload + delivery.bad_checksum;
    if astray {
        return Err(Stop::Subject(format!("packets went astray: {delivery:?}")));
    }
    if damaged != 0 {
        return Err(Stop::Subject(format!(
            "{damaged} packets were damaged: {delivery:?}"
        )));
    }
    Ok(())
}

/// A module that cannot be put up or taken down is wrong itself; any other subject is the
/// kernel's.
pub fn blame(subject: Subject, error: anyhow::Error) -> Stop {
    if subject.is_module() {
        Stop::Subject(format!("{error:#}"))
    } else {
        Stop::Infra(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::{Ends, Family, Payload, Popularity, Protocol};

    const GOOD: Delivery = Delivery {
        sent: 3,
        at_upstream: 3,
        at_original: 0,
        replies: 3,
        replies_from_original: 3,
        bad_payload: 0,
        bad_checksum: 0,
    };

    const CLOSED: Traffic = Traffic {
        ends: Ends::Wire,
        way: Way::Forward,
        family: Family::V4,
        protocol: Protocol::Udp,
        payload: Payload::Bytes(64),
        flows: 1,
        popularity: Popularity::Uniform,
        load: Load::Closed {
            round_trips: 3,
            burst: 1,
        },
        warm_up: 0,
    };

    #[test]
    fn in_an_open_loop_packets_may_be_lost_but_not_astray() {
        let open = Traffic {
            load: Load::Open {
                rate: 1,
                packets: 3,
                churn: 0,
            },
            ..CLOSED
        };
        let verify = |delivery: &Delivery| verify(Subject::Module, &open, delivery);
        assert!(verify(&Delivery { sent: 4, ..GOOD }).is_ok());
        for bad in [
            Delivery {
                at_original: 1,
                ..GOOD
            },
            Delivery {
                replies_from_original: 2,
                ..GOOD
            },
            Delivery {
                bad_checksum: 1,
                ..GOOD
            },
        ] {
            assert!(verify(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_complete_delivery_passes() {
        let verify = |subject, delivery: &Delivery| verify(subject, &CLOSED, delivery);
        assert!(verify(Subject::Module, &GOOD).is_ok());
        assert!(verify(Subject::NftDnat, &GOOD).is_ok());
        assert!(verify(Subject::None, &GOOD).is_err());
        for bad in [
            Delivery { sent: 4, ..GOOD },
            Delivery {
                at_upstream: 2,
                ..GOOD
            },
            Delivery {
                at_original: 1,
                ..GOOD
            },
            Delivery { replies: 4, ..GOOD },
            Delivery {
                replies_from_original: 2,
                ..GOOD
            },
            Delivery {
                bad_payload: 1,
                ..GOOD
            },
            Delivery {
                bad_checksum: 1,
                ..GOOD
            },
        ] {
            assert!(verify(Subject::Module, &bad).is_err(), "{bad:?}");
        }
    }
}
