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
        (&["delete"], "<NAME>"),
    ] {
        let output = mprox(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}

#[test]
fn the_schema_is_one() {
    let output = mprox(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "FileText");
    assert!(schema["properties"]["rule"].is_object());
}

#[test]
fn there_are_manual_pages_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    let output = mprox(&["man", directory.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for (page, expected) in [
        ("mprox.8", "mprox\\-apply(8)"),
        ("mprox-apply.8", "generation"),
    ] {
        let text = fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(expected), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = mprox(&["completions", shell]);
        assert!(text(&output.stdout).contains("generation"), "{shell}");
    }
    let output = mprox(&["man", "/nowhere/at/all"]);
    let expected =
        "mprox: cannot write /nowhere/at/all/mprox.8: No such file or directory (os error 2)\n";
    assert_eq!(text(&output.stderr), expected);
}
