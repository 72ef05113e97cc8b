// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cell whose client and server are ordinary sockets: what its messages cost on their whole
//! path, whatever is on it.
//!
//! The probe is left out. A subject that leads packets past the hooks would be spared its cost as
//! well, and what a proxy in user space costs is not in the hooks.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Result};

use super::rig::{rehearse, since, QUIET, REHEARSAL, SETTLED};
use super::verify::verify;
use crate::kernel::cpu;
use crate::kernel::marks;
use crate::kernel::tsc;
use crate::net::layout::{
    Layout, CLIENT_LINK, ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK, SERVER_LINK,
};
use crate::net::offload;
use crate::net::offload::Offload;
use crate::subjects::installation;
use crate::subjects::installation::{blame, ensure_untracked};
use crate::subjects::installed::Installed;
use crate::traffic::bulk::{BulkStream, Received};
use crate::traffic::closed_loop::ClosedLoop;
use crate::traffic::flows::Flows;
use crate::traffic::pace::Pace;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::facts::Arrival;
use mutexlab_model::histogram::{Histogram, Recorder};
use mutexlab_model::measured::{BulkCost, CoreTime, Delivery, HookCost, PathCost};
use mutexlab_model::traffic::Load;
use mutexlab_protocol::measurement::Measurement;
use mutexlab_protocol::Task;

/// Measures a cell, in namespaces of its own.
pub fn measure(task: &Task, pace: Pace, delivery: &mut Delivery) -> Result<Measurement, Stop> {
    let Task { cell, datapath } = task;
    let traffic = &cell.traffic;
    if cell.ballast.is_some() || cell.mischief.is_some() || cell.lens {
        return Err(anyhow!("ballast, mischief and the lens are for traffic on the wire").into());
    }
    let layout = Layout::new()?;
    cut_segments(&layout)?;
    thread::sleep(QUIET);

    let installed = installation::up(datapath, &cell.parameters, traffic, &layout)
        .map_err(|error| blame(datapath, error))?;
    let arrival = datapath.facts.arrives;
    rehearse(&layout, traffic, arrival, delivery)?;
    *delivery = Delivery::default();
    thread::sleep(QUIET);
    let blamed = |error| blame(datapath, error);
    let before = installed.counters(&layout.router).map_err(blamed)?;
    let spent = exchange(&layout, task, pace, arrival, delivery, installed.as_ref())?;
    let counters = since(&before, installed.counters(&layout.router).map_err(blamed)?);
    let buckets = installed.buckets(traffic, &layout.router)?;
    installed
        .ensure_kept(traffic, &layout.router, &counters)
        .map_err(|error| blame(datapath, error))?;
    ensure_untracked(datapath, &layout.router)?;
    installed
        .down(&layout)
        .map_err(|error| blame(datapath, error))?;
    layout.tear_down()?;

    verify(Target::from(arrival.at), traffic, delivery)?;
    Ok(Measurement {
        delivery: *delivery,
        original: HookCost::default(),
        reply: HookCost::default(),
        first_packet: None,
        flow_memory: None,
        router: None,
        path: spent.path,
        round_trip: spent.round_trip,
        open: None,
        bulk: spent.bulk,
        proxy_time: spent.proxy_time,
        cores: spent.cores,
        received: Vec::new(),
        buckets,
        counters,
        memory_map: None,
    })
}

/// What was spent on what is measured.
#[derive(Default)]
struct Spent {
    path: PathCost,
    round_trip: Option<Histogram>,
    bulk: Option<BulkCost>,
    proxy_time: Option<u64>,
    cores: Vec<CoreTime>,
}

/// Runs the load of `cell` on one flow, and looks before it is closed whether what is
/// `installed` was at work.
fn exchange(
    layout: &Layout,
    Task { cell, datapath }: &Task,
    pace: Pace,
    arrival: Arrival,
    delivery: &mut Delivery,
    installed: &dyn Installed,
) -> Result<Spent, Stop> {
    let traffic = &cell.traffic;
    let blamed = |error| blame(datapath, error);
    let flows = Flows::measured(traffic);
    match traffic.load {
        Load::Closed { round_trips, .. } => {
            let mut closed_loop = ClosedLoop::new(layout, traffic, flows, arrival)?;
            closed_loop.open(0..1, delivery)?;
            closed_loop.establish(0..1, delivery)?;
            let times = |count: u32| (0..count).map(|_| 0);
            closed_loop.round_trips(times(traffic.warm_up), delivery)?;
            thread::sleep(SETTLED);
            marks::prepare();
            closed_loop.paced_round_trips(pace, times(REHEARSAL), delivery, &mut |_| {})?;
            let packets = closed_loop.packets();
            let received = Received::read(&layout.server)?;
            let before = installed.proxy_time()?;
            let mut each = Recorder::with_capacity(round_trips as usize);
            let mut ticks = 0;
            marks::window(|| {
                closed_loop.paced_round_trips(pace, times(round_trips), delivery, &mut |took| {
                    ticks += took;
                    each.record(tsc::nanoseconds(took));
                })
            })?;
            let proxy_time = rise(before, installed.proxy_time()?);
            let path = PathCost {
                ticks,
                nanoseconds: tsc::nanoseconds(ticks),
                packets: closed_loop.packets() - packets,
                bytes: Received::read(&layout.server)?.bytes - received.bytes,
            };
            installed.ensure_at_work(&layout.router).map_err(blamed)?;
            closed_loop.close(0, delivery)?;
            Ok(Spent {
                path,
                round_trip: Some(each.histogram()),
                proxy_time,
                ..Spent::default()
            })
        }
        Load::Bulk { bytes } => {
            let mut stream = BulkStream::open(layout, traffic, arrival, delivery)?;
            stream.warm_up(delivery)?;
            let (before, cores) = (installed.proxy_time()?, cpu::cores()?);
            let bulk = stream.measure(layout, bytes, delivery)?;
            let proxy_time = rise(before, installed.proxy_time()?);
            let cores = cpu::since(&cores, &cpu::cores()?);
            installed.ensure_at_work(&layout.router).map_err(blamed)?;
            Ok(Spent {
                bulk: Some(bulk),
                proxy_time,
                cores,
                ..Spent::default()
            })
        }
        Load::Open { .. } | Load::Search(_) | Load::BackToBack(_) => {
            Err(anyhow!("there is no open loop between sockets: {}", traffic.name()).into())
        }
    }
}

/// Nanoseconds from one reading of a clock to another.
fn rise(before: Option<Duration>, after: Option<Duration>) -> Option<u64> {
    let rise = after?.checked_sub(before?)?;
    u64::try_from(rise.as_nanos()).ok()
}

/// Has segments leave each machine as they are on a wire. Their checksums stay with the devices, as
/// network cards compute them.
fn cut_segments(layout: &Layout) -> Result<()> {
    for (namespace, link) in [
        (&layout.client, &CLIENT_LINK),
        (&layout.router, &ROUTER_CLIENT_LINK),
        (&layout.router, &ROUTER_SERVER_LINK),
        (&layout.server, &SERVER_LINK),
    ] {
        for feature in [Offload::Tso, Offload::Gso, Offload::Gro] {
            offload::set(namespace, link, feature, false)?;
        }
    }
    Ok(())
}
