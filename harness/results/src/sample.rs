// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs for tests.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use mutexlab_model::mode::Mode;
use mutexlab_model::traffic::{Load, Traffic};
use mutexlab_model::verdict::Verdict;

use crate::closure::Closure;
use crate::metric::{Better, Kind, Unit};
use crate::slim::{Cell, CellBoot, Definition, Run};

/// A metric of one boot.
#[derive(Clone, Debug)]
pub struct MetricOfTest {
    pub name: &'static str,
    pub better: Better,
    pub kind: Kind,
    pub value: f64,
}

pub fn exact(name: &'static str, value: f64) -> MetricOfTest {
    MetricOfTest {
        name,
        better: Better::Lower,
        kind: Kind::Exact,
        value,
    }
}

pub fn sampled(name: &'static str, value: f64) -> MetricOfTest {
    MetricOfTest {
        kind: Kind::Sampled,
        ..exact(name, value)
    }
}

pub fn repeatable(name: &'static str, value: f64) -> MetricOfTest {
    MetricOfTest {
        kind: Kind::Repeatable,
        ..exact(name, value)
    }
}

/// A run of cells, each with its boots, each with its metrics.
pub fn run(cells: &[(&str, &[&[MetricOfTest]])]) -> Run {
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
            traffic: Traffic {
                load: Load::Closed {
                    round_trips: 10,
                    burst: 1,
                },
                warm_up: 1,
                ..Traffic::USUAL
            },
            boots: boots.collect(),
        };
        run.cells.insert((*id).to_owned(), cell);
    }
    run
}

pub fn closure() -> Closure {
    serde_json::from_str(include_str!("../../tests/sample/closure.json")).unwrap()
}
