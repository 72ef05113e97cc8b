// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cell: what its packets cost, and whether they arrived.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use mutex_abi::histogram::percentile;

use super::closed_loop::ClosedLoop;
use super::conntrack;
use super::flows::Flows;
use super::layout::{Layout, ROUTER_SERVER_LINK};
use super::offload::{self, Offload};
use super::pace;
use super::probe::{Probe, Snapshot};
use super::protocol::{
    Delivery, GuestCell, Load, Measurement, Outcome, PathCost, Subject, Traffic, Way,
};
use super::subject::{self, Installed};
use super::traffic::{Stop, Target};

/// Round trips from which the cost of the probe itself is taken.
const CALIBRATION: u32 = 64;

/// Round trips of the flow that goes before those that are measured.
const REHEARSAL: u32 = 8;

/// How long the kernel is left alone after a change, so that what it puts off (multicast
/// reports, RCU, what a process leaves behind) does not fall into the measurement.
const QUIET: Duration = Duration::from_millis(250);
/// The same for each flow of many, after they have gone.
const QUIET_EACH: Duration = Duration::from_micros(20);

/// How old flows are when they are measured: conntrack takes UDP for a stream after two seconds
/// (nf_conntrack_udp_packet()), and treats it otherwise from then on.
const SETTLED: Duration = Duration::from_secs(3);

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
    let Load::Closed { round_trips, .. } = traffic.load else {
        return Err(anyhow!("the agent has no generator for {}", traffic.name()).into());
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
    let _room = (crowd && cell.subject == Subject::NftDnat)
        .then(|| conntrack::Room::make(&layout.router, traffic.flows))
        .transpose()?;
    thread::sleep(QUIET);
    let empty = calibrate(&layout, &probe, traffic)?;
    probe.set_ballast(cell.ballast);

    let installed = Installed::up(cell.subject, &cell.parameters, traffic, &layout.router)
        .map_err(|error| blame(cell.subject, error))?;
    let target = subject::target(cell.subject);
    rehearse(&layout, traffic, target, delivery)?;
    *delivery = Delivery::default();
    thread::sleep(QUIET);
    let before = installed.counters()?;
    let mut flow_memory = None;
    let measured = exchange(
        &layout,
        &probe,
        traffic,
        round_trips,
        target,
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
    let counters = since(&before, installed.counters()?);
    installed
        .ensure_kept(traffic, &layout.router, &counters)
        .map_err(|error| blame(cell.subject, error))?;
    let first = first_packet(&layout, &probe, traffic, target, delivery)?;
    if cell.subject != Subject::NftDnat {
        conntrack::ensure_none(&layout.router)?;
    }
    installed
        .down(&layout.router)
        .map_err(|error| blame(cell.subject, error))?;
    drop(probe);
    layout.tear_down()?;
    if crowd {
        // What the kernel knows of them goes with the namespaces, in its own good time.
        thread::sleep(QUIET + QUIET_EACH * traffic.flows);
    }

    verify(cell.subject, delivery)?;
    measured.snapshot.ensure_seen(traffic)?;
    let original = measured.snapshot.original.net_of(&empty.original)?;
    Ok(Measurement {
        delivery: *delivery,
        first_packet: first.map(|ticks| ticks.saturating_sub(original.overhead)),
        flow_memory,
        original,
        reply: measured.snapshot.reply.net_of(&empty.reply)?,
        path: measured.path,
        counters,
    })
}

/// What the probe costs on the way of `traffic` while nothing is between its hooks.
fn calibrate(layout: &Layout, probe: &Probe, traffic: &Traffic) -> Result<Snapshot> {
    let traffic = Traffic {
        flows: 1,
        warm_up: CALIBRATION,
        ..*traffic
    };
    let mut delivery = Delivery::default();
    let target = Target::Original;
    let exchanged = exchange(
        layout,
        probe,
        &traffic,
        CALIBRATION,
        target,
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
fn rehearse(
    layout: &Layout,
    traffic: &Traffic,
    target: Target,
    delivery: &mut Delivery,
) -> Result<(), Stop> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, Flows::rehearsal(traffic), target)?;
    closed_loop.open(0..1, delivery)?;
    closed_loop.establish(0..1, delivery)?;
    closed_loop.round_trips((0..REHEARSAL).map(|_| 0), delivery)?;
    closed_loop.close(0, delivery)
}

/// What one exchange of packets showed.
struct Exchanged {
    snapshot: Snapshot,
    path: PathCost,
}

/// Runs the whole closed loop of `traffic`: all flows, the warm-up and what is measured. The host
/// hears nothing in between, since any word to it moves the guest's virtual clock. Calls
/// `established` when all flows are.
fn exchange(
    layout: &Layout,
    probe: &Probe,
    traffic: &Traffic,
    round_trips: u32,
    target: Target,
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
    let measured = || flows.picks().take(round_trips as usize);
    if flows.are_of_the_crowd() {
        // What comes only once after that time is behind each flow, as it is behind a single one.
        closed_loop.round_trips(measured(), delivery)?;
    }
    closed_loop.paced_round_trips(measured().take(REHEARSAL as usize), delivery)?;

    probe.reset(traffic.family, traffic.protocol, flows.ports())?;
    let frames = closed_loop.frames();
    let path = PathCost {
        ticks: closed_loop.paced_round_trips(measured(), delivery)?,
        packets: closed_loop.frames() - frames,
    };
    let snapshot = probe.snapshot()?;
    if !flows.are_of_the_crowd() {
        closed_loop.close(0, delivery)?;
    }
    Ok(Exchanged { snapshot, path })
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

impl Snapshot {
    /// Fails if the probe overlooked a packet that was measured.
    fn ensure_seen(&self, traffic: &Traffic) -> Result<()> {
        let packets = u64::from(traffic.load.packets()) * u64::from(traffic.load.burst());
        for (direction, samples) in [("from", &self.original), ("to", &self.reply)] {
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
fn since(
    before: &BTreeMap<String, u64>,
    mut counters: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    for (name, count) in &mut counters {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    counters
}

/// Fails unless every packet arrived where it should and every answer came back from where the
/// client had sent to.
fn verify(subject: Subject, delivery: &Delivery) -> Result<(), Stop> {
    let (there, elsewhere) = match subject::target(subject) {
        Target::Original => (delivery.at_original, delivery.at_upstream),
        Target::Upstream => (delivery.at_upstream, delivery.at_original),
    };
    let all = [there, delivery.replies, delivery.replies_from_original];
    let none = [elsewhere, delivery.bad_payload, delivery.bad_checksum];
    if all.iter().any(|&count| count != delivery.sent) || none.iter().any(|&count| count != 0) {
        return Err(Stop::Subject(format!("packets went astray: {delivery:?}")));
    }
    Ok(())
}

/// A module that cannot be put up or taken down is wrong itself; any other subject is the
/// kernel's.
fn blame(subject: Subject, error: anyhow::Error) -> Stop {
    if subject.is_module() {
        Stop::Subject(format!("{error:#}"))
    } else {
        Stop::Infra(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Delivery = Delivery {
        sent: 3,
        at_upstream: 3,
        at_original: 0,
        replies: 3,
        replies_from_original: 3,
        bad_payload: 0,
        bad_checksum: 0,
    };

    #[test]
    fn only_complete_delivery_passes() {
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
