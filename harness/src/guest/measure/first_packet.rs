// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a flow's first packet costs.

use std::collections::BTreeMap;

use mutex_abi::histogram::percentile;

use super::super::closed_loop::ClosedLoop;
use super::super::flows::Flows;
use super::super::layout::Layout;
use super::super::pace;
use super::super::probe::Probe;
use super::super::protocol::{Delivery, Traffic, Way};
use super::super::traffic::{Stop, Target};

/// How many first packets are sent before the first of them is answered: what fits into the queues
/// of sockets, and between two ticks.
const BATCH: usize = 32;

/// What the first packet of a flow costs, the probe's own cost included: the median over further
/// flows. `None` if an interrupt fell into each.
pub fn first_packet(
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
