// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether anything is left of a harness that has ended.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long processes may outlive a stopped harness.
const STOPPED_DEADLINE: Duration = Duration::from_secs(5);

/// Waits until processes of a harness that has ended are gone, too.
///
/// # Errors
/// Which are not, when it is time.
pub fn all_gone(processes: &[u32]) -> std::result::Result<(), String> {
    let deadline = Instant::now() + STOPPED_DEADLINE;
    loop {
        let alive: Vec<_> = processes.iter().filter(|&&pid| is_alive(pid)).collect();
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!(
                "for the harness, processes {alive:?} were still there {} s later",
                STOPPED_DEADLINE.as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A zombie waits only for its parent to look, and uses nothing.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        !state.is_some_and(|rest| rest.starts_with('Z'))
    })
}
