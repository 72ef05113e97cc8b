// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program, as far as it needs no module.

use std::fs;
use std::process::{Command, Output};

fn mprox(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_mprox");
    Command::new(program).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const GOOD: &str = "[upstreams.a]\nservers = [\"192.0.2.1\"]\n[[rule]]\nip = 4\nvia = \"a\"\n";

#[test]
fn a_file_is_checked_without_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home.toml");
    let path = path.to_str().unwrap();
    fs::write(path, GOOD).unwrap();
    let output = mprox(&["check", "--offline", path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        format!("{path}: 1 rule, 1 upstream\n")
    );
    fs::write(path, GOOD.replace("via = \"a\"", "via = \"b\"")).unwrap();
    let output = mprox(&["check", "--offline", path]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("mprox: {path}:5:7: no upstreams are called `b`\n");
    assert_eq!(text(&output.stderr), expected);
    let output = mprox(&["check", "--offline", "/nowhere/at/all.toml"]);
    assert_eq!(
        text(&output.stderr),
        "mprox: cannot read /nowhere/at/all.toml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn the_command_line_says_what_is_wrong_with_it() {
    for (arguments, expected) in [
        (&["aply", "x"][..], "apply"),
        (
            &["apply", "--name", "a/b", "x.toml"],
            "a name is of letters, digits",
        ),
        (
            &["check", "--name", "a/b", "x.toml"],
            "a name is of letters, digits",
        ),
        (&["delete"], "<NAME>"),
    ] {
        let output = mprox(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}

#[test]
fn a_file_whose_name_no_context_can_have_needs_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my rules.toml");
    let path = path.to_str().unwrap();
    fs::write(path, GOOD).unwrap();
    assert!(mprox(&["check", "--offline", path]).status.success());
    for command in ["check", "apply"] {
        let output = mprox(&[command, path]);
        assert_eq!(
            text(&output.stderr),
            "mprox: the context would be called `my rules`, as the file is, and a name is of letters, digits, '-', '_' and '.', \
             63 at most, and begins without a dot: give one by --name\n"
        );
    }
}

#[test]
fn what_cannot_be_read_is_told_once_and_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home.toml");
    let path = path.to_str().unwrap();
    fs::write(path, b"rule = []\n# \xc3\xa9 \xff\n").unwrap();
    let output = mprox(&["check", "--offline", path]);
    assert_eq!(
        text(&output.stderr),
        format!("mprox: {path}:2:5: this is not UTF-8, which TOML is written in\n")
    );
    fs::write(path, "[sets.a]\nnetworks-file = \"none.txt\"\n").unwrap();
    let output = mprox(&["check", "--offline", path]);
    assert!(!output.status.success());
    let told = text(&output.stderr);
    assert_eq!(told.matches("No such file").count(), 1, "{told}");
}

#[test]
fn the_schema_is_one() {
    let output = mprox(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "file of mprox");
    assert!(schema["properties"]["rule"].is_object());
}

#[test]
fn there_are_manual_pages_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    let output = mprox(&["man", directory.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for (page, expected) in [
        ("man8/mprox.8", "mprox\\-apply(8)"),
        ("man8/mprox-apply.8", "generation"),
        ("man5/mprox.conf.5", "\\fBsource\\-ports\\fR"),
    ] {
        let text = fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(expected), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = mprox(&["completions", shell]);
        assert!(text(&output.stdout).contains("generation"), "{shell}");
    }
    let output = mprox(&["man", "/proc/nowhere"]);
    let expected =
        "mprox: cannot write /proc/nowhere/man8/mprox.8: No such file or directory (os error 2)\n";
    assert_eq!(text(&output.stderr), expected);
}
