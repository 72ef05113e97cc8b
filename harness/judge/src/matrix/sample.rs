// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cells for tests.

use std::collections::BTreeMap;

use mutexlab_model::subject::Subject;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::{Better, Kind, Metric, Unit, HOOK_MEAN, PATH_MEAN};
use mutexlab_results::record::CellRecord;
use mutexlab_scenario::ScenarioFile;

/// Cells of `none`, `nft-dnat` and the module with one traffic on `kernel`: means of paths, and of
/// hooks.
pub fn cells(kernel: &str, paths: [f64; 3], hooks: [f64; 3]) -> Vec<CellRecord> {
    let root =
        mutexlab_host::paths::repository_above(std::path::Path::new(env!("CARGO_MANIFEST_DIR")))
            .unwrap();
    let scenario = ScenarioFile::load(&root.join("scenarios/quick.toml")).unwrap();
    let plan = mutexlab_scenario::plan::Plan::new(&scenario.scenario).unwrap();
    let traffic = plan.boots[0].cells[0].traffic;
    let metric = |name: &str, value| Metric {
        name: name.to_owned(),
        unit: Unit::InstructionsPerPacket,
        better: Better::Lower,
        kind: Kind::Exact,
        value,
    };
    [Subject::NONE, Subject::NFT_DNAT, Subject::MODULE]
        .into_iter()
        .zip(paths.into_iter().zip(hooks))
        .map(|(subject, (path, hook))| CellRecord {
            id: format!("{kernel}/1cpu/{}/{}", subject.name(), traffic.name()),
            boot: "boot".to_owned(),
            kernel: kernel.to_owned(),
            cpus: 1,
            repetition: 1,
            subject,
            parameters: BTreeMap::new(),
            traffic,
            verdict: Verdict::Ok,
            reason: None,
            delivery: None,
            metrics: vec![metric(PATH_MEAN, path), metric(HOOK_MEAN, hook)],
            hook_cost: None,
            latency: None,
            counters: BTreeMap::new(),
        })
        .collect()
}
