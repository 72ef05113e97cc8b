// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel trees beside each other: measured as one run, and what is not one is told before anything is built.

use std::collections::BTreeSet;

use crate::lab::{Course, Lab};

const BENCH: [&str; 4] = ["bench", "scenarios/trial.toml", "--jobs", "1"];

fn bench(lab: &Lab, trees: &[&str]) -> (Option<i32>, String) {
    let mut arguments = BENCH.to_vec();
    arguments.extend(trees.iter().flat_map(|tree| ["--tree", tree]));
    lab.run(&arguments)
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
            "k is a kernel of images/kernels.toml",
        ),
        (["x/y=../a", "z=../b"], "a label is made of letters"),
        (["x=../a", "y=../none"], "none is no kernel tree"),
        (
            ["x=../a", "y=../gone"],
            "cannot find the kernel tree ../gone",
        ),
        (["x=../a", "y"], "a tree is given as NAME=DIRECTORY"),
    ] {
        let mut command = lab.command(&BENCH);
        let output = command
            .args(["--tree", trees[0], "--tree", trees[1]])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let command = lab.command(&BENCH).args(["--tree", "k=../a"]).output();
    let said = String::from_utf8_lossy(&command.unwrap().stderr).into_owned();
    assert!(said.contains("such as after=../a"), "{said}");
    let scenario = std::fs::read_to_string(lab.path("repository/scenarios/trial.toml")).unwrap();
    let several = scenario.replace("[\"k\"]", "[\"k\", \"l\"]");
    lab.write("repository/scenarios/several.toml", &several);
    let output = lab
        .command(&["bench", "scenarios/several.toml", "--tree", "x=../a"])
        .output();
    let said = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert!(said.contains("asks about several kernels (k, l)"), "{said}");
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
