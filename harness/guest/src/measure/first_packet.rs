// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a flow's first packet costs.

use std::collections::BTreeMap;

use mutex_abi::histogram::percentile;

use super::rig::Rig;
use crate::traffic::closed_loop::ClosedLoop;
use crate::traffic::flows::Flows;
use crate::traffic::target::{Stop, Target};
use mutexlab_model::measured::{Delivery, FirstPacket};
use mutexlab_model::traffic::Traffic;

/// How many first packets are sent before the first of them is answered: what fits into the queues
/// of sockets, and between two ticks.
const BATCH: usize = 32;

/// Opens further flows; the probe's own cost is included. `None` if an interrupt fell into each first
/// packet.
pub fn first_packet(
    rig: &Rig<'_>,
    traffic: &Traffic,
    target: Target,
    delivery: &mut Delivery,
) -> Result<Option<FirstPacket>, Stop> {
    let flows = Flows::further(traffic);
    let mut closed_loop = ClosedLoop::new(rig.layout, traffic, flows, target)?;
    let mut histogram: BTreeMap<u64, u64> = BTreeMap::new();
    for start in (0..flows.count()).step_by(BATCH) {
        let batch = start..flows.count().min(start + BATCH as u32);
        rig.probe
            .reset(traffic.family, traffic.protocol, flows.ports())?;
        rig.pace.wait()?;
        closed_loop.open(batch.clone(), delivery)?;
        for (ticks, packets) in rig.probe.snapshot()?.original.histogram {
            *histogram.entry(ticks).or_default() += packets;
        }
        closed_loop.establish(batch, delivery)?;
    }
    // The stack shall be done with its sockets; on the wire there is nothing to be done with.
    if traffic.has_stack_client() {
        (0..flows.count()).try_for_each(|flow| closed_loop.close(flow, delivery))?;
    }
    Ok(of(&histogram))
}

/// What a histogram of ticks says, if it says anything.
fn of(histogram: &BTreeMap<u64, u64>) -> Option<FirstPacket> {
    let counts = histogram.iter().map(|(&ticks, &packets)| (ticks, packets));
    Some(FirstPacket {
        median: percentile(counts.clone(), 50_000)?,
        p10: percentile(counts, 10_000)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percentiles_are_told() {
        assert_eq!(of(&BTreeMap::new()), None);
        // The 4th and the 16th of 31.
        let histogram = [(40, 3), (50, 12), (70, 15), (900, 1)].into();
        let first = of(&histogram).unwrap();
        assert_eq!((first.p10, first.median), (50, 70));
        let net = first.net_of(60);
        assert_eq!((net.p10, net.median), (0, 10));
    }
}
