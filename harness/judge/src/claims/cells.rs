// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cells of a scenario, compared by what differs between them.

use anyhow::{Context, Result};

use super::claim::{Evidence, Pair, Unit};
use mutexlab_model::subject::Subject;
use mutexlab_results::record::CellRecord;

/// Values of parameters that are not the scenario's first.
pub type Changes<'a> = &'a [(&'a str, &'a str)];

/// Cells that all ended well.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a>(&'a [CellRecord]);

impl<'a> Cells<'a> {
    /// Some.
    pub const fn new(cells: &'a [CellRecord]) -> Self {
        Self(cells)
    }

    /// The module's cells with the scenario's first values of all parameters.
    pub fn defaults(self) -> impl Iterator<Item = &'a CellRecord> {
        let is_module = |cell: &&CellRecord| cell.subject == Subject::MODULE;
        let first = self.0.iter().find(is_module);
        self.0.iter().filter(is_module).filter(move |cell| {
            first.is_some_and(|first| {
                // What a cell's flows need is not a choice of the scenario's.
                let chosen = |name: &String| first.parameters.contains_key(name);
                let of = |cell: &CellRecord| {
                    let mut parameters = cell.parameters.clone();
                    parameters.retain(|name, _| chosen(name));
                    parameters
                };
                of(cell) == of(first)
            })
        })
    }

    /// The cell like `default` but for `changes`.
    ///
    /// # Errors
    /// If there is none.
    pub fn like(self, default: &CellRecord, changes: Changes<'_>) -> Result<&'a CellRecord> {
        let mut parameters = default.parameters.clone();
        for &(name, value) in changes {
            parameters.insert(name.to_owned(), value.to_owned());
        }
        self.0
            .iter()
            .find(|cell| {
                cell.subject == default.subject
                    && cell.cpus == default.cpus
                    && cell.traffic == default.traffic
                    && cell.parameters == parameters
            })
            .with_context(|| format!("no cell was measured like {} with {changes:?}", default.id))
    }

    /// The cell of another subject like `default`.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_subject(self, default: &CellRecord, subject: &Subject) -> Result<&'a CellRecord> {
        self.0
            .iter()
            .find(|cell| {
                cell.subject == *subject
                    && cell.cpus == default.cpus
                    && cell.traffic == default.traffic
            })
            .with_context(|| {
                format!(
                    "no cell of {} was measured like {}",
                    subject.name(),
                    default.id
                )
            })
    }

    /// A cell of no subject at all on so many CPUs, in whatever traffic: what the probe itself takes.
    ///
    /// # Errors
    /// If there is none.
    pub fn empty(self, cpus: u32) -> Result<&'a CellRecord> {
        let mut cells = self.0.iter();
        let cell = cells.find(|cell| cell.subject == Subject::NONE && cell.cpus == cpus);
        cell.with_context(|| format!("nothing was measured without a subject on {cpus} CPUs"))
    }

    /// `metric` with `off` and with `on`, in every traffic.
    ///
    /// # Errors
    /// If a cell or its metric is missing.
    pub fn compare(
        self,
        metric: &str,
        off: (&str, Changes<'_>),
        on: (&str, Changes<'_>),
    ) -> Result<Evidence> {
        let pairs = self
            .defaults()
            .map(|default| {
                Ok(Pair {
                    at: default.traffic.name(),
                    off: value(self.like(default, off.1)?, metric)?,
                    on: value(self.like(default, on.1)?, metric)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        evidence(metric, off.0, on.0, pairs)
    }

    /// `metric` of another subject and of the module, in every traffic.
    ///
    /// # Errors
    /// If a cell or its metric is missing.
    pub fn compare_subject(self, metric: &str, subject: &Subject) -> Result<Evidence> {
        let pairs = self
            .defaults()
            .map(|default| {
                Ok(Pair {
                    at: default.traffic.name(),
                    off: value(self.of_subject(default, subject)?, metric)?,
                    on: value(default, metric)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        evidence(metric, subject.name(), "module", pairs)
    }
}

/// Evidence of a scenario's metric.
///
/// # Errors
/// If there is no pair.
pub fn evidence(metric: &str, off: &str, on: &str, pairs: Vec<Pair>) -> Result<Evidence> {
    if pairs.is_empty() {
        return Err(anyhow::anyhow!("nothing was measured of {metric}"));
    }
    Ok(Evidence {
        metric: metric.to_owned(),
        unit: Unit::InstructionsPerPacket,
        off: off.to_owned(),
        on: on.to_owned(),
        pairs,
    })
}

/// A metric of a cell.
///
/// # Errors
/// If it has none of that name.
pub fn value(cell: &CellRecord, metric: &str) -> Result<f64> {
    cell.metric(metric)
        .with_context(|| format!("{} has no {metric}", cell.id))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use mutexlab_model::traffic::{
        Checksum, Cloned, Ends, Family, Load, Payload, Popularity, Protocol, Steering, Traffic, Way,
    };
    use mutexlab_model::verdict::Verdict;
    use mutexlab_results::metric::{Better, Kind, Metric, Unit, HOOK_MEAN};

    /// A cell of the module with these parameters and metrics.
    pub fn cell(payload: u16, parameters: Changes<'_>, metrics: &[(&str, f64)]) -> CellRecord {
        let text = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        CellRecord {
            id: format!("{parameters:?}-{payload}"),
            boot: String::new(),
            kernel: "7.3".to_owned(),
            cpus: 1,
            repetition: 1,
            subject: Subject::MODULE,
            parameters: parameters.iter().map(text).collect(),
            traffic: Traffic {
                way: Way::Forward,
                family: Family::V4,
                protocol: Protocol::Udp,
                payload: Payload::Bytes(payload),
                flows: 1,
                spread: None,
                steering: Steering::Symmetric,
                load: Load::Closed {
                    round_trips: 10,
                    burst: 1,
                },
                warm_up: 0,
                ends: Ends::Wire,
                popularity: Popularity::Uniform,
                checksum: Checksum::None,
                cloned: Cloned::No,
            },
            verdict: Verdict::Ok,
            reason: None,
            delivery: None,
            metrics: metrics
                .iter()
                .map(|&(name, value)| Metric {
                    name: name.to_owned(),
                    unit: Unit::InstructionsPerPacket,
                    better: Better::Lower,
                    kind: Kind::Exact,
                    value,
                })
                .collect(),
            hook_cost: None,
            latency: None,
            counters: BTreeMap::new(),
        }
    }

    #[test]
    fn what_differs_in_one_parameter_is_compared_for_each_traffic() {
        let of = |payload, rcu, copy, value| {
            cell(
                payload,
                &[("rcu", rcu), ("copy", copy)],
                &[(HOOK_MEAN, value)],
            )
        };
        let cells = [
            of(64, "1", "1", 100.0),
            of(64, "1", "0", 400.0),
            of(64, "0", "1", 200.0),
            of(1400, "0", "1", 300.0),
            of(1400, "1", "1", 100.0),
        ];
        let cells = Cells(&cells);
        let locking: Changes<'_> = &[("rcu", "0")];
        let evidence = cells.compare(HOOK_MEAN, ("off", locking), ("on", &[]));
        let pairs: Vec<(f64, f64)> = evidence
            .unwrap()
            .pairs
            .iter()
            .map(|pair| (pair.off, pair.on))
            .collect();
        assert_eq!(pairs, [(200.0, 100.0), (300.0, 100.0)]);
        let missing = cells.compare(HOOK_MEAN, ("off", &[("copy", "0")]), ("on", &[]));
        assert!(missing.unwrap_err().to_string().contains("copy"));
        assert!(cells
            .compare("no.metric", ("off", locking), ("on", &[]))
            .is_err());
        let nothing: Changes<'_> = &[];
        assert!(Cells(&[])
            .compare(HOOK_MEAN, ("off", nothing), ("on", nothing))
            .is_err());
    }
}
