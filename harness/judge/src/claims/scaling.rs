// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether more CPUs bring as much more.

use std::num::NonZeroU32;

use anyhow::{Context, Result};

use super::cells::{evidence, value, Cells, Changes};
use super::claim::{Claim, Evidence, Gain, Judged, Pair, Unit, Unseen};
use mutexlab_model::subject::Subject;
use mutexlab_results::lens_metrics::{CYCLES, TRANSFERS};
use mutexlab_results::metric::PATH_MEAN;
use mutexlab_results::record::CellRecord;

const LOCKING: Changes<'_> = &[("perf_enable_rcu", "0")];
const SHARING: Changes<'_> = &[("perf_enable_percpu", "0")];

/// Fewer transfers a packet than this are none: of the first packets.
const FEW: f64 = 0.01;

/// What was said of it.
///
/// # Errors
/// If something was not measured.
pub fn judge(cells: Cells<'_>) -> Result<Judged> {
    let all: Vec<&CellRecord> = cells.defaults().collect();
    let mut sharing = Vec::new();
    let mut of_kernel = Vec::new();
    for &cell in &all {
        // Not every traffic has those.
        sharing.extend(cells.like(cell, SHARING));
        of_kernel.extend(cells.of_subject(cell, &Subject::NFT_DNAT));
    }
    let found = Found {
        cycles: growth(cells, &all, "module", CYCLES)?,
        sharing: growth(cells, &sharing, "perf_enable_percpu=0", CYCLES)?,
        kernel: growth(cells, &of_kernel, "nft-dnat", CYCLES)?,
        from_sharing: beside(cells, &sharing, "perf_enable_percpu=0")?,
        from_kernel: beside(cells, &of_kernel, "nft-dnat")?,
        path: growth(cells, &all, "module", PATH_MEAN)?,
        locks: locks(cells)?,
        moved: all
            .iter()
            .map(|cell| value(cell, TRANSFERS))
            .try_fold(0.0, |most: f64, moved| anyhow::Ok(most.max(moved?)))?,
    };
    // CPUs that ask for one line wait in turns, which no latency of one transfer tells.
    let unseen = Unseen {
        could_help: false,
        could_hurt: found.moved >= FEW,
    };
    let why = found.why();
    let others = vec![
        found.sharing,
        found.kernel,
        found.from_sharing,
        found.from_kernel,
        found.path,
        found.locks,
    ];
    Ok(Judged::new(
        Claim::Scaling,
        found.cycles,
        others,
        unseen,
        why,
    ))
}

/// What was measured.
struct Found {
    /// The estimate in cycles on one CPU and on more.
    cycles: Evidence,
    /// The same with counters and memory that CPUs share.
    sharing: Evidence,
    /// The same of the kernel's own NAT.
    kernel: Evidence,
    /// Lines that come from other CPUs with shared counters, and by default.
    from_sharing: Evidence,
    /// The same of the kernel's own NAT, and of the module.
    from_kernel: Evidence,
    /// Instructions of the whole loop.
    path: Evidence,
    /// How often tables were locked.
    locks: Evidence,
    /// The most lines that a packet gets from other CPUs by default.
    moved: f64,
}

fn at(cell: &CellRecord) -> String {
    let plural = if cell.cpus == 1 { "" } else { "s" };
    format!("{}, {} CPU{plural}", cell.traffic.name(), cell.cpus)
}

/// What a packet takes of `some` on one CPU, and on one of more. In the hooks without what the probe itself takes there.
fn growth(cells: Cells<'_>, some: &[&CellRecord], of: &str, metric: &str) -> Result<Evidence> {
    let net = |cell: &CellRecord| -> Result<f64> {
        let probe = match metric {
            CYCLES => value(cells.empty(cell.cpus)?, metric)?,
            _ => 0.0,
        };
        Ok(value(cell, metric)? - probe)
    };
    let mut pairs = Vec::new();
    for &more in some.iter().filter(|cell| cell.cpus > 1) {
        let one = some
            .iter()
            .find(|one| one.cpus == 1 && one.traffic == more.traffic.on_cpus(NonZeroU32::MIN))
            .with_context(|| format!("{} was not measured on one CPU", more.traffic.name()))?;
        pairs.push(Pair {
            at: at(more),
            off: net(one)?,
            on: net(more)?,
        });
    }
    let evidence = evidence(metric, &format!("{of} with one CPU"), "with more", pairs)?;
    Ok(match metric {
        CYCLES => Evidence {
            unit: Unit::CyclesPerPacket,
            ..evidence
        },
        _ => evidence,
    })
}

/// Lines that packets of `others` get from other CPUs, and packets of the module in the same place.
fn beside(cells: Cells<'_>, others: &[&CellRecord], of: &str) -> Result<Evidence> {
    let mut pairs = Vec::new();
    for other in others {
        let mut defaults = cells.defaults();
        let default =
            defaults.find(|cell| cell.cpus == other.cpus && cell.traffic == other.traffic);
        let default = default.with_context(|| format!("nothing is beside {}", other.id))?;
        pairs.push(Pair {
            at: at(other),
            off: value(other, TRANSFERS)?,
            on: value(default, TRANSFERS)?,
        });
    }
    let evidence = evidence(TRANSFERS, of, "module", pairs)?;
    Ok(Evidence {
        unit: Unit::PerPacket,
        ..evidence
    })
}

/// How often a table was locked, for each packet.
fn locks(cells: Cells<'_>) -> Result<Evidence> {
    let mut pairs = Vec::new();
    for default in cells.defaults() {
        let Ok(locking) = cells.like(default, LOCKING) else {
            continue;
        };
        pairs.push(Pair {
            at: at(default),
            off: locks_per_packet(locking)?,
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

impl Found {
    fn why(&self) -> Vec<String> {
        let wanted = Claim::Scaling.wanted();
        let range = |evidence: &Evidence| wanted.range(evidence.gains(wanted));
        let other = |evidence: &Evidence| most(evidence, |pair| pair.off);
        let (least, _) = self.cycles.gains(wanted);
        let moved = match self.moved {
            moved if moved < FEW => "no line".to_owned(),
            moved => format!("{moved:.2} lines"),
        };
        vec![
            format!(
                "The rule: as many CPUs do at least {:.1} of as many times what one does. A packet takes the hooks {} \
                 cycles on one CPU and {} on one of up to 16, by the lens's estimate (docs/lens.md) and without what \
                 the probe takes: sixteen CPUs do {:.1} times what one does. Over the whole loop instructions are \
                 {}.",
                match wanted {
                    Gain::Times(least) | Gain::Less(least) => least,
                },
                self.cycles.range(|pair| pair.off.round()),
                self.cycles.range(|pair| pair.on.round()),
                16.0 * least.min(1.0),
                range(&self.path),
            ),
            format!(
                "Why: in the hooks a packet gets {moved} from another CPU, not even where its answers come to \
                 another CPU than it does itself (asymmetric steering). A flow's two directions write to different \
                 cache lines, counters are each CPU's own, and a table was locked {:.3} times a packet at most, to make each \
                 CPU's flow; with RCU off, {:.3} times. It is not for free: with perf_enable_percpu=0 a packet gets {:.2} \
                 lines, with nft-dnat {:.2}, and by that estimate they scale {} and {}.",
                most(&self.locks, |pair| pair.on),
                most(&self.locks, |pair| pair.off),
                other(&self.from_sharing),
                other(&self.from_kernel),
                range(&self.sharing),
                range(&self.kernel),
            ),
            "Not seen: time. CPUs are executed in turns, and of a line that two of them want the lens tells that it \
             moves, and not how long they wait. Where none moves there is nothing to wait for in the hooks but memory \
             and the last level, whose bandwidth is not modelled. What the kernel shares beyond the hooks (its links, \
             routes, sockets) is the same for every subject, and no part of this."
                .to_owned(),
        ]
    }
}

fn most(evidence: &Evidence, side: impl Fn(&Pair) -> f64) -> f64 {
    evidence.pairs.iter().map(side).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::cells::tests::cell;
    use crate::claims::claim::Holds;
    use mutexlab_model::traffic::Steering;

    const ON: (&str, &str) = ("perf_enable_percpu", "1");
    const OFF: (&str, &str) = ("perf_enable_percpu", "0");
    const RCU: (&str, &str) = ("perf_enable_rcu", "1");
    const NO_RCU: (&str, &str) = ("perf_enable_rcu", "0");

    fn one(
        subject: Subject,
        cpus: u32,
        parameters: Changes<'_>,
        cycles: f64,
        moved: f64,
    ) -> CellRecord {
        let metrics = [(CYCLES, cycles), (TRANSFERS, moved), (PATH_MEAN, 9_000.0)];
        let mut cell = cell(64, parameters, &metrics);
        let cpu = NonZeroU32::new(cpus).unwrap();
        cell.traffic.spread = Some(NonZeroU32::MIN);
        cell.traffic.steering = Steering::Asymmetric;
        cell.traffic = cell.traffic.on_cpus(cpu);
        (cell.subject, cell.cpus) = (subject, cpus);
        cell.counters = [
            ("packets_original", 50),
            ("packets_reply", 50),
            ("lock_acquisitions", 2),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        cell
    }

    /// Cells of which the module's on 16 CPUs has these numbers.
    fn judged(cycles: f64, moved: f64) -> Judged {
        let mut all = Vec::new();
        for cpus in [1, 16] {
            let (cycles, moved) = if cpus == 1 {
                (500.0, 0.0)
            } else {
                (cycles, moved)
            };
            all.extend([
                one(Subject::MODULE, cpus, &[ON, RCU], cycles, moved),
                one(Subject::MODULE, cpus, &[OFF, RCU], 800.0, 1.0),
                one(Subject::MODULE, cpus, &[ON, NO_RCU], 900.0, 2.0),
                one(Subject::NFT_DNAT, cpus, &[], 3_000.0, 3.0),
                one(Subject::NONE, cpus, &[], 200.0, 0.0),
            ]);
        }
        judge(Cells::new(&all)).unwrap()
    }

    #[test]
    fn more_cpus_must_do_nine_tenths_of_as_much_more() {
        // The probe's 200 are no part of it: 300 on one CPU, and 333 are 1.11 times that.
        for (cycles, verdict) in [
            (500.0, Holds::Held),
            (533.0, Holds::Held),
            (534.0, Holds::NotHeld),
        ] {
            assert_eq!(judged(cycles, 0.0).verdict, verdict, "{cycles}");
        }
        assert!(judged(500.0, 0.0).why[1].contains("gets no line"));
    }

    #[test]
    fn of_lines_that_move_it_is_not_known_how_long_they_are_waited_for() {
        let judged = judged(500.0, 0.5);
        assert_eq!(judged.verdict, Holds::CannotTell);
        assert!(
            judged.why[1].contains("gets 0.50 lines"),
            "{:?}",
            judged.why
        );
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let module = |cpus| one(Subject::MODULE, cpus, &[ON, RCU], 500.0, 0.0);
        let cells = [module(1), module(16)];
        assert!(judge(Cells::new(&cells)).is_err());
    }
}
