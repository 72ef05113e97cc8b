// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether more CPUs bring as much more.

use std::num::NonZeroU32;

use anyhow::{Context, Result};

use super::cells::{evidence, value, Cells, Changes};
use super::claim::{Claim, Evidence, Judged, Pair, Unit, Unseen};
use crate::results::metrics::{HOOK_MEAN, PATH_MEAN};
use crate::results::record::CellRecord;

const LOCKING: Changes<'_> = &[("perf_enable_rcu", "0")];

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(cells: Cells<'_>) -> Result<Judged> {
    let decisive = by_cpus(cells, HOOK_MEAN)?;
    let path = by_cpus(cells, PATH_MEAN)?;
    let locks = locks(cells)?;
    let why = why(&decisive, &path, &locks);
    // Whether CPUs wait for each other is just what instructions cannot tell.
    let unseen = Unseen {
        could_help: true,
        could_hurt: true,
    };
    let others = vec![path, locks];
    Ok(Judged::new(Claim::Scaling, decisive, others, unseen, why))
}

fn at(cell: &CellRecord) -> String {
    let plural = if cell.cpus == 1 { "" } else { "s" };
    format!("{}, {} CPU{plural}", cell.traffic.name(), cell.cpus)
}

/// What a packet takes on one CPU, and on one of more.
fn by_cpus(cells: Cells<'_>, metric: &str) -> Result<Evidence> {
    let mut pairs = Vec::new();
    for default in cells.defaults().filter(|cell| cell.cpus > 1) {
        let one = cells
            .defaults()
            .find(|one| one.cpus == 1 && one.traffic == default.traffic.on_cpus(NonZeroU32::MIN))
            .with_context(|| format!("{} was not measured on one CPU", default.traffic.name()))?;
        pairs.push(Pair {
            at: at(default),
            off: value(one, metric)?,
            on: value(default, metric)?,
        });
    }
    evidence(metric, "with one CPU", "with more", pairs)
}

/// How often a table was locked, for each packet.
fn locks(cells: Cells<'_>) -> Result<Evidence> {
    let mut pairs = Vec::new();
    for default in cells.defaults() {
        pairs.push(Pair {
            at: at(default),
            off: locks_per_packet(cells.like(default, LOCKING)?)?,
            on: locks_per_packet(default)?,
        });
    }
    let evidence = evidence(
        "tables locked, while a flow was made and used",
        "RCU off",
        "RCU on",
        pairs,
    )?;
    Ok(Evidence {
        unit: Unit::PerPacket,
        ..evidence
    })
}

fn locks_per_packet(cell: &CellRecord) -> Result<f64> {
    let counter = |name: &str| -> Result<f64> {
        let count = cell.counters.get(name);
        let count = count.with_context(|| format!("{} has no counter {name}", cell.id))?;
        Ok(*count as f64)
    };
    let packets = counter("packets_original")? + counter("packets_reply")?;
    Ok(counter("lock_acquisitions")? / packets)
}

fn why(decisive: &Evidence, path: &Evidence, locks: &Evidence) -> Vec<String> {
    let wanted = Claim::Scaling.wanted();
    vec![
        format!(
            "What can be seen speaks for it: a packet takes as many instructions in the hooks of a machine \
             with up to 16 CPUs as with one ({}), and over the whole loop {}. A table was locked {:.3} times a \
             packet at most, to make each CPU's flow; with RCU off, {:.3} times. A flow's two directions write to \
             different cache lines, and counters are each CPU's own.",
            wanted.range(decisive.gains(wanted)),
            wanted.range(path.gains(wanted)),
            most(locks, |pair| pair.on),
            most(locks, |pair| pair.off),
        ),
        "Not seen: the claim itself. Each CPU has a flow of its own, and packets go round the CPUs, but in \
         virtual mode one thread executes them in turns: no two ever wait for one line. That it scales \
         would need time on a machine of 16 cores, or a model of its caches; that it does not would have \
         shown only if instructions grew with CPUs. So: held as far as instructions tell, which is not far."
            .to_owned(),
    ]
}

fn most(evidence: &Evidence, side: impl Fn(&Pair) -> f64) -> f64 {
    evidence.pairs.iter().map(side).fold(0.0, f64::max)
}
