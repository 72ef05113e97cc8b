// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file of golden counts: text, a cell a line, so that a diff of it can be read.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{bail, Context, Result};

use mutexlab_model::mode::Mode;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::lens_metrics::{INSTRUCTIONS, OURS_LINES, OURS_SHARED_WRITTEN};
use mutexlab_results::metric::{
    Better, Kind, Unit, FIRST_PACKET, FIRST_PACKET_P10, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN,
    ROUTER,
};
use mutexlab_results::slim::{Cell, CellBoot, Definition, Run};

/// The metrics that are kept, as far as they repeat: what tells of a change and is no sum of
/// others.
const METRICS: [&str; 15] = [
    HOOK_MEAN,
    FIRST_PACKET,
    FIRST_PACKET_P10,
    "hook.original.p50",
    "hook.original.p99.9",
    "hook.original.max",
    "hook.reply.p50",
    "hook.reply.p99.9",
    "hook.reply.max",
    MEMORY_PER_FLOW,
    INSTRUCTIONS,
    OURS_LINES,
    OURS_SHARED_WRITTEN,
    PATH_MEAN,
    ROUTER,
];

/// Those among them that are of the whole of a boot.
const OF_THEIR_BOOT: [&str; 2] = [PATH_MEAN, ROUTER];

/// What stands on top of every file.
const PREFACE: &str = "\
# Instructions a packet takes (memory: bytes a flow), a cell a line, the same on every machine.
# path.mean and router.packet move a little with anything that is before them: 1 % is a change.
# `just golden` measures them again; `just golden --update` accepts what moved.
";

/// The golden counts of one scenario on one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// What they were measured with: all that must be the same for them to be checked.
    pub conditions: BTreeMap<String, String>,
    /// Metrics by name, by the cell's id.
    pub cells: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Counts {
    /// What `run` says of a kernel. Cells that ended badly are left out.
    ///
    /// # Errors
    /// If the run counts no instructions, or if boots contradict each other.
    pub fn of(run: &Run, kernel: &str) -> Result<Self> {
        if run.mode != Mode::Virtual {
            bail!(
                "{} is of real time, which is other everywhere: golden counts are of mode \"virtual\"",
                run.scenario
            );
        }
        let closure = run.closure.kernels.get(kernel);
        let closure =
            closure.with_context(|| format!("the results do not tell of kernel {kernel}"))?;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let conditions = [
            ("scenario", run.scenario.clone()),
            ("mode", "virtual".to_owned()),
            ("kernel", kernel.to_owned()),
            ("release", closure.release.clone()),
            ("source", text(&closure.source_sha256)),
            ("config", closure.config_sha256.clone()),
            ("compiler", text(&closure.compiler)),
            ("rustc", text(&closure.rustc)),
            ("cpu", run.closure.qemu.cpu_model.clone()),
        ];
        let mut cells = BTreeMap::new();
        for (id, cell) in &run.cells {
            if cell.kernel == kernel && cell.verdict().0 == Verdict::Ok {
                cells.insert(id.clone(), metrics(run, id, cell)?);
            }
        }
        Ok(Self {
            conditions: conditions
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            cells,
        })
    }

    /// One of the conditions; empty if the file does not tell of it.
    pub fn condition(&self, name: &str) -> &str {
        self.conditions.get(name).map_or("", String::as_str)
    }

    /// What differs in the conditions, a line each.
    pub fn other_conditions(&self, now: &Self) -> Vec<String> {
        let mut names: Vec<_> = self
            .conditions
            .keys()
            .chain(now.conditions.keys())
            .collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| (name, self.condition(name), now.condition(name)))
            .filter(|(_, then, now)| then != now)
            .map(|(name, then, now)| format!("{name}: golden {then:?}, now {now:?}"))
            .collect()
    }

    /// The counts as a run, so that they can be compared; what cells are is taken from `like`.
    pub fn as_run(&self, like: &Run) -> Run {
        let definitions = METRICS.map(|name| {
            let known = like.definitions.iter().find(|known| known.name == name);
            known.cloned().unwrap_or_else(|| Definition {
                name: name.to_owned(),
                unit: Unit::InstructionsPerPacket,
                better: Better::Lower,
                kind: kind(name),
            })
        });
        let definitions = definitions.map(|definition| Definition {
            kind: kind(&definition.name),
            ..definition
        });
        let mut cells = BTreeMap::new();
        for (id, metrics) in &self.cells {
            // Of a cell that is not measured any more only the name is told.
            let Some(cell) = like.cells.get(id).or_else(|| like.cells.values().next()) else {
                continue;
            };
            let values = metrics.iter().filter_map(|(name, value)| {
                let index = METRICS.iter().position(|metric| metric == name)?;
                Some((index, *value))
            });
            let boot = CellBoot {
                verdict: Verdict::Ok,
                reason: None,
                values: values.collect(),
            };
            let cell = Cell {
                kernel: self.condition("kernel").to_owned(),
                traffic: cell.traffic,
                boots: [(1, boot)].into(),
            };
            cells.insert(id.clone(), cell);
        }
        Run {
            definitions: definitions.to_vec(),
            cells,
            ..Run::clone_without_cells(like)
        }
    }
}

/// The kind of one of [`METRICS`].
fn kind(name: &str) -> Kind {
    if OF_THEIR_BOOT.contains(&name) {
        Kind::Repeatable
    } else {
        Kind::Exact
    }
}

/// Those of [`METRICS`] that are of their kind.
fn metrics(run: &Run, id: &str, cell: &Cell) -> Result<BTreeMap<String, f64>> {
    let mut metrics = BTreeMap::new();
    for boot in cell.boots.values() {
        for &(index, value) in &boot.values {
            let definition = &run.definitions[index];
            let name = definition.name.as_str();
            if !METRICS.contains(&name) || definition.kind != kind(name) {
                continue;
            }
            let known = metrics.insert(name.to_owned(), value);
            if let Some(known) = known.filter(|known| *known != value) {
                bail!(
                    "{id}: {name} was {known} in one boot and {value} in another: it is not exact"
                );
            }
        }
    }
    Ok(metrics)
}

impl Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFACE)?;
        for (name, value) in &self.conditions {
            writeln!(formatter, "{name}: {value}")?;
        }
        writeln!(formatter)?;
        for (id, metrics) in &self.cells {
            formatter.write_str(id)?;
            for name in METRICS {
                if let Some(value) = metrics.get(name) {
                    write!(formatter, " {name}={value}")?;
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

impl FromStr for Counts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut counts = Self {
            conditions: BTreeMap::new(),
            cells: BTreeMap::new(),
        };
        let mut in_head = true;
        for (line, number) in text.lines().zip(1..) {
            if line.starts_with('#') {
                continue;
            }
            if line.is_empty() {
                in_head = false;
                continue;
            }
            let malformed = || format!("line {number}: {line:?} is not understood");
            if in_head {
                let (name, value) = line.split_once(": ").with_context(malformed)?;
                counts.conditions.insert(name.to_owned(), value.to_owned());
                continue;
            }
            let mut words = line.split(' ');
            let id = words.next().with_context(malformed)?;
            let mut metrics = BTreeMap::new();
            for word in words {
                let (name, value) = word.split_once('=').with_context(malformed)?;
                let value = value.parse().with_context(malformed)?;
                metrics.insert(name.to_owned(), value);
            }
            if counts.cells.insert(id.to_owned(), metrics).is_some() {
                bail!("line {number}: {id} is there twice");
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compare::difference::{Difference, Shown};
    use mutexlab_results::sample::{exact, repeatable, run, sampled};

    proptest! {
        #[test]
        fn what_is_written_is_read(
            cells in prop::collection::btree_map(
                "[a-z0-9/=,.-]{1,30}",
                prop::collection::btree_map(prop::sample::select(&METRICS[..]), -1e9..1e9_f64, 0..8),
                0..20,
            ),
            compiler in "[ -~]{1,40}",
        ) {
            let counts = Counts {
                conditions: [("compiler".to_owned(), compiler)].into(),
                cells: cells
                    .into_iter()
                    .map(|(id, metrics)| {
                        let metrics = metrics.into_iter();
                        (id, metrics.map(|(name, value)| (name.to_owned(), value)).collect())
                    })
                    .collect(),
            };
            prop_assert_eq!(counts.to_string().parse::<Counts>().unwrap(), counts);
        }
    }

    #[test]
    fn a_line_is_a_cell_with_its_exact_metrics() {
        let run = run(&[
            (
                "b",
                &[&[exact("hook.reply.max", 9.0), exact("hook.mean", 7.5)]],
            ),
            (
                "a",
                &[&[
                    exact("hook.mean", 7.0),
                    sampled("hook.reply.max", 3.0),
                    exact("other", 1.0),
                ]],
            ),
        ]);
        let text = Counts::of(&run, "7.3").unwrap().to_string();
        let lines: Vec<_> = text.lines().skip_while(|line| !line.is_empty()).collect();
        assert_eq!(
            lines,
            ["", "a hook.mean=7", "b hook.mean=7.5 hook.reply.max=9"]
        );
        assert!(text.contains("\nrelease: 7.3.4\n"), "{text}");
    }

    #[test]
    fn another_compiler_is_told() {
        let mut run = run(&[("a", &[&[exact("hook.mean", 7.0)]])]);
        let then = Counts::of(&run, "7.3").unwrap();
        assert!(then.other_conditions(&then).is_empty());
        run.closure.kernels.get_mut("7.3").unwrap().rustc = Some("another".into());
        let now = Counts::of(&run, "7.3").unwrap();
        let told = then.other_conditions(&now);
        assert_eq!(told, ["rustc: golden \"rustc\", now \"another\""]);
    }

    #[test]
    fn what_moves_is_found() {
        let then = run(&[
            ("a", &[&[exact("hook.mean", 7.0)]]),
            ("b", &[&[exact("hook.mean", 8.0)]]),
            ("gone", &[&[exact("hook.mean", 8.0)]]),
        ]);
        let now = run(&[
            ("a", &[&[exact("hook.mean", 7.0)]]),
            ("b", &[&[exact("hook.mean", 9.0)]]),
            ("new", &[&[exact("hook.mean", 8.0)]]),
        ]);
        let then = Counts::of(&then, "7.3").unwrap().as_run(&now);
        let new = Counts::of(&now, "7.3").unwrap().as_run(&now);
        let found = Difference::of(&then, &new, &Shown::default());
        assert_eq!(found.changed_cells, 1);
        assert_eq!(found.findings[0].cell, "b");
        assert_eq!(
            (found.only_a.as_slice(), found.only_b.as_slice()),
            (&["gone"][..], &["new"][..])
        );
    }

    #[test]
    fn the_whole_way_is_golden_to_one_percent() {
        let path = |value| repeatable(PATH_MEAN, value);
        let counts = |value| Counts::of(&run(&[("a", &[&[path(value)]])]), "7.3").unwrap();
        let now = run(&[("a", &[&[path(10_090.0)]])]);
        assert!(counts(10_000.0)
            .to_string()
            .ends_with("\na path.mean=10000\n"));
        for (then, changes) in [(10_000.0, 0), (9_900.0, 1)] {
            let then = counts(then).as_run(&now);
            let new = Counts::of(&now, "7.3").unwrap().as_run(&now);
            let found = Difference::of(&then, &new, &Shown::default());
            assert_eq!(found.changed_cells, changes);
        }
    }

    #[test]
    fn boots_that_differ_are_not_golden() {
        let run = run(&[(
            "a",
            &[&[exact("hook.mean", 7.0)], &[exact("hook.mean", 8.0)]],
        )]);
        let error = Counts::of(&run, "7.3").unwrap_err().to_string();
        assert!(error.contains("not exact"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        for (text, part) in [
            ("nonsense\n", "line 1"),
            ("a: b\n\nc d\n", "line 3"),
            ("a: b\n\nc d=e\n", "line 3"),
            ("\na b=1\na b=1\n", "twice"),
        ] {
            let error = format!("{:#}", text.parse::<Counts>().unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
