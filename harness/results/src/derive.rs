// SPDX-License-Identifier: MIT OR Apache-2.0

//! What follows from several cells together.

use std::collections::HashMap;

use super::metrics;
use super::record::CellRecord;
use crate::metric::{PATH_MEAN, PATH_OVER_NONE};
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Traffic;

/// Gives each cell what its path takes more than that of `none`, wherever that is known: the same
/// kernel, CPUs, repetition and traffic.
pub fn path_over_none(cells: &mut [CellRecord], mode: Mode) {
    type Key = (String, u32, u32, Traffic);
    let key = |cell: &CellRecord| -> Key {
        (
            cell.kernel.clone(),
            cell.cpus,
            cell.repetition,
            cell.traffic,
        )
    };
    let paths: HashMap<Key, f64> = cells
        .iter()
        .filter(|cell| cell.subject == Subject::NONE)
        .filter_map(|cell| Some((key(cell), cell.metric(PATH_MEAN)?)))
        .collect();
    for cell in cells {
        if cell.subject == Subject::NONE || cell.metric(PATH_OVER_NONE).is_some() {
            continue;
        }
        if let (Some(path), Some(none)) = (cell.metric(PATH_MEAN), paths.get(&key(cell))) {
            cell.metrics
                .push(metrics::path_over_none(path, *none, mode));
        }
    }
}
