// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process between the harness and a guest that outlives the harness just long enough to take
//! the guest with it.
//!
//! virtme-ng is a chain of Python programs and a shell with QEMU at its end, so killing the first
//! process leaves the last one running. The guard is the subreaper of the chain: no descendant can
//! leave it, whatever dies in between. Its standard input is a pipe whose other end only the
//! harness holds; the end of that stream, by whatever death of the harness, SIGKILL included,
//! makes it kill everything below it. `PR_SET_PDEATHSIG` would not do: it fires when the *thread*
//! that started the child ends, and does not reach grandchildren.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{setsid, Pid};

use crate::terminal::Saved;

/// How long processes that were sent SIGKILL may take to go.
const REAP_DEADLINE: Duration = Duration::from_secs(5);
/// How long the guard sleeps between looks at its child.
const POLL: Duration = Duration::from_millis(20);

/// What a guard is for.
#[derive(Debug)]
pub struct Guarded {
    /// Directories to remove when nothing runs any more.
    pub remove: Vec<PathBuf>,
    /// Terminal to put right when nothing runs any more, if it is then still raw.
    pub terminal: Option<PathBuf>,
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// Runs the command to its end, or to the end of standard input, and returns its exit code,
/// or 128 and the signal's number if a signal ended it.
///
/// # Errors
/// If the command cannot be started, or descendants cannot be killed.
pub fn run(guarded: &Guarded) -> Result<i32> {
    // It is started by way of /proc, which would make its name in ps "exe".
    prctl::set_name(c"mutexlab-guard").context("cannot name the process")?;
    prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
    // A session of its own keeps the terminal's Ctrl-C away from the guest: the harness
    // decides. It fails only for a process group leader, who has its own group already.
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context("cannot start a session"),
    }
    let [program, arguments @ ..] = guarded.command.as_slice() else {
        bail!("no command given");
    };
    let terminal = guarded.terminal.as_deref().map(Saved::of).transpose()?;
    let released = watch_standard_input();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    let status = loop {
        if let Some(status) = reap(child)? {
            break Some(status);
        }
        match released.recv_timeout(POLL) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break None,
        }
    };
    kill_descendants()?;
    if let Some(terminal) = terminal {
        // It goes with its window.
        let _ = terminal.put_right();
    }
    for directory in &guarded.remove {
        // The harness may have removed it already; then there is nothing to mend.
        let _ = fs::remove_dir_all(directory);
    }
    Ok(match status {
        Some(status) => status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        None => 128 + Signal::SIGKILL as i32,
    })
}

/// Tells when standard input has ended.
fn watch_standard_input() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut input = std::io::stdin().lock();
        while !matches!(input.read(&mut buffer), Ok(0) | Err(_)) {}
        // The receiver is gone only if the guard is on its way out.
        let _ = sender.send(());
    });
    receiver
}

/// Reaps whatever has died, orphans of the chain included; the child's status if it was among
/// them.
fn reap(child: Pid) -> Result<Option<ExitStatus>> {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(Some(ExitStatus::from_raw(code << 8)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(Some(ExitStatus::from_raw(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the guest"),
        }
    }
}

/// Kills every descendant of this process and waits until none is left.
fn kill_descendants() -> Result<()> {
    let deadline = Instant::now() + REAP_DEADLINE;
    loop {
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG))
        {}
        let alive = descendants(std::process::id());
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "processes {alive:?} survive SIGKILL; look at them with ps -o pid,stat,wchan,args"
            );
        }
        for pid in alive {
            // It may have gone since; the next round tells.
            let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
        }
        thread::sleep(POLL);
    }
}

/// All processes below `ancestor`, nearest first. Processes that come or go meanwhile may be
/// missed: who needs them all must ask again.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if let Some(parent) = parent_in_stat(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut queue = vec![ancestor];
    while let Some(pid) = queue.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        queue.extend(below);
    }
    found
}

/// The fourth field of `/proc/PID/stat`; the second one, the command, is in parentheses and may
/// contain anything, parentheses and spaces included.
fn parent_in_stat(stat: &str) -> Option<u32> {
    let (_, after_command) = stat.rsplit_once(") ")?;
    after_command.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_is_found_behind_an_odd_command() {
        assert_eq!(parent_in_stat("7 (a) b) (c) S 42 7 7 0"), Some(42));
        assert_eq!(parent_in_stat("7 (short) S"), None);
        assert_eq!(parent_in_stat(""), None);
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants(std::process::id()).contains(&child.id()));
    }
}
