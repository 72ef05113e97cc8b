// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is demanded of the instrument, and whether it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::cells::{ballast_suffix, BALLASTS, DEEDS, DELAY, EVERY, PACKETS};
use crate::compare::comparable::Comparable;
use crate::compare::difference::{Difference, Shown};
use mutexlab_draw::table::Style;
use mutexlab_model::measured::HookCost;
use mutexlab_model::subject::Subject;
use mutexlab_model::verdict::Verdict;
use mutexlab_protocol::Deed;
use mutexlab_results::metric::Kind;
use mutexlab_results::record::{CellRecord, Results};
use mutexlab_results::slim::Run;
use mutexlab_results::travel::{DUPLICATES, LOSS, REORDERED};

/// A property of the instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Boots of the same agree in every exact metric. Not in those of a boot: the first boots have cells of their own beside.
    Repeatable,
    /// Instructions that are put into the path are read, all and no others.
    Exact,
    /// A comparison of the same finds nothing.
    Silent,
    /// A server that misbehaves is told of, each packet of it.
    Told,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// How many numbers were looked at; a check of nothing is none.
    pub compared: usize,
    /// What is not as it should be.
    pub faults: Vec<String>,
}

impl Finding {
    /// Whether the property holds.
    pub fn passed(&self) -> bool {
        self.compared > 0 && self.faults.is_empty()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        let word = if self.passed() {
            Style::Good.paint("holds")
        } else {
            Style::Bad.paint("FAILS")
        };
        writeln!(
            formatter,
            "{word}  {} ({} numbers)",
            self.check.demand(),
            self.compared
        )?;
        for fault in self.faults.iter().take(SHOWN) {
            writeln!(formatter, "         {fault}")?;
        }
        if self.faults.len() > SHOWN {
            writeln!(formatter, "         and {} more", self.faults.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Repeatable, Self::Exact, Self::Silent, Self::Told];

    /// What is demanded, for a person.
    const fn demand(self) -> &'static str {
        match self {
            Self::Repeatable => "three boots of the same give the same numbers",
            Self::Exact => {
                "1, 10 and 100 instructions more in the path are read as 1, 10 and 100 more"
            }
            Self::Silent => "comparing a commit with itself finds nothing",
            Self::Told => {
                "answers that are dropped, delayed, doubled, overtaken or damaged on purpose are told of"
            }
        }
    }

    /// Judges what was measured.
    pub fn judge(self, results: &Results) -> Finding {
        let mut finding = Finding {
            check: self,
            compared: 0,
            faults: Vec::new(),
        };
        match self {
            Self::Repeatable => repeatable(results, &mut finding),
            Self::Exact => exact(results, &mut finding),
            Self::Silent => silent(results, &mut finding),
            Self::Told => told(results, &mut finding),
        }
        finding
    }
}

/// The good cells among `cells`; the others are faults.
fn good<'a>(
    cells: impl Iterator<Item = &'a CellRecord>,
    finding: &mut Finding,
) -> Vec<&'a CellRecord> {
    cells
        .filter(|cell| {
            let ok = cell.verdict == Verdict::Ok;
            if !ok {
                let reason = cell.reason.as_deref().unwrap_or("no reason given");
                finding
                    .faults
                    .push(format!("{} is {}: {reason}", cell.id, cell.verdict));
            }
            ok
        })
        .collect()
}

fn repeatable(results: &Results, finding: &mut Finding) {
    let ordinary = results.cells.iter().filter(|cell| !cell.id.contains('+'));
    let mut boots: BTreeMap<&str, Vec<&CellRecord>> = BTreeMap::new();
    for cell in good(ordinary, finding) {
        boots.entry(&cell.id).or_default().push(cell);
    }
    for (id, cells) in boots {
        let Some((first, others)) = cells.split_first() else {
            continue;
        };
        if others.is_empty() {
            finding.faults.push(format!("{id} was measured once only"));
        }
        let exact = |metric: &&mutexlab_results::metric::Metric| metric.kind == Kind::Exact;
        for metric in first.metrics.iter().filter(exact) {
            for other in others {
                finding.compared += 1;
                let value = other.metric(&metric.name);
                if value != Some(metric.value) {
                    finding.faults.push(format!(
                        "{id}: {} is {} in boot {} and {} in boot {}",
                        metric.name,
                        metric.value,
                        first.repetition,
                        value.map_or("missing".to_owned(), |value| value.to_string()),
                        other.repetition
                    ));
                }
            }
        }
    }
}

fn exact(results: &Results, finding: &mut Finding) {
    let bases = results.cells.iter().filter(|cell| {
        cell.repetition == 1
            && [Subject::NONE, Subject::MODULE].contains(&cell.subject)
            && !cell.id.contains('+')
    });
    for base in good(bases, finding) {
        for ballast in BALLASTS {
            let id = base.id.clone() + &ballast_suffix(ballast);
            let cell = results.cells.iter().filter(|cell| cell.id == id);
            let cells = good(cell, finding);
            let (Some(cell), Some(without)) = (cells.first(), &base.hook_cost) else {
                finding.faults.push(format!("{id} was not measured"));
                continue;
            };
            let Some(with) = &cell.hook_cost else {
                continue;
            };
            for (direction, without, with) in [
                ("there", &without.original, &with.original),
                ("back", &without.reply, &with.reply),
            ] {
                for (statistic, of) in STATISTICS {
                    finding.compared += 1;
                    let (wanted, read) = (of(without) + u64::from(ballast), of(with));
                    if read != wanted {
                        finding.faults.push(format!(
                            "{id}, {direction}: {statistic} is {read} instead of {wanted}"
                        ));
                    }
                }
            }
        }
    }
}

/// Each deed, and no other, shows in the numbers that are about it.
fn told(results: &Results, finding: &mut Finding) {
    let befallen = f64::from(PACKETS / EVERY);
    for (suffix, deed) in DEEDS {
        let Some(cell) = results.cells.iter().find(|cell| cell.id.ends_with(suffix)) else {
            finding
                .faults
                .push(format!("no cell {suffix} was measured"));
            continue;
        };
        if deed == Some(Deed::Corrupt) {
            finding.compared += 1;
            let reason = cell.reason.as_deref().unwrap_or_default();
            if cell.verdict != Verdict::Failed {
                finding.faults.push(format!(
                    "{} is {} though answers were damaged: {reason}",
                    cell.id, cell.verdict
                ));
            }
            continue;
        }
        if good(std::iter::once(cell), finding).is_empty() {
            continue;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a millisecond is few nanoseconds"
        )]
        let late = |name: &str| cell.metric(name).map(|time| time >= DELAY as f64);
        for (what, read, wanted) in [
            (
                "loss",
                cell.metric(LOSS),
                Some(if deed == Some(Deed::Drop) {
                    befallen
                } else {
                    0.0
                }),
            ),
            (
                "duplicates",
                cell.metric(DUPLICATES),
                Some(if deed == Some(Deed::Duplicate) {
                    befallen
                } else {
                    0.0
                }),
            ),
            (
                "reordered",
                cell.metric(REORDERED),
                // Who is delayed is overtaken by others as well; the last of them by nobody.
                match deed {
                    Some(Deed::Reorder) => Some(befallen),
                    Some(Deed::Delay(_)) => None,
                    _ => Some(0.0),
                },
            ),
        ] {
            let Some(wanted) = wanted else { continue };
            finding.compared += 1;
            if read != Some(wanted) {
                finding.faults.push(format!(
                    "{}: {what} is {} instead of {wanted}",
                    cell.id,
                    read.map_or("missing".to_owned(), |read| read.to_string())
                ));
            }
        }
        let delayed = matches!(deed, Some(Deed::Delay(_)));
        for (name, wanted) in [("latency.p50", false), ("latency.p95", delayed)] {
            finding.compared += 1;
            if late(name) != Some(wanted) {
                let value = cell.metric(name);
                finding.faults.push(format!(
                    "{}: {name} is {value:?} ns, {} a delay of {DELAY} ns of every tenth answer",
                    cell.id,
                    if delayed { "with" } else { "without" }
                ));
            }
        }
    }
}

/// Compares the first boot with the second, as files.
fn silent(results: &Results, finding: &mut Finding) {
    let of_boot = |repetition: u32| {
        let of = |cell: &&CellRecord| cell.repetition == repetition && !cell.id.contains('+');
        let cells = results.cells.iter().filter(of);
        let results = Results {
            cells: cells
                .map(|cell| CellRecord {
                    repetition: 1,
                    ..cell.clone()
                })
                .collect(),
            ..results.clone()
        };
        let text = serde_json::to_string(&results)?;
        Run::parse(Path::new("selfcheck"), &text)
    };
    let (a, b) = match (of_boot(1), of_boot(2)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            return finding
                .faults
                .push(format!("compare cannot read it: {error:#}"));
        }
    };
    finding
        .faults
        .extend(Comparable::check(&a, &b, false).refusals);
    let shown = Shown {
        all: true,
        ..Shown::default()
    };
    let difference = Difference::of(&a, &b, &shown);
    for change in &difference.findings {
        finding.compared += 1;
        if change.judgement.is_change() {
            finding.faults.push(format!(
                "{}: {} is called {:?}",
                change.cell,
                change.change.metric().unwrap_or("the verdict"),
                change.judgement
            ));
        }
    }
}

type Statistic = (&'static str, fn(&HookCost) -> u64);

/// The cheapest and the dearest packet: none in between can be wrong if neither is, unless the
/// histogram is.
const STATISTICS: [Statistic; 3] = [
    ("the cheapest packet", |cost| cost.min),
    ("the median", |cost| {
        cost.histogram.percentile(50_000).unwrap_or(u64::MAX / 2)
    }),
    ("the dearest packet", |cost| cost.max),
];
