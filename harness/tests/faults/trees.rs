// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel trees beside each other: measured as one run, and what is not one is told before anything is built.

use std::collections::BTreeSet;

use mutexlab_results::file::ResultsFile;
use nix::sys::signal::Signal;

use crate::lab::{send, wait_for, Course, Lab};

const BENCH: [&str; 4] = ["bench", "scenarios/trial.toml", "--jobs", "1"];

fn bench(lab: &Lab, trees: &[&str]) -> (Option<i32>, String) {
    let mut arguments = BENCH.to_vec();
    arguments.extend(trees.iter().flat_map(|tree| ["--tree", tree]));
    lab.run(&arguments)
}

/// What is said of what is refused before anything is done.
fn refused(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.command(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[test]
fn trees_are_measured_in_one_run_and_shown_beside_each_other() {
    let lab = Lab::new(&[Course::Well, Course::Well]);
    for tree in ["a", "b"] {
        lab.tree(tree);
    }
    lab.write("b/picture", "of another kernel");
    let (code, said) = bench(&lab, &["before=../a", "after=../b"]);
    assert_eq!((code, lab.guests()), (Some(0), 2), "{said}");
    let words: Vec<_> = said.split_whitespace().collect();
    let head = ["cell", "metric", "before", "after", "difference"];
    assert!(
        words.windows(head.len()).any(|words| words == head),
        "{said}"
    );
    assert!(said.contains("No exact count of 4 cells moved."), "{said}");
    let results = lab.results();
    let kernels: BTreeSet<_> = results
        .cells
        .iter()
        .map(|cell| cell.kernel.as_str())
        .collect();
    assert_eq!(kernels, ["after", "before"].into());
    assert!(results
        .cells
        .iter()
        .all(|cell| cell.id.starts_with(&cell.kernel)));
    let hashes = ["before", "after"].map(|name| {
        let kernel = &results.closure.kernels[name];
        (
            kernel.source_sha256.clone().unwrap(),
            kernel.image_sha256.clone(),
        )
    });
    assert_ne!(hashes[0].0, hashes[1].0);
    assert_ne!(hashes[0].1, hashes[1].1);
}

#[test]
fn parts_of_a_run_of_trees_are_joined() {
    let lab = Lab::new(&[Course::Well; 4]);
    for tree in ["a", "b"] {
        lab.tree(tree);
    }
    let mut files = Vec::new();
    for part in ["1/2", "2/2"] {
        let results = format!("results/{}", part.replace('/', "-"));
        let mut arguments = BENCH.to_vec();
        arguments.extend(["--shard", part, "--results", &results, "--filter", "k/1cpu"]);
        arguments.extend(["--tree", "before=../a", "--tree", "after=../b"]);
        let (code, said) = lab.run(&arguments);
        assert_eq!(code, Some(0), "{said}");
        let directory = lab.path("repository").join(&results);
        files.push(ResultsFile::newest(&directory, "trial").unwrap());
    }
    let files = [&files[0], &files[1]].map(|file| file.to_str().unwrap());
    let (code, said) = lab.run(&["merge", files[0], "-o", "half.json"]);
    assert_eq!(
        (code, said.matches("missing: ").count()),
        (Some(1), 4),
        "{said}"
    );
    let (code, said) = lab.run(&["merge", files[0], files[1], "-o", "whole.json"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("8 cells of 2 files"), "{said}");
}

#[test]
fn what_was_cut_short_is_finished_by_the_command_that_is_told() {
    let lab = Lab::new(&[Course::Waits, Course::Well, Course::Well]);
    for tree in ["a", "b"] {
        lab.tree(tree);
    }
    let trees = ["--tree", "before=../a", "--tree", "after=../b"];
    let child = lab.command(&[&BENCH[..], &trees].concat()).spawn().unwrap();
    wait_for("a cell", || {
        lab.guests() == 1 && !lab.results().cells.is_empty()
    });
    send(Signal::SIGINT, &child);
    let (code, said) = lab.end(child);
    assert_eq!(code, Some(130), "{said}");
    let command = said.split('`').find(|part| part.contains("--resume"));
    let command = command.unwrap_or_else(|| panic!("{said}"));
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    let (code, said) = lab.run(&arguments);
    assert_eq!(code, Some(0), "{command}: {said}");
    assert_eq!(lab.results().cells.len(), 8);
}

#[test]
fn results_of_trees_are_not_made_again_from_themselves() {
    let lab = Lab::new(&[Course::Well]);
    lab.tree("a");
    let (code, said) = bench(&lab, &["now=../a"]);
    assert_eq!(code, Some(0), "{said}");
    let directory = lab.path("repository/results");
    let file = ResultsFile::newest(&directory, "trial").unwrap();
    let (code, said) = lab.run(&["reproduce", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("a kernel tree that was built under the name now"),
        "{said}"
    );
}

#[test]
fn what_git_knows_of_a_tree_is_recorded() {
    let lab = Lab::new(&[Course::Well]);
    lab.tree("a");
    lab.git("a", &["init", "--quiet"]);
    lab.git("a", &["add", "."]);
    lab.git("a", &["commit", "--quiet", "-m", "a"]);
    let (code, said) = bench(&lab, &["now=../a"]);
    assert_eq!(code, Some(0), "{said}");
    let tree = lab.results().closure.kernels["now"].tree.clone().unwrap();
    assert_eq!(tree.commit, lab.git("a", &["rev-parse", "HEAD"]).trim());
    assert!(!tree.dirty);
}

#[test]
fn what_is_meant_by_trees_has_to_be_clear() {
    let lab = Lab::new(&[]);
    lab.tree("a");
    lab.tree("b");
    lab.write("none/README", "");
    for (trees, says) in [
        (
            ["x=../a", "x=../b"],
            "--tree x=… is given twice, with ../a and ../b",
        ),
        (
            ["k=../a", "after=../b"],
            "k is a kernel of images/kernels.toml or of scenarios/trial.toml",
        ),
        (["x/y=../a", "z=../b"], "a label is made of letters"),
        (["x=../a", "y=../none"], "none is no kernel tree"),
        (
            ["x=../a", "y=../gone"],
            "cannot find the kernel tree ../gone",
        ),
        (["x=../a", "y"], "a tree is given as NAME=DIRECTORY"),
    ] {
        let trees = ["--tree", trees[0], "--tree", trees[1]];
        let said = refused(&lab, &[&BENCH[..], &trees].concat());
        assert!(said.contains(says), "{said}");
    }
    let said = refused(&lab, &[&BENCH[..], &["--tree", "k=../a"]].concat());
    assert!(said.contains("such as after=../a"), "{said}");
    let said = refused(
        &lab,
        &[&BENCH[..], &["--tree", "x=../a", "--filter", "x/"]].concat(),
    );
    assert!(
        said.contains("cells are chosen by their names on k, before x come"),
        "{said}"
    );
    // A kernel may be the scenario's alone: one that somebody has built.
    let scenario = std::fs::read_to_string(lab.path("repository/scenarios/trial.toml")).unwrap();
    let mine = scenario.replace("[\"k\"]", "[\"mine\"]");
    lab.write("repository/scenarios/mine.toml", &mine);
    let said = refused(
        &lab,
        &["bench", "scenarios/mine.toml", "--tree", "mine=../a"],
    );
    assert!(
        said.contains("mine is the name of a kernel, in whose place"),
        "{said}"
    );
    let several = scenario.replace("[\"k\"]", "[\"k\", \"l\"]");
    lab.write("repository/scenarios/several.toml", &several);
    let said = refused(
        &lab,
        &["bench", "scenarios/several.toml", "--tree", "x=../a"],
    );
    assert!(said.contains("asks about several kernels (k, l)"), "{said}");
    assert!(!lab.path("cache/images").exists());
}

#[test]
fn a_subject_with_a_module_is_refused_where_it_cannot_be_built() {
    let lab = Lab::new(&[]);
    lab.write(
        "repository/scenarios/subjects/mine/subject.toml",
        "about = \"a module\"\n[[up]]\nmodule = \"module\"\n[counts]\nexact = true\n",
    );
    lab.write(
        "repository/scenarios/subjects/mine/module/Kbuild",
        "obj-m := mine.o\n",
    );
    let scenario = std::fs::read_to_string(lab.path("repository/scenarios/trial.toml")).unwrap();
    let own = scenario.replace("\"module\"", "\"mine\"");
    lab.write("repository/scenarios/own.toml", &own);
    lab.tree("a");
    lab.git("a", &["init", "--quiet"]);
    lab.git("a", &["add", "."]);
    lab.git("a", &["commit", "--quiet", "-m", "a"]);
    lab.git("a", &["commit", "--quiet", "--allow-empty", "-m", "b"]);
    for arguments in [
        &["bench", "scenarios/own.toml", "--tree", "x=../a"][..],
        &[
            "series",
            "HEAD~1..HEAD",
            "scenarios/own.toml",
            "--linux",
            "../a",
        ],
    ] {
        let said = refused(&lab, arguments);
        assert!(said.contains("mine has a module of its own"), "{said}");
    }
    assert!(!lab.path("cache/images").exists());
}

#[test]
fn a_tree_that_does_not_build_is_named_with_its_log() {
    let lab = Lab::new(&[]);
    lab.tree("a");
    lab.tree("b");
    lab.write("b/broken", "");
    let (code, said) = bench(&lab, &["before=../a", "after=../b"]);
    assert_eq!((code, lab.guests()), (Some(2), 0), "{said}");
    assert!(said.contains("after:plain does not build"), "{said}");
    assert!(said.contains("net/a.c:1:2: error: nonsense"), "{said}");
    let (_, log) = said.split_once("the log is ").unwrap();
    let (log, _) = log.split_once(".log:").unwrap();
    assert!(
        std::path::Path::new(&format!("{log}.log")).is_file(),
        "{log}"
    );
}

#[test]
fn an_option_that_a_tree_loses_is_named_with_its_log() {
    let lab = Lab::new(&[]);
    lab.tree("a");
    lab.write("a/lost", "");
    let (code, said) = bench(&lab, &["after=../a"]);
    assert_eq!((code, lab.guests()), (Some(2), 0), "{said}");
    assert!(said.contains("RUST_DEBUG_ASSERTIONS"), "{said}");
    let (_, log) = said.split_once("the log is ").unwrap();
    let (log, _) = log.split_once(".log:").unwrap();
    let log = std::fs::read_to_string(format!("{log}.log")).unwrap();
    assert!(
        log.contains("RUST_DEBUG_ASSERTIONS") && log.contains("The configuration:"),
        "{log}"
    );
}
