// SPDX-License-Identifier: MIT OR Apache-2.0

//! Comparing two results of 10,000 cells: how long it takes, and how much memory. It is to take less
//! than a second and 200 MB.

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::Criterion;
use mutexlab_judge::compare::difference::{Difference, Shown};
use mutexlab_results::file::ResultsFile;
use mutexlab_results::record::Results;
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;
use nix::sys::resource::{getrusage, Usage, UsageWho};
use nix::sys::time::{TimeVal, TimeValLike};

const MAX_TIME: Duration = Duration::from_secs(1);
const MAX_KIB: i64 = 200 * 1000 * 1000 / 1024;

/// 10,000 cells in so many boots: what each boot gives is a record of its own.
fn results(mode: &str, boots: usize) -> Results {
    let payloads: Vec<String> = (0..1_250 / boots).map(|n| (16 + n).to_string()).collect();
    let text = format!(
        "question = \"?\"\nmode = \"{mode}\"\nkernels = [\"7.3\"]\ncpus = [1]\nboots = {boots}\n\
         subjects = [\"module\"]\n[traffic]\nways = [\"forward\", \"local\"]\n\
         families = [\"v4\", \"v6\"]\nprotocols = [\"udp\", \"tcp\"]\npayloads = [{}]\n\
         round-trips = 1000\nwarm-up = 50\n",
        payloads.join(", ")
    );
    let scenario =
        ScenarioFile::parse("big".into(), "big.toml".into(), text).expect("the scenario is good");
    let plan = Plan::new(&scenario.scenario).expect("the plan can be made");
    assert_eq!(plan.cells(), 10_000);
    sample::results(&scenario, &plan)
}

/// Two files that differ in every fourth cell.
fn files(directory: &Path, mode: &str, boots: usize) -> [PathBuf; 2] {
    let a = results(mode, boots);
    let mut b = a.clone();
    for cell in b.cells.iter_mut().step_by(4) {
        for metric in &mut cell.metrics {
            metric.value *= 1.05;
        }
    }
    let mut names = ["a", "b"].map(|name| directory.join(format!("{mode}-{name}.json")));
    for (path, results) in names.iter_mut().zip([a, b]) {
        ResultsFile::write(path, results).expect("the file can be written");
    }
    names
}

fn compare([a, b]: &[PathBuf; 2]) -> usize {
    let (a, b) = Run::read_both(a, b).expect("A and B can be read");
    Difference::of(&a, &b, &Shown::default()).changed_cells
}

/// What this program is told to be a small process that runs the one to be measured: the kernel counts
/// the memory of who started a program as that program's, too.
const STARTER: &str = "--starter";

/// The whole program, and what it takes at its largest.
fn program(files: &[PathBuf]) {
    let before = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    let started = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_mutexlab"))
        .arg("compare")
        .args(files)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("the program can be started");
    let elapsed = started.elapsed();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
    // Of the largest child that there was.
    let kib = after.max_rss().max(before.max_rss());
    // Time of the CPU, so that a busy machine does not matter.
    let took = cpu_time(after) - cpu_time(before);
    println!(
        "mutexlab compare: {} ms ({} ms of the CPU), {} MB at its largest, for files of {} MB each",
        elapsed.as_millis(),
        took.as_millis(),
        kib * 1024 / 1_000_000,
        files[0].metadata().map_or(0, |file| file.len() / 1_000_000)
    );
    assert_eq!(status.code(), Some(1), "cells changed for the worse");
    assert!(took < MAX_TIME, "it takes {took:?}");
    assert!(kib < MAX_KIB, "it takes {kib} KiB");
}

fn cpu_time(usage: Usage) -> Duration {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, starter, files @ ..] = arguments.as_slice()
        && starter == STARTER
    {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        return program(&files);
    }
    let directory = tempfile::tempdir().expect("there is room for files");
    // One boot and exact metrics; and ten boots of all sampled ones.
    let inputs = [("virtual", 1), ("wall", 10)].map(|(mode, boots)| {
        let files = files(directory.path(), mode, boots);
        let status = Command::new(&arguments[0])
            .arg(STARTER)
            .args(&files)
            .status()
            .expect("this program can be started");
        assert!(status.success());
        (mode, files)
    });
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    for (mode, files) in &inputs {
        criterion.bench_function(&format!("compare 10,000 cells, {mode}"), |bencher| {
            bencher.iter(|| assert!(compare(files) > 0));
        });
    }
    criterion.final_summary();
}
