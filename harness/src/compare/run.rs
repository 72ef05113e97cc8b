// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comparing needs of a results file: much less than is in it. Histograms, counters and
//! console reports are skipped while reading, and every metric's name is kept once, so that two
//! runs of ten thousand cells fit into a fraction of their files' size.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::lens::machine::Machine;
use crate::plan::Plan;
use crate::results::closure::Closure;
use crate::results::metrics::{Better, Kind, Unit};
use crate::results::record::SCHEMA;
use crate::scenario::{Mode, ScenarioFile};
use crate::traffic::{Ends, Family, Load, Payload, Popularity, Protocol, Traffic, Way};
use crate::verdict::Verdict;

/// The run of a results file.
#[derive(Clone, Debug)]
pub struct Run {
    /// The file.
    pub path: PathBuf,
    /// The scenario's name.
    pub scenario: String,
    /// What time is counted in.
    pub mode: Mode,
    /// When the run began.
    pub started: String,
    /// A part of the ids of the cells that were chosen, unless all were.
    pub filter: Option<String>,
    /// The caches that the lens modelled, if it looked on.
    pub lens: Option<Machine>,
    /// Everything that the numbers depend on.
    pub closure: Closure,
    /// What the metrics are, in the order in which the file first names them.
    pub definitions: Vec<Definition>,
    /// The cells by id.
    pub cells: BTreeMap<String, Cell>,
}

/// What a metric is, apart from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// Whether a repetition must give the same number.
    pub kind: Kind,
}

/// A cell in all its boots.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The kernel's name.
    pub kernel: String,
    /// The packets.
    pub traffic: Traffic,
    /// What it gave in each boot, by repetition.
    pub boots: BTreeMap<u32, CellBoot>,
}

/// A cell in one boot.
#[derive(Clone, Debug)]
pub struct CellBoot {
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless it is ok.
    pub reason: Option<String>,
    /// Index of the definition, and the number.
    pub values: Vec<(usize, f64)>,
}

impl Cell {
    /// Its worst end, and why.
    pub fn verdict(&self) -> (Verdict, Option<&str>) {
        let worst = self.boots.values().max_by_key(|boot| boot.verdict);
        worst.map_or((Verdict::Infra, None), |boot| {
            (boot.verdict, boot.reason.as_deref())
        })
    }
}

impl Run {
    /// Reads a results file, also of the format before this program's.
    ///
    /// # Errors
    /// If it cannot be read or is no results file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Reads a results file's text.
    ///
    /// # Errors
    /// If it is not the text of a results file.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: Option<u32>,
        }
        let wrong = match serde_json::from_str::<File<'_, Traffic>>(text) {
            Ok(file) if file.schema == SCHEMA => return Ok(file.into_run(path)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let version: Version = serde_json::from_str(text)
            .with_context(|| format!("{} is no JSON object", path.display()))?;
        match (version.schema, wrong) {
            (Some(1), _) => serde_json::from_str::<File<'_, OldTraffic>>(text)
                .map(|file| file.into_run(path))
                .with_context(|| format!("{} is no results file", path.display())),
            (Some(SCHEMA), Some(error)) => {
                Err(error).with_context(|| format!("{} is no results file", path.display()))
            }
            (schema, _) => bail!(
                "{} is of schema {schema:?}, but this program reads 1 to {SCHEMA}",
                path.display()
            ),
        }
    }

    /// All that is not about cells.
    #[must_use]
    pub fn clone_without_cells(other: &Self) -> Self {
        Self {
            path: other.path.clone(),
            scenario: other.scenario.clone(),
            mode: other.mode,
            started: other.started.clone(),
            filter: other.filter.clone(),
            lens: other.lens,
            closure: other.closure.clone(),
            definitions: Vec::new(),
            cells: BTreeMap::new(),
        }
    }

    /// Whether every cell of `scenario` with `filter` in its id was measured to its end.
    ///
    /// # Errors
    /// If the scenario amounts to nothing.
    pub fn is_complete(&self, scenario: &ScenarioFile, filter: Option<&str>) -> Result<bool> {
        let plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        Ok(plan.boots.iter().all(|boot| {
            boot.cells
                .iter()
                .filter(|cell| filter.is_none_or(|part| cell.id.contains(part)))
                .all(|planned| {
                    let cell = self.cells.get(&planned.id);
                    let record = cell.and_then(|cell| cell.boots.get(&boot.repetition));
                    record.is_some_and(|record| record.verdict != Verdict::Infra)
                })
        }))
    }
}

#[derive(Deserialize)]
struct File<'a, T> {
    schema: u32,
    #[serde(borrow)]
    scenario: Cow<'a, str>,
    mode: Mode,
    started: String,
    filter: Option<String>,
    #[serde(default)]
    lens: Option<Machine>,
    closure: Closure,
    #[serde(borrow)]
    cells: Vec<Record<'a, T>>,
}

#[derive(Deserialize)]
struct Record<'a, T> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kernel: Cow<'a, str>,
    repetition: u32,
    traffic: T,
    verdict: Verdict,
    reason: Option<String>,
    #[serde(borrow)]
    metrics: Vec<MetricRecord<'a>>,
}

#[derive(Deserialize)]
struct MetricRecord<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    unit: Unit,
    better: Better,
    kind: Kind,
    value: f64,
}

/// Traffic of schema 1: on the wire, in a closed loop, as all was then.
#[derive(Deserialize)]
struct OldTraffic {
    way: Way,
    family: Family,
    protocol: Protocol,
    payload: u16,
    #[serde(default = "one")]
    flows: u32,
    round_trips: u32,
    warm_up: u32,
    #[serde(default = "one")]
    burst: u32,
}

const fn one() -> u32 {
    1
}

impl From<OldTraffic> for Traffic {
    fn from(old: OldTraffic) -> Self {
        Self {
            ends: Ends::Wire,
            way: old.way,
            family: old.family,
            protocol: old.protocol,
            payload: Payload::Bytes(old.payload),
            flows: old.flows,
            popularity: Popularity::Uniform,
            load: Load::Closed {
                round_trips: old.round_trips,
                burst: old.burst,
            },
            warm_up: old.warm_up,
        }
    }
}

impl<T: Into<Traffic>> File<'_, T> {
    fn into_run(self, path: &Path) -> Run {
        // A name may mean an exact number in one cell and a sampled one in another.
        let mut known: HashMap<Cow<'_, str>, Vec<usize>> = HashMap::new();
        let mut definitions: Vec<Definition> = Vec::new();
        let mut cells: BTreeMap<String, Cell> = BTreeMap::new();
        for record in self.cells {
            // Not collected, which would keep the larger records' memory.
            let mut values = Vec::with_capacity(record.metrics.len());
            for metric in record.metrics {
                let of_name = known.entry(metric.name).or_insert_with_key(|name| {
                    definitions.push(Definition {
                        name: name.clone().into_owned(),
                        unit: metric.unit,
                        better: metric.better,
                        kind: metric.kind,
                    });
                    vec![definitions.len() - 1]
                });
                let same = |index: &&usize| {
                    let known = &definitions[**index];
                    (known.unit, known.better, known.kind)
                        == (metric.unit, metric.better, metric.kind)
                };
                let index = of_name.iter().find(same).copied();
                let index = index.unwrap_or_else(|| {
                    definitions.push(Definition {
                        name: definitions[of_name[0]].name.clone(),
                        unit: metric.unit,
                        better: metric.better,
                        kind: metric.kind,
                    });
                    of_name.push(definitions.len() - 1);
                    definitions.len() - 1
                });
                values.push((index, metric.value));
            }
            let boot = CellBoot {
                verdict: record.verdict,
                reason: record.reason,
                values,
            };
            let cell = cells.entry(record.id.into_owned()).or_insert_with(|| Cell {
                kernel: record.kernel.into_owned(),
                traffic: record.traffic.into(),
                boots: BTreeMap::new(),
            });
            cell.boots.insert(record.repetition, boot);
        }
        Run {
            path: path.to_owned(),
            scenario: self.scenario.into_owned(),
            mode: self.mode,
            started: self.started,
            filter: self.filter,
            lens: self.lens,
            closure: self.closure,
            definitions,
            cells,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::qemu::Accelerator;
    use crate::results::closure::{Host, KernelClosure, QemuClosure};

    /// A metric of one boot.
    #[derive(Clone, Debug)]
    pub(crate) struct MetricOfTest {
        pub(crate) name: &'static str,
        pub(crate) better: Better,
        pub(crate) kind: Kind,
        pub(crate) value: f64,
    }

    pub(crate) fn exact(name: &'static str, value: f64) -> MetricOfTest {
        MetricOfTest {
            name,
            better: Better::Lower,
            kind: Kind::Exact,
            value,
        }
    }

    pub(crate) fn sampled(name: &'static str, value: f64) -> MetricOfTest {
        MetricOfTest {
            kind: Kind::Sampled,
            ..exact(name, value)
        }
    }

    /// A run of cells, each with its boots, each with its metrics.
    pub(crate) fn run(cells: &[(&str, &[&[MetricOfTest]])]) -> Run {
        let mut run = Run {
            path: "a.json".into(),
            scenario: "quick".into(),
            mode: Mode::Virtual,
            started: "2026-11-24T00:00:00Z".into(),
            filter: None,
            lens: None,
            closure: closure(),
            definitions: Vec::new(),
            cells: BTreeMap::new(),
        };
        for (id, boots) in cells {
            let boots = boots.iter().zip(1..).map(|(metrics, repetition)| {
                let mut values = Vec::new();
                for metric in *metrics {
                    let definition = Definition {
                        name: metric.name.to_owned(),
                        unit: Unit::InstructionsPerPacket,
                        better: metric.better,
                        kind: metric.kind,
                    };
                    let known = run
                        .definitions
                        .iter()
                        .position(|known| *known == definition);
                    let index = known.unwrap_or_else(|| {
                        run.definitions.push(definition);
                        run.definitions.len() - 1
                    });
                    values.push((index, metric.value));
                }
                let boot = CellBoot {
                    verdict: Verdict::Ok,
                    reason: None,
                    values,
                };
                (repetition, boot)
            });
            let cell = Cell {
                kernel: "7.3".into(),
                traffic: Traffic::from(OldTraffic {
                    way: Way::Forward,
                    family: Family::V4,
                    protocol: Protocol::Udp,
                    payload: 64,
                    flows: 1,
                    round_trips: 10,
                    warm_up: 1,
                    burst: 1,
                }),
                boots: boots.collect(),
            };
            run.cells.insert((*id).to_owned(), cell);
        }
        run
    }

    pub(crate) fn closure() -> Closure {
        Closure {
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            dirty: false,
            harness: None,
            harness_sha256: "a".repeat(64),
            kernels: [(
                "7.3".to_owned(),
                KernelClosure {
                    release: "7.3.4".into(),
                    source_sha256: Some("b".repeat(64)),
                    config_sha256: "c".repeat(64),
                    image_sha256: "d".repeat(64),
                    compiler: Some("clang".into()),
                    rustc: Some("rustc".into()),
                    bindgen: None,
                    modules: BTreeMap::new(),
                },
            )]
            .into(),
            virtme_ng: "virtme-ng 1.42".into(),
            nft: "nftables v1".into(),
            qemu: QemuClosure {
                version: "QEMU 7.2".into(),
                accelerator: Accelerator::TcgIcount,
                cpu_model: "Haswell-v4".into(),
                arguments: "-icount shift=0".into(),
            },
            host: Host {
                kernel: "6.1".into(),
                architecture: "x86_64".into(),
                cpu: "a CPU".into(),
                cpus: 2,
            },
            seeds: BTreeMap::new(),
            scenario_text: "question = \"?\"".into(),
        }
    }

    #[test]
    fn a_file_of_an_unknown_schema_is_refused() {
        for (text, part) in [
            ("{\"schema\": 99}", "schema Some(99)"),
            ("{}", "schema None"),
            ("[]", "no JSON object"),
            ("{\"schema\": 1}", "no results file"),
        ] {
            let error = Run::parse(Path::new("a.json"), text).unwrap_err();
            let error = format!("{error:#}");
            assert!(
                error.starts_with("a.json") && error.contains(part),
                "{error}"
            );
        }
    }
}
