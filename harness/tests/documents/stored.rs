// SPDX-License-Identifier: MIT OR Apache-2.0

//! Documents of commands that look at files.

use std::fs;
use std::process::Command;

use mutexlab_host::hash::Sha256;
use mutexlab_lens_analysis::sample::example;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::closure::DERIVATION;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Results;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

use crate::lab::Lab;
use crate::seen::Seen;
use crate::{repository, sample};

/// What measuring a scenario might have given.
fn results(scenario: &ScenarioFile) -> Results {
    sample::results(scenario, &Plan::new(&scenario.scenario).unwrap())
}

fn quick() -> ScenarioFile {
    ScenarioFile::load(&repository().join("scenarios/quick.toml")).unwrap()
}

/// The same, where time is measured, so that no number is exact.
fn timed() -> ScenarioFile {
    let ScenarioFile {
        name, file, text, ..
    } = quick();
    let text = text.replace("mode = \"virtual\"", "mode = \"wall\"\nboots = 3");
    ScenarioFile::parse(name, file, text).unwrap()
}

fn put(lab: &Lab, name: &str, results: Results) {
    ResultsFile::write(&lab.path("repository").join(name), results).unwrap();
}

/// Adds to a metric of every cell.
fn add(results: &mut Results, name: &str, more: f64) {
    let metrics = results.cells.iter_mut().flat_map(|cell| &mut cell.metrics);
    for metric in metrics.filter(|metric| metric.name == name) {
        metric.value += more;
    }
}

/// A laboratory with results in which everything that can be found is: a cell that ended otherwise, others
/// that one side alone has, and a metric that has changed.
fn with_two_runs() -> Lab {
    let lab = Lab::new(&[]);
    let before = results(&quick());
    let mut after = before.clone();
    add(&mut after, "hook.mean", 1.0);
    after.cells[0].verdict = Verdict::Failed;
    after.cells[0].reason = Some("a packet went astray".to_owned());
    after.cells.remove(1);
    put(&lab, "a.json", before);
    put(&lab, "b.json", after);
    lab
}

/// The kinds of what was found.
fn kinds(document: &serde_json::Value) -> Vec<&str> {
    let findings = document["difference"]["findings"].as_array().unwrap();
    let mut kinds: Vec<_> = findings
        .iter()
        .filter_map(|finding| finding["kind"].as_str())
        .collect();
    kinds.dedup();
    kinds
}

pub fn compare(seen: &mut Seen) {
    let lab = with_two_runs();
    let found = seen.document(&mut lab.command(&["compare", "a.json", "b.json", "--json"]));
    assert_eq!(kinds(&found), ["verdict", "exact"]);
    // Boots that differ where they must not, and numbers of which nothing is exact.
    let mut varies = results(&timed());
    put(&lab, "timed.json", varies.clone());
    add(&mut varies, "path.mean", 5_000.0);
    put(&lab, "slower.json", varies);
    let compare = ["compare", "timed.json", "slower.json"];
    let all = ["--metric", "path.mean", "--all", "--json"];
    let found = seen.document(&mut lab.command(&[&compare[..], &all].concat()));
    assert_eq!(kinds(&found), ["sampled"]);
    let refused = seen.document(&mut lab.command(&["compare", "a.json", "timed.json", "--json"]));
    assert!(refused["difference"].is_null(), "{refused}");
}

pub fn golden(seen: &mut Seen) {
    let lab = with_two_runs();
    let mut other = results(&quick());
    let kernel = other.closure.kernels.get_mut("7.3").unwrap();
    kernel.compiler = Some("gcc".into());
    put(&lab, "other.json", other);
    for (arguments, outcome) in [
        (&["a.json", "--update"][..], "updated"),
        (&["a.json"], "same"),
        (&["b.json"], "moved"),
        (&["other.json"], "unchecked"),
    ] {
        let arguments = [&["golden", "--json", "--from"][..], arguments].concat();
        let document = seen.document(&mut lab.command(&arguments));
        assert_eq!(document[0]["outcome"], outcome);
    }
}

pub fn merge(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    let mut part = results(&quick());
    part.cells.truncate(10);
    put(&lab, "part.json", part);
    let merge = ["merge", "part.json", "-o", "joined.json", "--json"];
    let document = seen.document(&mut lab.command(&merge));
    assert_eq!(document["cells"], 10);
}

pub fn report(seen: &mut Seen) {
    let lab = with_two_runs();
    lab.write("repository/broken.json", "{");
    let document = seen.document(&mut lab.command(&["report", "a.json", "broken.json", "--json"]));
    for list in ["scenarios", "warnings"] {
        assert_ne!(document[list].as_array().unwrap().len(), 0, "{document}");
    }
}

pub fn lens_diff(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    let before = example(|_| ());
    let after = example(|recording| recording.packets *= 2);
    for (name, analysis) in [("a.json", before), ("b.json", after)] {
        analysis.write(&lab.path("repository").join(name)).unwrap();
    }
    let diff = ["lens", "--diff", "a.json", "b.json", "--json"];
    let document = seen.document(&mut lab.command(&diff));
    assert_ne!(document[0]["functions"].as_array().unwrap().len(), 0);
}

/// In a history of which all is measured already.
pub fn bisect(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    let scenario = ScenarioFile::load(&lab.path("repository/scenarios/trial.toml")).unwrap();
    let ours = |name: &str| -> String {
        let hash = Sha256::of_file(&lab.path("ours").join(name)).unwrap();
        hash.into()
    };
    let (agent, plugin) = (ours("mutexlab-agent"), ours("libmutex_lens.so"));
    let mut commits = Vec::new();
    for (cost, day) in [(0.0, 1), (0.0, 2), (7.0, 3)] {
        lab.write("repository/module/a", &day.to_string());
        let commit = lab.commit();
        let mut results = results(&scenario);
        add(&mut results, "hook.mean", cost);
        results.closure.commit.clone_from(&commit);
        results.closure.dirty = false;
        results.closure.agent_sha256 = Some(agent.clone());
        results.closure.plugin_sha256 = Some(plugin.clone());
        results.closure.derivation = Some(DERIVATION);
        let short = results.closure.short_commit();
        let name = format!("results/2026110{day}T000000Z-{short}-trial.json");
        put(&lab, &name, results);
        commits.push(commit);
    }
    let bisect = [
        "bisect",
        "hook.mean",
        &commits[0],
        &commits[2],
        "--scenario",
        "scenarios/trial.toml",
        "--json",
    ];
    let document = seen.document(&mut lab.command(&bisect));
    assert_eq!(document["first_bad"]["commit"], commits[2].as_str());
}

/// Of this machine, whatever it lacks.
pub fn doctor(seen: &mut Seen) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutexlab"));
    seen.document(command.args(["doctor", "--json"]).current_dir(repository()));
}

pub fn schema(seen: &mut Seen) {
    let lab = Lab::new(&[]);
    let listed = seen.document(&mut lab.command(&["schema", "--json"]));
    for schema in listed.as_array().unwrap() {
        let name = schema["name"].as_str().unwrap();
        let output = lab.command(&["schema", name]).output().unwrap();
        let file = repository().join(schema["file"].as_str().unwrap());
        assert!(output.stdout == fs::read(file).unwrap(), "{name}");
    }
}
