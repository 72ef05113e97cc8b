// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is kept of a results file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mutexlab_model::mode::Mode;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_scenario::caches::Machine;
use mutexlab_scenario::plan::Filter;

use crate::closure::Closure;
use crate::metric::{Better, Kind, Unit};

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
    /// Which cells were chosen, unless all were.
    pub filter: Option<Filter>,
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
