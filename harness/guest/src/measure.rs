// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cell: what its packets cost, and whether they arrived.

pub mod back_to_back;
pub mod delivered;
mod exchange;
mod first_packet;
pub mod rig;
mod router;
pub mod sabotage;
pub mod sockets;
mod throughput;
mod trial;
pub mod verify;

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};

use super::fault;
use super::probe::{Probe, Snapshot};
use crate::kernel::memory_map;
use crate::measure::sabotage::spoil;
use crate::net::conntrack;
use crate::net::layout::Layout;
use crate::proxy::context;
use crate::subjects::installation;
use crate::subjects::installation::{blame, ensure_untracked};
use crate::traffic::flows::Flows;
use crate::traffic::open_loop;
use crate::traffic::pace::Pace;
use crate::traffic::target::{Stop, Target};
use exchange::exchange;
use first_packet::first_packet;
use mutexlab_model::measured::{Delivery, OpenLoop};
use mutexlab_model::traffic::Usual as _;
use mutexlab_model::traffic::{Ends, Load, Steering, Traffic};
use mutexlab_protocol::measurement::Measurement;
use mutexlab_protocol::{Outcome, Sabotage, Task};
use rig::{rehearse, since, Rig, QUIET};
use router::{router, waits};
use trial::Treatment;
use verify::verify;

/// Round trips from which the cost of the probe itself is taken.
const CALIBRATION: u32 = 64;

/// The same for each flow of many, after they have gone.
const QUIET_EACH: Duration = Duration::from_micros(20);

/// From how many flows on the memory of one is told: few do not fill a table.
const MANY: u32 = 1_000;

/// Measures a cell, in namespaces of its own, so that it does not matter which cells were before
/// it. The probe's module must be loaded.
pub fn run(task: &Task, pace: Pace) -> Outcome {
    let mut delivery = Delivery::default();
    match measure(task, pace, &mut delivery) {
        Ok(mut measurement) => {
            if let Some(sabotage) = task.cell.sabotage {
                spoil(sabotage, &mut measurement);
            }
            Outcome::Ok(Box::new(measurement))
        }
        Err(Stop::Subject(reason)) => Outcome::Failed { reason, delivery },
        Err(Stop::Infra(error)) => Outcome::Infra {
            reason: format!("{error:#}"),
        },
    }
}

fn measure(task: &Task, pace: Pace, delivery: &mut Delivery) -> Result<Measurement, Stop> {
    let Task { cell, datapath } = task;
    let facts = datapath.facts;
    let traffic = &cell.traffic;
    traffic.check().map_err(anyhow::Error::from)?;
    if traffic.ends == Ends::Stack {
        return sockets::measure(task, pace, delivery);
    }
    let limit = if traffic.load.is_open() {
        open_loop::limit(traffic, pace)?
    } else {
        0
    };
    let layout = Layout::new()?;
    let mut probe = Probe::open(&layout.router)?;
    probe.set_ballast(cell.ballast.map(|_| 0));
    delivered::prepare(&layout, traffic)?;
    let crowd = Flows::measured(traffic).are_of_the_crowd();
    if crowd {
        layout.route_crowd(traffic.family)?;
    }
    let _room = (crowd && facts.counts.conntrack)
        .then(|| conntrack::Room::make(&layout.router, traffic.flows_in_all()))
        .transpose()?;
    thread::sleep(QUIET);
    let mut rig = Rig {
        layout: &layout,
        probe,
        pace,
    };
    if !traffic.checksum.is_usual() || !traffic.cloned.is_usual() {
        delivered::ensure_status(&layout, traffic)?;
        thread::sleep(QUIET);
    }
    let empty = calibrate(&rig, traffic)?;
    rig.probe.set_ballast(cell.ballast);

    let installed = installation::up(datapath, &cell.parameters, traffic, &layout)
        .map_err(|error| blame(datapath, error))?;
    let _held = (cell.sabotage == Some(Sabotage::HoldModule))
        .then(|| context::Context::open(&layout.client))
        .transpose()?;
    if cell.sabotage == Some(Sabotage::LogWarning) {
        fault::log_warning()?;
    }
    let target = Target::from(facts.arrives.at);
    rehearse(&layout, traffic, target, delivery)?;
    *delivery = Delivery::default();
    thread::sleep(QUIET);
    let blamed = |error| blame(datapath, error);
    let before = installed.counters(&layout.router).map_err(blamed)?;
    let mut flow_memory = None;
    let treatment = Treatment {
        mischief: cell.mischief,
        is_watched: true,
        ..Treatment::default()
    };
    let measured = exchange(&rig, traffic, target, treatment, delivery, &mut || {
        if facts.redirects() && crowd {
            installed.settle(traffic, &layout.router).map_err(blamed)?;
        }
        installed.rest(&layout.router).map_err(blamed)?;
        if traffic.flows >= MANY {
            flow_memory = installed
                .flow_memory(traffic, &layout.router)
                .map_err(blamed)?;
        }
        Ok(())
    })?;
    let counters = since(&before, installed.counters(&layout.router).map_err(blamed)?);
    let buckets = installed.buckets(traffic, &layout.router)?;
    installed
        .ensure_kept(traffic, &layout.router, &counters)
        .map_err(|error| blame(datapath, error))?;
    let first = first_packet(&rig, traffic, target, delivery)?;
    let router = if traffic.load.burst() > 1 && !waits(cell) {
        let gap = measured.snapshot.original.report.least_gap;
        Some(router(&rig, traffic, target, gap)?)
    } else {
        None
    };
    ensure_untracked(datapath, &layout.router)?;
    // Last of all, while what was measured is still there.
    let memory_map = memory_map::of(cell)?;
    installed
        .down(&layout)
        .map_err(|error| blame(datapath, error))?;
    drop(rig);
    layout.tear_down()?;
    if crowd {
        // What the kernel knows of them goes with the namespaces, in its own good time.
        thread::sleep(QUIET + QUIET_EACH * traffic.flows_in_all());
    }

    verify(target, traffic, delivery)?;
    measured.ensure_seen(traffic)?;
    let original = measured.snapshot.original.net_of(&empty.original)?;
    Ok(Measurement {
        delivery: *delivery,
        first_packet: first.map(|first| first.net_of(original.overhead)),
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
        received: measured.received,
        buckets,
        counters,
        memory_map,
    })
}

/// What the probe costs on the way of `traffic` while nothing is between its hooks.
fn calibrate(rig: &Rig<'_>, traffic: &Traffic) -> Result<Snapshot> {
    let traffic = Traffic {
        flows: 1,
        spread: None,
        steering: Steering::Symmetric,
        load: Load::Closed {
            round_trips: CALIBRATION,
            burst: traffic.load.burst(),
        },
        warm_up: CALIBRATION,
        ..*traffic
    };
    let mut delivery = Delivery::default();
    let target = Target::Original;
    // There is no connection tracking yet that could take them for a stream.
    let treatment = Treatment {
        age: QUIET,
        ..Treatment::default()
    };
    let exchanged = exchange(rig, &traffic, target, treatment, &mut delivery, &mut || {
        Ok(())
    });
    match exchanged {
        Ok(measured) => Ok(measured.snapshot),
        Err(Stop::Infra(error)) => Err(error),
        Err(Stop::Subject(reason)) => Err(anyhow!(reason)),
    }
    .context("cannot take the probe's own cost: traffic fails without any subject")
}
