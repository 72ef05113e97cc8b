// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a CPU's cache of flows makes looking one up 3 to 10 times as fast.

use anyhow::Result;
use mutex_abi::micro::Step;

use super::cells::Cells;
use super::claim::{Claim, Evidence, Judged, Unseen};
use super::steps::Steps;
use mutexlab_draw::table::number;
use mutexlab_results::metric::HOOK_MEAN;

const FOUND: &str = "a flow found, hash included";

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(steps: &Steps, cells: Cells<'_>) -> Result<Judged> {
    let place = |place: u32| format!("place {place} of its chain");
    let decisive = steps.compare(
        FOUND,
        ("in the module's table", "cache hit"),
        &[1, 2, 3, 4, 8].map(|at| (place(at), Step::TableFind(at), Step::CacheHit)),
    )?;
    let chains = steps.compare(
        FOUND,
        ("jhash and hlist_for_each_entry_rcu()", "cache hit"),
        &[1, 2, 3, 4, 8].map(|at| (place(at), Step::HlistFind(at), Step::CacheHit)),
    )?;
    let lists = steps.compare(
        FOUND,
        ("list_for_each_entry()", "cache hit"),
        &[1, 8, 64, 512].map(|at| {
            (
                format!("place {at} of the list"),
                Step::ListFind(at),
                Step::CacheHit,
            )
        }),
    )?;
    let table = steps.compare(
        FOUND,
        ("list_for_each_entry()", "in the module's table"),
        &[1, 8, 64, 512].map(|at| {
            let at_place = format!("place {at} of the list, 1 of the chain");
            (at_place, Step::ListFind(at), Step::TableFind(1))
        }),
    )?;
    let locks = steps.compare(
        FOUND,
        ("under the table's lock", "under RCU"),
        &[(place(1), Step::TableFindLocked(1), Step::TableFind(1))],
    )?;
    let packets = cells.compare(
        HOOK_MEAN,
        ("perf_cache_size=0", &[]),
        ("perf_cache_size=512", &[("perf_cache_size", "512")]),
    )?;
    let why = why(&decisive, &lists, &packets, steps)?;
    // See `why`: lines, too, are as many with the cache as without.
    let unseen = Unseen {
        could_help: false,
        could_hurt: true,
    };
    let others = vec![chains, lists, table, locks, packets];
    Ok(Judged::new(Claim::Lookup, decisive, others, unseen, why))
}

fn why(
    decisive: &Evidence,
    lists: &Evidence,
    packets: &Evidence,
    steps: &Steps,
) -> Result<Vec<String>> {
    // Each further entry costs the same: a straight line through two places.
    let list = |at: u32| steps.median(Step::ListFind(at));
    let slope = (list(512)? - list(64)?) / (512.0 - 64.0);
    let hit = steps.median(Step::CacheHit)?;
    let place = (64.0 + (3.0 * hit - list(64)?) / slope).ceil();
    Ok(vec![
        format!(
            "A hit takes {}, finding the flow in the table {}, of which the hash, which both need, is {}: \
             there is next to nothing to be saved. A miss takes {}, the search included. The table keeps \
             chains at two entries or fewer on average.",
            decisive.range(|pair| pair.on),
            decisive.range(|pair| pair.off),
            steps.median(Step::Hash)?,
            steps.median(Step::CacheMiss)?,
        ),
        format!(
            "Whole packets agree: {} in the hooks without a cache, {} with one that knows every flow \
             (which they pay for with a second copy of the code, too).",
            packets.range(|pair| pair.off),
            packets.range(|pair| pair.on),
        ),
        format!(
            "Against a list the factor is reached from its place {place} on ({} instructions for the \
             last of 512), but that is the hash table's merit: it does without a cache what the cache does.",
            number(lists.pairs.last().map_or(0.0, |pair| pair.off)),
        ),
        "Not seen: misses. A hit reads two lines that are a flow's own or its set's (set, keys), the \
         table two as well (head, keys), and one more for each flow before it on the chain: so the cache \
         could not be three times as fast even if every line were a miss, but for flows far back on \
         a chain."
            .to_owned(),
    ])
}
