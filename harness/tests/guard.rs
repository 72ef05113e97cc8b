// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guard ends everything below it, whoever dies first.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A chain like virtme-ng's: a shell, whose child is in a session of its own, and a grandchild
/// that ignores SIGTERM. They print their process ids.
const CHAIN: &str = r#"
setsid sh -c '
    trap "" TERM HUP INT
    echo $$
    sleep 1000 &
    echo $!
    wait
' &
echo $$
wait
"#;

fn guard(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mutexlab"));
    command
        .arg("guard")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn start_chain(arguments: &[&str]) -> (Child, Vec<u32>) {
    let mut child = guard(&[arguments, &["--", "sh", "-c", CHAIN]].concat())
        .spawn()
        .unwrap();
    let mut pids: Vec<u32> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .take(3)
        .map(|line| line.unwrap().parse().unwrap())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    (child, pids)
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

fn gone_within(pids: &[u32], seconds: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        if !pids.iter().any(|&pid| is_alive(pid)) {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn the_end_of_standard_input_ends_the_whole_chain() {
    let (mut child, pids) = start_chain(&[]);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    assert!(gone_within(&pids, 1), "still alive");
}

#[test]
fn the_chain_ends_with_its_first_process() {
    let (mut child, pids) = start_chain(&[]);
    // The shell that was started first is the oldest.
    assert!(Command::new("kill")
        .args(["-9", &pids[0].to_string()])
        .status()
        .unwrap()
        .success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    assert!(gone_within(&pids, 1), "still alive");
}

/// The exit code of a guard whose standard input stays open: `Child::wait` alone would close it,
/// and the guard might see that before the command ends.
fn exit_code(arguments: &[&str]) -> Option<i32> {
    let mut child = guard(arguments).spawn().unwrap();
    let _open = child.stdin.take();
    child.wait().unwrap().code()
}

#[test]
fn the_exit_code_is_the_command_s() {
    assert_eq!(exit_code(&["--", "sh", "-c", "exit 7"]), Some(7));
    assert_eq!(
        exit_code(&["--", "sh", "-c", "kill -15 $$"]),
        Some(128 + 15)
    );
}

#[test]
fn the_directory_is_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "").unwrap();
    let (mut child, _) = start_chain(&["--remove", path.to_str().unwrap()]);
    assert!(path.exists());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(!path.exists());
}

#[test]
fn the_command_does_not_read_the_guard_s_standard_input() {
    assert_eq!(exit_code(&["--", "cat"]), Some(0));
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let mut child = guard(&["--", "no-such-command"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-command"));
}
