// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether two to three times as many packets get through when many come at once.

use anyhow::{Error, Result};

use super::cells::{evidence, value, Cells, Changes};
use super::claim::{Claim, Evidence, Judged, Pair, Unseen};
use mutexlab_results::metric::{PATH_MEAN, ROUTER};
use mutexlab_results::record::CellRecord;

const BATCHING: Changes<'_> = &[("perf_enable_batching", "1")];
const COPYING: Changes<'_> = &[("perf_enable_zero_copy", "0")];

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(cells: Cells<'_>) -> Result<Judged> {
    let both = pairs(cells, |default| {
        Ok((
            value(cells.like(default, COPYING)?, ROUTER)?,
            batched(cells, default)?,
        ))
    })?;
    let decisive = evidence(ROUTER, "batching and zero copy off", "both on", both)?;
    let copying = cells.compare(ROUTER, ("zero copy off", COPYING), ("on", &[]))?;
    let batching = pairs(cells, |default| {
        Ok((value(default, ROUTER)?, batched(cells, default)?))
    })?;
    let batching = evidence(ROUTER, "batching off", "on", batching)?;
    let path = cells.compare(PATH_MEAN, ("batching off", &[]), ("on", BATCHING))?;
    let why = why(&decisive, &copying, &batching);
    // What batching is for, misses that overlap, is not counted at all.
    let unseen = Unseen {
        could_help: true,
        could_hurt: true,
    };
    let others = vec![copying, batching, path];
    Ok(Judged::new(
        Claim::Throughput,
        decisive,
        others,
        unseen,
        why,
    ))
}

fn pairs(
    cells: Cells<'_>,
    numbers: impl Fn(&CellRecord) -> Result<(f64, f64)>,
) -> Result<Vec<Pair>> {
    cells
        .defaults()
        .map(|default| {
            let (off, on) = numbers(default)?;
            let at = default.traffic.name();
            Ok(Pair { at, off, on })
        })
        .collect()
}

/// What the router takes for a packet that waits for others: it cannot be told from one packet's
/// beginning to the next one's, as those that do not wait can. But what batching costs over the whole
/// loop can. Half of the packets are answers, which come one by one and do not wait: what they take
/// more, in the hooks, is no part of it.
fn batched(cells: Cells<'_>, default: &CellRecord) -> Result<f64> {
    let batching = cells.like(default, BATCHING)?;
    let more = |metric: &str| Ok::<_, Error>(value(batching, metric)? - value(default, metric)?);
    let waiting = 2.0 * more(PATH_MEAN)? - more("hook.reply.mean")?;
    Ok(value(default, ROUTER)? + waiting)
}

fn why(decisive: &Evidence, copying: &Evidence, batching: &Evidence) -> Vec<String> {
    let wanted = Claim::Throughput.wanted();
    let range = |evidence: &Evidence| wanted.range(evidence.gains(wanted));
    vec![
        format!(
            "Throughput of a CPU that does nothing else is what the router takes for a packet, receiving, \
             forwarding and sending included: {} with neither, {} with both.",
            decisive.range(|pair| pair.off),
            decisive.range(|pair| pair.on),
        ),
        format!(
            "Zero copy is {}: the more, the larger the packet. The off copies every packet, which no router \
             has to: the kernel's own NAT does not either. Batching is {}: by instructions it always loses.",
            range(copying),
            range(batching),
        ),
        "Not seen: what batching is for. Lookups of packets that wait are made together, so that their cache \
         misses overlap. On a processor `cargo bench -p mutex-datapath -- batch-of` shows lookups among \
         100,000 flows several times as fast; whether that makes the whole router twice as fast is decided by \
         time, not by instructions. Copies, too, take more time than instructions if the payload is not in a \
         cache, and less where the processor copies a whole packet by one instruction."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::cells::tests::cell;
    use super::*;
    use crate::claims::claim::Holds;
    use mutexlab_results::record::CellRecord;

    fn cells(copied: f64) -> [CellRecord; 3] {
        let of = |batching, zero_copy, metrics: &[(&str, f64)]| {
            let parameters = [
                ("perf_enable_batching", batching),
                ("perf_enable_zero_copy", zero_copy),
            ];
            cell(1400, &parameters, metrics)
        };
        [
            of(
                "0",
                "1",
                &[
                    (ROUTER, 1000.0),
                    (PATH_MEAN, 9000.0),
                    ("hook.reply.mean", 100.0),
                ],
            ),
            of("0", "0", &[(ROUTER, copied)]),
            // No packet's beginning follows the one's before in this: there is no ROUTER.
            of("1", "1", &[(PATH_MEAN, 9100.0), ("hook.reply.mean", 150.0)]),
        ]
    }

    #[test]
    fn waiting_is_put_down_to_requests() {
        let records = cells(2300.0);
        let judged = judge(Cells::new(&records)).unwrap();
        // 2 * 100 more over the loop, 50 of which are the answers' own.
        let pair = &judged.evidence[0].pairs[0];
        assert_eq!((pair.off, pair.on), (2300.0, 1150.0));
        assert_eq!(judged.gains, (2.0, 2.0));
    }

    #[test]
    fn instructions_do_not_decide_it() {
        for copied in [1200.0, 3000.0] {
            let records = cells(copied);
            let judged = judge(Cells::new(&records)).unwrap();
            assert_eq!(judged.verdict, Holds::CannotTell);
        }
    }
}
