// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's program outside of a guest, where it can do little and does no harm.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use mutexlab_protocol::test_info::TestInfo;

fn agent(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_mutexlab-agent");
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn the_host_understands_which_tests_there_are() {
    let output = agent(&["list-tests"]);
    assert!(output.status.success());
    let tests: Vec<TestInfo> = serde_json::from_slice(&output.stdout).unwrap();
    let names: BTreeSet<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names.len(), tests.len());
    assert!(names.contains("redirect-tcp-v4-forward") && names.contains("no-leaks"));
    assert!(tests.iter().all(|test| !test.about.is_empty()));
}

#[test]
fn it_does_not_touch_a_machine_that_is_no_guest() {
    let output = agent(&["run"]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("this is not a guest"), "{told}");
}
