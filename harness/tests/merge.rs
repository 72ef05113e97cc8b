// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shards of a run, joined, are the run.

mod sample;

use std::fs;
use std::path::Path;

use mutexlab::commands::document::Document;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::merge::merge;
use mutexlab_results::record::Results;
use mutexlab_scenario::caches::{Machine, Shape};
use mutexlab_scenario::plan::{Plan, Shard};
use mutexlab_scenario::ScenarioFile;
use proptest::prelude::*;

fn quick() -> ScenarioFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/quick.toml");
    ScenarioFile::load(Path::new(path)).unwrap()
}

/// What `count` machines measure of scenarios/quick.toml, each its shard.
fn shards(count: usize) -> Vec<(String, Results)> {
    let scenario = quick();
    (1..=count)
        .map(|index| {
            let shard: Shard = format!("{index}/{count}").parse().unwrap();
            let mut plan = Plan::new(&scenario.scenario).unwrap();
            plan.shard(shard);
            let mut results = sample::results(&scenario, &plan);
            results.shard = Some(shard.to_string());
            results.started = format!("2026-11-23T10:{index:02}:00Z");
            for boot in &mut results.boots {
                boot.seconds = f64::from(u32::try_from(index).unwrap());
            }
            results.closure.host.cpu = format!("CPU of machine {index}");
            (format!("{index}.json"), results)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_files_does_not_matter(
        (sorted, shuffled) in (1_usize..6).prop_flat_map(|count| {
            (Just(shards(count)), Just(shards(count)).prop_shuffle())
        })
    ) {
        prop_assert_eq!(merge(sorted).unwrap(), merge(shuffled).unwrap());
    }
}

#[test]
fn all_shards_are_the_whole_run() {
    let scenario = quick();
    let plan = Plan::new(&scenario.scenario).unwrap();
    let whole = sample::results(&scenario, &plan);
    for count in [1, 2, 5, 24] {
        let merged = merge(shards(count)).unwrap();
        assert_eq!(merged.shard, None);
        assert_eq!(merged.started, "2026-11-23T10:01:00Z");
        let ids = |results: &Results| -> Vec<_> {
            results.cells.iter().map(|cell| cell.id.clone()).collect()
        };
        assert_eq!(
            ids(&merged),
            ids(&whole),
            "the cells are in the plan's order"
        );
        // Also what follows from cells of two shards.
        for (cell, of_whole) in merged.cells.iter().zip(&whole.cells) {
            assert_eq!(cell.metrics, of_whole.metrics, "{}", cell.id);
            assert!(merged.boots.iter().any(|boot| boot.id == cell.boot));
        }
        let boots = shards(count)
            .into_iter()
            .map(|(_, results)| results.boots.len());
        assert_eq!(merged.boots.len(), boots.sum::<usize>());
    }
}

#[test]
fn a_merged_file_is_as_the_schema_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("merged.json");
    ResultsFile::write(&path, merge(shards(3)).unwrap()).unwrap();
    let value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let schema = serde_json::to_value(Document::Results.schema()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_same_file_twice_is_the_file() {
    let mut twice = shards(1);
    twice.push(twice[0].clone());
    assert_eq!(merge(twice).unwrap(), merge(shards(1)).unwrap());
}

#[test]
fn other_conditions_are_refused_line_by_line() {
    let mut runs = shards(2);
    runs[1].1.closure.qemu.version = "QEMU 99".into();
    runs[1].1.closure.commit = "f".repeat(40);
    runs[1].1.filter = Some("module".parse().unwrap());
    let error = merge(runs).unwrap_err().to_string();
    for part in ["qemu.version", "commit", "filter", "1.json and 2.json"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn other_caches_of_the_lens_are_refused() {
    let machine = Machine::default();
    let larger = Machine {
        l2: Shape {
            kib: 2 * machine.l2.kib,
            ..machine.l2
        },
        ..machine
    };
    let with = |first, second| {
        let mut runs = shards(2);
        runs[0].1.lens = first;
        runs[1].1.lens = second;
        merge(runs).map_err(|error| error.to_string())
    };
    assert_eq!(with(Some(larger), Some(larger)).unwrap().lens, Some(larger));
    for (first, second) in [(Some(machine), Some(larger)), (Some(machine), None)] {
        let error = with(first, second).unwrap_err();
        assert!(error.contains("the lens, or its caches"), "{error}");
        assert_eq!(error.lines().count(), 2, "{error}");
    }
}

#[test]
fn cells_that_contradict_each_other_are_refused() {
    let mut runs = shards(1);
    let mut other = runs[0].clone();
    other.0 = "2.json".into();
    other.1.cells[3].verdict = Verdict::Failed;
    let id = other.1.cells[3].id.clone();
    runs.push(other);
    let error = merge(runs).unwrap_err().to_string();
    assert!(error.contains(&id) && error.contains("differ"), "{error}");
}

#[test]
fn a_file_without_cells_is_refused() {
    let mut runs = shards(1);
    runs[0].1.cells.clear();
    let error = merge(runs).unwrap_err().to_string();
    assert!(error.contains("1.json has no cells"), "{error}");
}
