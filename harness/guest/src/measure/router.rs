// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the router takes for a packet of a burst.

use anyhow::Context;

use super::super::probe::Probe;
use super::exchange::exchange;
use super::rig::{Rig, REHEARSAL};
use super::trial::Treatment;
use crate::traffic::flows::Flows;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Load, Traffic};
use mutexlab_protocol::GuestCell;

/// Whether packets of a burst wait for each other, so that the next one begins before all is done
/// for one.
pub fn waits(cell: &GuestCell) -> bool {
    let batching = cell.parameters.get("perf_enable_batching");
    batching.is_some_and(|value| value != "0")
}

/// What the router takes for one packet of a burst, from before it receives it until it receives the
/// next one. `gap` is that with the probe's own work in it; what a second probe adds is taken off.
pub fn router(rig: &Rig<'_>, traffic: &Traffic, target: Target, gap: u64) -> Result<u64, Stop> {
    let second = Probe::open(&rig.layout.router)?;
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
    let treatment = Treatment::default();
    let measured = exchange(rig, &few, target, treatment, &mut delivery, &mut nothing)?;
    let with_both = measured.snapshot.original.report.least_gap;
    let own = with_both.checked_sub(gap).filter(|_| gap != 0);
    let router = own.and_then(|own| gap.checked_sub(own));
    Ok(router.with_context(|| {
        format!("packets of a burst are {gap} ticks apart, and {with_both} with a second probe")
    })?)
}
