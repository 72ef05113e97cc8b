// SPDX-License-Identifier: MIT OR Apache-2.0

//! One exchange of packets, of all that a cell's traffic has.

use std::thread;

use anyhow::{anyhow, Result};

use super::back_to_back::back_to_back;
use super::rig::{Rig, REHEARSAL};
use super::throughput::search;
use super::trial::{in_open_loop, Exchanged, Treatment};
use crate::kernel::memory;
use crate::kernel::tsc;
use crate::net::softnet::Received;
use crate::traffic::closed_loop::ClosedLoop;
use crate::traffic::flows::Flows;
use crate::traffic::open_loop::{Generator, Stream};
use crate::traffic::placement::Homes;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::histogram::Recorder;
use mutexlab_model::measured::{Delivery, PathCost};
use mutexlab_model::traffic::{Load, Traffic};

/// Round trips on each CPU over which flows are spread, before those that are measured.
const TURNS: u32 = 2;

/// Sends all packets of `traffic`: all flows are established, the warm-up, and what is measured. The
/// host hears nothing in between, since any word to it moves the guest's virtual clock. Calls
/// `established` when all flows are.
pub fn exchange(
    rig: &Rig<'_>,
    traffic: &Traffic,
    target: Target,
    treatment: Treatment,
    delivery: &mut Delivery,
    established: &mut dyn FnMut() -> Result<(), Stop>,
) -> Result<Exchanged, Stop> {
    let flows = Flows::measured(traffic);
    let layout = rig.layout;
    let mut closed_loop = ClosedLoop::new(layout, traffic, flows, target)?;
    for flow in flows.by_cpu() {
        closed_loop.open(flow..flow + 1, delivery)?;
        closed_loop.establish(flow..flow + 1, delivery)?;
    }
    established()?;
    closed_loop.round_trips(flows.picks().take(traffic.warm_up as usize), delivery)?;
    thread::sleep(treatment.age);
    memory::empty_packet_caches()?;
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
                rig,
                traffic,
                measured,
                treatment,
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
            let mut generator =
                Generator::new(&wire, traffic, connections, treatment.mischief, rig.pace)?;
            in_open_loop(
                &mut generator,
                &rig.probe,
                traffic,
                &stream,
                treatment,
                delivery,
            )
        }
        Load::Search(goal) => {
            let connections = closed_loop.hand_over();
            let wire = layout.wire(target);
            let mut generator =
                Generator::new(&wire, traffic, connections, treatment.mischief, rig.pace)?;
            search(&mut generator, &rig.probe, traffic, goal, delivery)
        }
        Load::BackToBack(goal) => {
            let connections = closed_loop.hand_over();
            let wire = layout.wire(target);
            let mut generator =
                Generator::new(&wire, traffic, connections, treatment.mischief, rig.pace)?;
            back_to_back(&mut generator, &rig.probe, traffic, goal, delivery)
        }
        Load::Bulk { .. } => Err(anyhow!("a bulk is no exchange of packets").into()),
    }
}

/// Measures round trips on the flows that are `measured`.
fn in_closed_loop(
    closed_loop: &mut ClosedLoop,
    rig: &Rig<'_>,
    traffic: &Traffic,
    measured: impl Iterator<Item = u32> + Clone,
    treatment: Treatment,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    treatment.prepare();
    // Flows in turns are on CPUs in turns, each of which has caches of its own.
    let turns = traffic.spread.map_or(0, |cpus| cpus.get() * TURNS);
    let rehearsal = measured.clone().take(REHEARSAL.max(turns) as usize);
    let Rig { probe, pace, .. } = rig;
    closed_loop.paced_round_trips(*pace, rehearsal, delivery, &mut |_| {})?;
    closed_loop.misbehave(treatment.mischief);
    let ports = Flows::measured(traffic).ports();
    probe.reset(traffic.family, traffic.protocol, ports)?;
    let (packets, bytes) = (closed_loop.packets(), closed_loop.bytes());
    let before = match traffic.spread {
        Some(cpus) => {
            let homes = Homes::of(traffic);
            let mut packets = vec![0; cpus.get() as usize];
            for flow in measured.clone() {
                packets[homes.there(flow) as usize] += 1;
                packets[homes.back(flow) as usize] += 1;
            }
            Some((packets, Received::read()?))
        }
        None => None,
    };
    let mut each = Recorder::with_capacity(traffic.load.packets() as usize);
    let mut ticks = 0;
    treatment.measured(|| {
        closed_loop.paced_round_trips(*pace, measured, delivery, &mut |took| {
            ticks += took;
            each.record(tsc::nanoseconds(took));
        })
    })?;
    closed_loop.misbehave(None);
    let received = match before {
        Some((packets, before)) => Received::read()?.since(&before, &packets)?,
        None => Vec::new(),
    };
    Ok(Exchanged {
        received,
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
