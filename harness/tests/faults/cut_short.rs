// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs that a signal ends, whatever they are at: nothing of them goes on or keeps others waiting, and the
//! next one takes up where they were.

use std::fs;
use std::path::PathBuf;

use mutexlab_host::interrupt;
use mutexlab_model::verdict::Verdict;
use nix::sys::signal::Signal;

use crate::lab::{send, wait_for, Course, Lab, TESTS};

/// How runs are ended, and with what exit code; SIGKILL leaves none.
const SIGNALS: [(Signal, Option<i32>); 4] = [
    (Signal::SIGINT, Some(interrupt::EXIT_CODE)),
    (Signal::SIGTERM, Some(interrupt::EXIT_CODE)),
    (Signal::SIGHUP, Some(interrupt::EXIT_CODE)),
    (Signal::SIGKILL, None),
];

const BENCH: [&str; 4] = ["bench", "scenarios/trial.toml", "--jobs", "1"];

#[test]
fn a_bench_that_was_cut_short_is_resumed_and_measures_nothing_twice() {
    for (what, exit_code) in SIGNALS {
        let lab = Lab::new(&[Course::Waits, Course::Well, Course::Well]);
        let child = lab.command(&BENCH).spawn().unwrap();
        wait_for("a cell", || {
            lab.guests() == 1 && !lab.results().cells.is_empty()
        });
        assert!(lab.is_locked(), "nothing keeps the image from being pruned");
        send(what, &child);
        let (code, said) = lab.end(child);
        assert_eq!(code, exit_code, "{what}: {said}");
        let before = lab.results();
        assert_eq!(before.cells.len(), 1, "{what}");
        assert_eq!(before.boots[0].verdict, Verdict::Infra, "{what}");

        let (code, said) = lab.run(&[&BENCH[..], &["--resume"]].concat());
        assert_eq!(code, Some(0), "{what}: {said}");
        let after = lab.results();
        assert_eq!(after.started, before.started, "{what}: another run");
        assert!(after.cells.contains(&before.cells[0]), "{what}");
        let mut cells = after.cells.iter();
        assert!(cells.all(|cell| cell.verdict == Verdict::Ok), "{what}");
        // Each cell once, in two guests together.
        let mut tally = lab.tally();
        tally.sort();
        let mut cells: Vec<_> = after.cells.into_iter().map(|cell| cell.id).collect();
        cells.sort();
        assert_eq!(tally, cells, "{what}");
        assert_eq!(lab.guests(), 2, "{what}");

        // What is finished needs no guest.
        let (code, said) = lab.run(&[&BENCH[..], &["--resume"]].concat());
        assert_eq!((code, lab.guests()), (Some(0), 2), "{what}: {said}");
    }
}

#[test]
fn tests_that_were_cut_short_leave_nothing_and_are_no_passes() {
    for (what, exit_code) in SIGNALS {
        let lab = Lab::new(&[Course::Waits]);
        let arguments = [&["test", "--ktap", "report.ktap"][..], &TESTS].concat();
        let child = lab.command(&arguments).spawn().unwrap();
        let report = lab.path("repository/report.ktap");
        let read = || fs::read_to_string(&report).unwrap_or_default();
        wait_for("a test", || read().contains("  ok 1 "));
        assert!(lab.is_locked());
        send(what, &child);
        let (code, said) = lab.end(child);
        assert_eq!(code, exit_code, "{what}: {said}");
        let report = read();
        assert_eq!(report.matches("# ERROR not run").count(), 2, "{report}");
    }
}

/// What unfinished builds of modules have left.
fn partials(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.path("cache/modules"));
    let paths = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "partial"))
        .collect()
}

#[test]
fn modules_whose_build_was_cut_short_are_built_by_the_next_run() {
    for (what, exit_code) in SIGNALS {
        let lab = Lab::new(&[Course::Well]);
        lab.write("slow", "1000");
        let child = lab.command(&BENCH).spawn().unwrap();
        let builds = || {
            lab.processes()
                .iter()
                .any(|(_, command)| command.contains("sleep 1000"))
        };
        wait_for("the build", builds);
        assert!(lab.is_locked());
        send(what, &child);
        let (code, said) = lab.end(child);
        assert_eq!(code, exit_code, "{what}: {said}");
        assert_eq!(partials(&lab).len(), 1, "{what}");
        fs::remove_file(lab.path("slow")).unwrap();
        let (code, said) = lab.run(&BENCH);
        assert_eq!(code, Some(0), "{what}: {said}");
        assert!(partials(&lab).is_empty(), "{what}");
    }
}

#[test]
fn what_a_killed_build_of_modules_left_can_be_pruned() {
    let lab = Lab::new(&[]);
    lab.write("slow", "1000");
    let child = lab.command(&BENCH).spawn().unwrap();
    wait_for("the build", || !partials(&lab).is_empty());
    // Not while it is built.
    let shown = lab.command(&["image", "prune"]).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(said.contains("nothing can go"), "{said}");
    send(Signal::SIGKILL, &child);
    lab.end(child);
    let (code, said) = lab.run(&["image", "prune"]);
    assert!(code == Some(0) && said.contains(".partial"), "{said}");
    assert_eq!(partials(&lab).len(), 1, "without --yes it only shows");
    lab.run(&["image", "prune", "--yes"]);
    assert!(partials(&lab).is_empty());
}
