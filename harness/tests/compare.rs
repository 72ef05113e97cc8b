// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab compare` and `mutexlab golden` over results files: what they say, and how they end.

mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mutexlab_model::verdict::Verdict;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Results;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;
use serde_json::Value;

fn quick() -> ScenarioFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/quick.toml");
    ScenarioFile::load(Path::new(path)).unwrap()
}

fn results() -> Results {
    let scenario = quick();
    let plan = Plan::new(&scenario.scenario).unwrap();
    sample::results(&scenario, &plan)
}

/// A directory that looks like the repository, with results.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["module", "harness", "scenarios", "results"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self(directory)
    }

    fn put(&self, name: &str, results: Results) -> PathBuf {
        let path = self.0.path().join("results").join(name);
        ResultsFile::write(&path, results).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_mutexlab"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.code().unwrap(), text)
    }
}

/// Adds one to a metric of every cell of the module's.
fn slower(mut results: Results) -> Results {
    let cells = results.cells.iter_mut();
    for cell in cells.filter(|cell| cell.subject.is_module()) {
        let mean = cell
            .metrics
            .iter_mut()
            .find(|metric| metric.name == "hook.mean");
        mean.unwrap().value += 1.0;
    }
    results
}

#[test]
fn what_is_written_is_what_comparing_reads() {
    let lab = Lab::new();
    let results = results();
    let run = Run::read(&lab.put("a.json", results.clone())).unwrap();
    assert_eq!(run.cells.len(), results.cells.len());
    for record in &results.cells {
        let cell = &run.cells[&record.id];
        assert_eq!(cell.traffic, record.traffic);
        let values = &cell.boots[&record.repetition].values;
        assert_eq!(values.len(), record.metrics.len());
        for (&(index, value), metric) in values.iter().zip(&record.metrics) {
            let definition = &run.definitions[index];
            assert_eq!((&definition.name, value), (&metric.name, metric.value));
            assert_eq!(
                (definition.kind, definition.unit),
                (metric.kind, metric.unit)
            );
        }
    }
}

#[test]
fn a_run_is_complete_if_every_cell_was_measured() {
    let lab = Lab::new();
    let is_complete = |results: &Results, filter: Option<&str>| {
        let filter = filter.map(|filter| filter.parse::<Filter>().unwrap());
        let run = Run::read(&lab.put("a.json", results.clone())).unwrap();
        run.is_complete(&quick(), filter.as_ref()).unwrap()
    };
    let mut results = results();
    assert!(is_complete(&results, None));
    results.cells[0].verdict = Verdict::Failed;
    assert!(is_complete(&results, None), "a bad end is an end");
    results.cells[0].verdict = Verdict::Infra;
    assert!(!is_complete(&results, None));
    let removed = results.cells.remove(0);
    assert!(!is_complete(&results, None));
    assert!(!is_complete(&results, Some(&removed.id)));
    assert!(is_complete(&results, Some("module/local")));
}

#[test]
fn exit_codes_tell_what_happened() {
    let lab = Lab::new();
    lab.put("a.json", results());
    lab.put("same.json", results());
    lab.put("slower.json", slower(results()));
    let mut other = results();
    other.closure.qemu.cpu_model.push_str(",+avx512f");
    lab.put("other.json", other);
    for (a, b, code, part) in [
        ("a", "same", 0, "no change in 66 cells"),
        (
            "a",
            "slower",
            1,
            "22 of 66 cells changed: hook.mean +1 instructions/packet in each; 44 unchanged.",
        ),
        ("slower", "a", 0, "improved"),
        ("a", "other", 2, "CPU model"),
        ("a", "none", 2, "neither a file nor a commit"),
    ] {
        let [a, b] = [a, b].map(|name| format!("results/{name}.json"));
        let (ended, text) = lab.run(&["compare", &a, &b]);
        assert_eq!(ended, code, "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn json_and_markdown_tell_the_same() {
    let lab = Lab::new();
    lab.put("a.json", results());
    lab.put("b.json", slower(results()));
    let files = ["compare", "results/a.json", "results/b.json"];
    let (_, text) = lab.run(&[&files[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["refusals"].as_array().unwrap().len(), 0);
    let findings = json["difference"]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 22);
    assert_eq!(findings[0]["kind"], "exact");
    assert_eq!(findings[0]["judgement"], "regressed");
    let (_, text) = lab.run(&[&files[..], &["--markdown"]].concat());
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| 7.3/1cpu/module"));
    assert_eq!(rows.count(), 22, "{text}");
    let (_, text) = lab.run(&[&files[..], &["--filter", "local", "--metric", "reply"]].concat());
    assert!(text.contains("no change in 24 cells"), "{text}");
}

#[test]
fn golden_counts_are_kept_checked_and_accepted() {
    let lab = Lab::new();
    lab.put("a.json", results());
    lab.put("b.json", slower(results()));
    let mut other = results();
    other.closure.kernels.get_mut("7.3").unwrap().compiler = Some("gcc".into());
    lab.put("other.json", other);
    let golden = |file: &str, update: &[&str]| {
        let file = format!("results/{file}.json");
        lab.run(&[&["golden", "--from", &file], update].concat())
    };
    let (code, text) = golden("a", &[]);
    assert_eq!(code, 2, "there are none yet: {text}");
    assert_eq!(golden("a", &["--update"]).0, 0);
    assert_eq!(golden("a", &[]).0, 0);
    let (code, text) = golden("b", &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("hook.mean") && text.contains("--update"),
        "{text}"
    );
    let (code, text) = golden("other", &[]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("compiler: golden \"clang\", now \"gcc\""),
        "{text}"
    );
    assert_eq!(golden("b", &["--update"]).0, 0);
    assert_eq!(golden("b", &[]).0, 0);
    assert_eq!(golden("a", &[]).0, 1, "better is a move, too");
}

#[test]
fn shards_are_merged_by_the_program() {
    let lab = Lab::new();
    let [mut a, mut b] = [results(), results()];
    a.cells.truncate(10);
    b.cells.drain(..10);
    lab.put("a.json", a.clone());
    lab.put("b.json", b);
    let merge = ["merge", "results/a.json", "results/b.json", "-o", "c.json"];
    let (code, text) = lab.run(&merge);
    assert_eq!(code, 0, "{text}");
    let (code, text) = lab.run(&["merge", "results/a.json", "-o", "c.json"]);
    assert_eq!(code, 1, "{text}");
    assert_eq!(text.matches("missing: ").count(), 56, "{text}");
    a.closure.nft.push('x');
    lab.put("b.json", a);
    let (code, text) = lab.run(&merge);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("nft"), "{text}");
}
