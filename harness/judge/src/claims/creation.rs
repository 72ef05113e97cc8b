// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether the pool gives memory for a flow 10 to 20 times as fast as kmalloc().

use anyhow::Result;
use mutex_abi::micro::{Step, FLOW_SIZE};

use super::cells::Cells;
use super::claim::{Claim, Evidence, Judged, Pair, Unit, Unseen};
use super::steps::Steps;
use mutexlab_draw::table::number;
use mutexlab_results::metric::FIRST_PACKET;

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(steps: &Steps, cells: Cells<'_>) -> Result<Judged> {
    let metric = |what: &str| format!("memory for a flow of IPv4, {FLOW_SIZE} bytes, {what}");
    let pool = |name: &str, step: Step| (name.to_owned(), step, Step::PoolTake);
    let decisive = steps.compare(
        &metric("taken"),
        ("the kernel's allocator", "the pool"),
        &[
            pool("kmalloc()", Step::KmallocTake),
            pool("kzalloc()", Step::KzallocTake),
        ],
    )?;
    let others = steps.compare(
        &metric("taken"),
        ("another way", "the pool"),
        &[
            pool("kmem_cache_alloc()", Step::SlabTake),
            pool("perf_enable_pool=0", Step::PoolOffTake),
        ],
    )?;
    let back = steps.compare(
        &metric("given back"),
        ("the kernel's allocator", "the pool"),
        &[
            (
                "kfree()".to_owned(),
                Step::KmallocGiveBack,
                Step::PoolGiveBack,
            ),
            (
                "kmem_cache_free()".to_owned(),
                Step::SlabGiveBack,
                Step::PoolGiveBack,
            ),
        ],
    )?;
    let growing = Evidence {
        metric: metric("taken from the first on while none comes back, mean"),
        unit: Unit::Instructions,
        off: "kmem_cache_alloc()".to_owned(),
        on: "the pool".to_owned(),
        pairs: vec![Pair {
            at: "255 flows".to_owned(),
            off: steps.mean(Step::SlabGrow)?,
            on: steps.mean(Step::PoolGrow)?,
        }],
    };
    let packets = cells.compare(
        FIRST_PACKET,
        ("perf_enable_pool=0", &[("perf_enable_pool", "0")]),
        ("perf_enable_pool=1", &[]),
    )?;
    let why = why(steps, &packets)?;
    // The lock's atomic instruction takes longer than it counts, and which lines are in the caches
    // cannot make it a factor of ten.
    let unseen = Unseen {
        could_help: false,
        could_hurt: true,
    };
    let evidence = vec![others, back, growing, packets];
    Ok(Judged::new(
        Claim::Creation,
        decisive,
        evidence,
        unseen,
        why,
    ))
}

fn why(steps: &Steps, packets: &Evidence) -> Result<Vec<String>> {
    let (pool, kmalloc) = (
        steps.median(Step::PoolTake)?,
        steps.median(Step::KmallocTake)?,
    );
    let first = packets.pairs.iter().map(|pair| pair.off);
    let first = first.fold(f64::INFINITY, f64::min);
    let all = steps.median(Step::PoolOffTake)?;
    Ok(vec![
        format!(
            "kmalloc() itself takes from a store of the CPU's without a lock: {kmalloc} instructions. Ten \
             times as fast would be {:.0}, of which a call and its return are two. The pool takes {pool}, a \
             spinlock among them, and gives memory that is ready for a flow; kzalloc(), which zeroes, \
             takes {}.",
            kmalloc / 10.0,
            steps.median(Step::KzallocTake)?,
        ),
        format!(
            "The honest off takes more than kmalloc() alone, since what it gives must be made fit for a flow, \
             too ({all}). A flow's first packet takes {} with it and {} with the pool; if memory cost nothing \
             at all, it would still take {}, so that no allocator makes it more than {:.2}x as fast.",
            packets.range(|pair| pair.off),
            packets.range(|pair| pair.on),
            number(first - all),
            first / (first - all),
        ),
        "Not seen: that the spinlock's atomic instruction takes some 20 cycles and counts as one, which is \
         against the pool; and what the pool is for beside speed, that memory of flows stays that of flows \
         (which the cache and lock-free readers rely on) and on its NUMA node."
            .to_owned(),
    ])
}
