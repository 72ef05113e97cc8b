// SPDX-License-Identifier: MIT OR Apache-2.0

//! A results file as comparing reads it: record by record, each of which is let go before the next one
//! is read, with names borrowed from the file's text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::run::{Cell, CellBoot, Definition, Run};
use crate::closure::Closure;
use crate::metric::{Better, Kind, Unit};
use mutexlab_model::mode::Mode;
use mutexlab_model::traffic::{
    Checksum, Cloned, Ends, Family, Load, Payload, Popularity, Protocol, Steering, Traffic, Way,
};
use mutexlab_model::verdict::Verdict;
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::Filter;

/// A results file. `T` is how it tells of traffic.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de> + Into<Traffic>")]
pub struct File<T> {
    pub schema: u32,
    scenario: String,
    mode: Mode,
    started: String,
    filter: Option<Filter>,
    #[serde(default)]
    lens: Option<Machine>,
    closure: Closure,
    cells: Cells<T>,
}

impl<T> File<T> {
    /// The run, read from `path`.
    pub fn into_run(self, path: &Path) -> Run {
        Run {
            path: path.to_owned(),
            scenario: self.scenario,
            mode: self.mode,
            started: self.started,
            filter: self.filter,
            lens: self.lens,
            closure: self.closure,
            definitions: self.cells.definitions.known,
            cells: self.cells.cells,
        }
    }
}

/// The cells of a file, put together from their records.
struct Cells<T> {
    definitions: Definitions,
    cells: BTreeMap<String, Cell>,
    traffic: PhantomData<T>,
}

impl<'de, T: Deserialize<'de> + Into<Traffic>> Deserialize<'de> for Cells<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self {
            definitions: Definitions::default(),
            cells: BTreeMap::new(),
            traffic: PhantomData,
        })
    }
}

impl<'de, T: Deserialize<'de> + Into<Traffic>> Visitor<'de> for Cells<T> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of cells")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut records: A) -> Result<Self, A::Error> {
        while let Some(record) = records.next_element()? {
            self.take(record);
        }
        Ok(self)
    }
}

impl<T: Into<Traffic>> Cells<T> {
    fn take(&mut self, record: Record<'_, T>) {
        // Not collected, which would keep the larger records' memory.
        let mut values = Vec::with_capacity(record.metrics.len());
        for metric in &record.metrics {
            values.push((self.definitions.index(metric), metric.value));
        }
        let boot = CellBoot {
            verdict: record.verdict,
            reason: record.reason,
            values,
        };
        let cell = self.cells.entry(record.id.into_owned());
        let cell = cell.or_insert_with(|| Cell {
            kernel: record.kernel.into_owned(),
            traffic: record.traffic.into(),
            boots: BTreeMap::new(),
        });
        cell.boots.insert(record.repetition, boot);
    }
}

/// What the metrics are, in the order in which the file first names them.
#[derive(Default)]
struct Definitions {
    known: Vec<Definition>,
    /// Which is likely to come next: records name metrics in the same order.
    next: usize,
}

impl Definitions {
    /// The place of a metric's definition. A name may mean an exact number in one cell and a sampled one
    /// in another: these are two.
    fn index(&mut self, metric: &MetricRecord<'_>) -> usize {
        let is = |known: &Definition| {
            (known.unit, known.better, known.kind) == (metric.unit, metric.better, metric.kind)
                && known.name == metric.name
        };
        let index = if self.known.get(self.next).is_some_and(is) {
            self.next
        } else {
            self.known.iter().position(is).unwrap_or(self.known.len())
        };
        if index == self.known.len() {
            self.known.push(Definition {
                name: metric.name.clone().into_owned(),
                unit: metric.unit,
                better: metric.better,
                kind: metric.kind,
            });
        }
        self.next = index + 1;
        index
    }
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
pub struct OldTraffic {
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
            spread: None,
            steering: Steering::Symmetric,
            popularity: Popularity::Uniform,
            load: Load::Closed {
                round_trips: old.round_trips,
                burst: old.burst,
            },
            checksum: Checksum::None,
            cloned: Cloned::No,
            warm_up: old.warm_up,
        }
    }
}
