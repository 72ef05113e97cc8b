// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether processing a packet takes 20 to 30 % less time.

use anyhow::Result;

use super::cells::{Cells, Changes};
use super::claim::{Claim, Evidence, Judged, Unseen};
use mutexlab_model::subject::Subject;
use mutexlab_results::metric::{HOOK_MEAN, PATH_MEAN};

/// What is switched off of what branch 13 has for packets of established flows.
const OFF: Changes<'_> = &[("perf_enable_rcu", "0"), ("perf_enable_zero_copy", "0")];

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(cells: Cells<'_>) -> Result<Judged> {
    let off = ("RCU and zero copy off", OFF);
    let on: (&str, Changes<'_>) = ("on", &[]);
    let decisive = cells.compare(HOOK_MEAN, off, on)?;
    let rcu = cells.compare(HOOK_MEAN, ("RCU off", &OFF[..1]), on)?;
    let copy = cells.compare(HOOK_MEAN, ("zero copy off", &OFF[1..]), on)?;
    let tail = cells.compare("hook.original.p99", off, on)?;
    let kernel = cells.compare_subject(HOOK_MEAN, &Subject::NFT_DNAT)?;
    let path = cells.compare(PATH_MEAN, off, on)?;
    let why = why([&decisive, &rcu, &copy, &tail, &path]);
    // What is left out by the optimizations are an atomic instruction, and reading and writing the
    // payload's lines: both take longer than they count.
    let unseen = Unseen {
        could_help: true,
        could_hurt: false,
    };
    let others = vec![rcu, copy, tail, kernel, path];
    Ok(Judged::new(Claim::Latency, decisive, others, unseen, why))
}

fn why([decisive, rcu, copy, tail, path]: [&Evidence; 5]) -> Vec<String> {
    let wanted = Claim::Latency.wanted();
    let range = |evidence: &Evidence| wanted.range(evidence.gains(wanted));
    vec![
        format!(
            "In the hooks a packet of an established flow takes {} with both off and {} with both on, which \
             is the default; each alone is enough (RCU {}, zero copy {}). At the 99th percentile it is {}. \
             What the module does beyond branch 13, such as keeping routes, is on in both.",
            decisive.range(|pair| pair.off),
            decisive.range(|pair| pair.on),
            range(rcu),
            range(copy),
            range(tail),
        ),
        format!(
            "Of the whole loop, both ends and the checking of every byte included, that is {}: who calls \
             that latency will not see 20 %.",
            range(path),
        ),
        "Not seen: time. But what is saved is a lock's atomic instruction, which takes longer than it \
         counts, and reading and writing all of the payload, which is where misses would be: in time the gain \
         is larger. With other CPUs on the lock, larger still."
            .to_owned(),
        "Batching is the exception, and off by default: packets that wait for each other wait longer, by design."
            .to_owned(),
    ]
}
