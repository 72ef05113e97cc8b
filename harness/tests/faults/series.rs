// SPDX-License-Identifier: MIT OR Apache-2.0

//! A series of a kernel's commits: each is built and measured once, and one that does not build ends nothing.

use std::fs;

use crate::lab::{Course, Lab};

const SERIES: [&str; 8] = [
    "series",
    "HEAD~3..HEAD",
    "scenarios/trial.toml",
    "--linux",
    "../linux",
    "--jobs",
    "1",
    "--exact-only",
];

/// A repository whose commits boot one image, the same, nothing, and another.
fn lab(courses: &[Course]) -> Lab {
    let lab = Lab::new(courses);
    lab.tree("linux");
    lab.git("linux", &["init", "--quiet"]);
    let commit = |subject: &str| {
        lab.git("linux", &["add", "--all"]);
        lab.git("linux", &["commit", "--quiet", "-m", subject]);
    };
    commit("First");
    lab.write("linux/README", "a comment");
    commit("Comment");
    lab.write("linux/broken", "");
    commit("Break");
    fs::remove_file(lab.path("linux/broken")).unwrap();
    lab.write("linux/picture", "of another kernel");
    commit("Change");
    lab
}

/// The line that begins with what is told of a commit.
fn line<'a>(said: &'a str, subject: &str) -> &'a str {
    let mut lines = said
        .lines()
        .filter(|line| line.contains(&format!(" {subject} ")));
    lines.next_back().unwrap_or_default()
}

#[test]
fn a_series_tells_of_each_commit_and_measures_each_image_once() {
    let lab = lab(&[Course::Well, Course::Well]);
    lab.write("linux/Makefile", "what the user is about to change");
    let (code, said) = lab.run(&SERIES);
    assert_eq!((code, lab.guests()), (Some(1), 2), "{said}");
    for (subject, says) in [
        ("First", "what the first is compared with"),
        ("Comment", "boots the same image"),
        ("Break", "DOES NOT BUILD"),
        ("Change", "no count of the hooks moved"),
    ] {
        assert!(line(&said, subject).contains(says), "{subject}: {said}");
    }
    assert!(said.contains("net/a.c:1:2: error: nonsense"), "{said}");
    // The user's files are as they were.
    let makefile = fs::read_to_string(lab.path("linux/Makefile")).unwrap();
    assert_eq!(makefile, "what the user is about to change");
    assert_eq!(
        lab.git("linux", &["status", "--porcelain"]),
        " M Makefile\n"
    );
    // What is known is not made again.
    let (code, again) = lab.run(&SERIES);
    assert_eq!((code, lab.guests()), (Some(1), 2), "{again}");
    assert_eq!(again.matches("building").count(), 1, "{again}");
}

#[test]
fn a_cell_that_ends_otherwise_is_told_with_its_reason() {
    let lab = lab(&[Course::Well, Course::Wrong]);
    let (code, said) = lab.run(&[&SERIES[..], &["--json"]].concat());
    assert_eq!(code, Some(1), "{said}");
    let json = said.find('{').map(|at| &said[at..]).unwrap();
    let end = json.rfind('}').unwrap();
    let told: serde_json::Value = serde_json::from_str(&json[..=end]).unwrap();
    let commits = told["commits"].as_array().unwrap();
    let verdicts: Vec<_> = commits
        .iter()
        .map(|one| one["step"]["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(
        verdicts,
        ["first", "same-image", "does-not-build", "measured"]
    );
    let moved = &commits[3]["step"]["moved"][0];
    assert_eq!(
        (&moved["from"], &moved["to"]),
        (&"ok".into(), &"failed".into())
    );
    assert_eq!(moved["reason"], "a packet went astray");
}

#[test]
fn a_range_or_repository_that_is_none_is_refused() {
    let lab = lab(&[]);
    for (range, linux, says) in [
        ("HEAD", "../linux", "is no range of commits"),
        (
            "v9..HEAD",
            "../linux",
            "\"v9\" of \"v9..HEAD\" is no commit of",
        ),
        ("HEAD~1..HEAD", "../tree", "tree is no git repository"),
        (
            "HEAD~1..HEAD",
            "../gone",
            "cannot find the kernel's repository ../gone",
        ),
    ] {
        let arguments = ["series", range, "scenarios/trial.toml", "--linux", linux];
        let output = lab.command(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn what_is_no_commits_fault_ends_the_series() {
    let lab = lab(&[]);
    lab.write("full", "");
    let (code, said) = lab.run(&SERIES);
    assert_eq!((code, lab.guests()), (Some(2), 0), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!said.contains("DOES NOT BUILD"), "{said}");
}
