// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first program of a guest whose root is in its memory: mounts what a system has, and has the order carried out.
//!
//! It is what virtme-ng's init is in other guests. The order is another process's, which may die without the kernel
//! panicking for want of a first program.

use std::convert::Infallible;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sys::reboot::{reboot, RebootMode};
use nix::sys::termios::{self, BaudRate, SetArg};

use crate::agent;
use mutexlab_protocol::{AGENT_ENDED, AGENT_PATH, EVENT_PORT};

/// What the system calls itself.
const HOST_NAME: &str = "mutexlab";
/// Where programs are looked for.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A file system that is made by the kernel.
struct Mount {
    kind: &'static str,
    at: &'static str,
    /// Some kernels have it not.
    optional: bool,
}

const fn needed(kind: &'static str, at: &'static str) -> Mount {
    Mount {
        kind,
        at,
        optional: false,
    }
}

const fn optional(kind: &'static str, at: &'static str) -> Mount {
    Mount {
        kind,
        at,
        optional: true,
    }
}

const MOUNTS: [Mount; 10] = [
    needed("proc", "/proc"),
    needed("sysfs", "/sys"),
    needed("devtmpfs", "/dev"),
    needed("devpts", "/dev/pts"),
    needed("tmpfs", "/dev/shm"),
    needed("tmpfs", "/run"),
    needed("tmpfs", "/tmp"),
    optional("debugfs", "/sys/kernel/debug"),
    optional("tracefs", "/sys/kernel/tracing"),
    optional("bpf", "/sys/fs/bpf"),
];

/// Makes the guest a system, has the order carried out, and powers it off if whoever does that has not.
///
/// # Errors
/// If this is no guest, or powering off fails.
pub fn run() -> Result<Infallible> {
    // Without it nothing tells that this is a guest.
    let proc = mount_all(&MOUNTS[..1]);
    agent::ensure_guest()?;
    let ended = proc.and_then(|()| carry_out());
    match ended {
        Ok(ended) => eprintln!("{AGENT_ENDED}{ended}"),
        Err(error) => eprintln!("{AGENT_ENDED}no order carried out: {error:#}"),
    }
    // It has perhaps not looked at the log.
    let _ = Command::new(AGENT_PATH).arg("look-at-log").status();
    reboot(RebootMode::RB_AUTOBOOT).context("cannot power the guest off")
}

/// How the process ended that was to carry the order out.
fn carry_out() -> Result<String> {
    mount_all(&MOUNTS[1..])?;
    fs::write("/proc/sys/kernel/hostname", HOST_NAME).context("cannot set the host's name")?;
    let port = event_port()?;
    let status = Command::new(AGENT_PATH)
        .arg("run")
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(port)
        .status()
        .with_context(|| format!("cannot start {AGENT_PATH}"))?;
    Ok(match status.code() {
        Some(code) => format!("code {code}"),
        // As a shell tells it.
        None => format!("code {}", 128 + signal(status)),
    })
}

fn signal(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.signal().unwrap_or_default()
}

fn mount_all(mounts: &[Mount]) -> Result<()> {
    for Mount { kind, at, optional } in mounts {
        // The file system that is below has it not.
        let there = fs::create_dir_all(at);
        let none: Option<&str> = None;
        match mount(Some(*kind), *at, Some(*kind), MsFlags::empty(), none) {
            // The kernel itself mounts some devtmpfs.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(Errno::ENODEV | Errno::ENOENT) if *optional => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot mount {kind} at {at} ({there:?})"));
            }
        }
    }
    Ok(())
}

/// The port for events, which sends bytes as they are.
fn event_port() -> Result<File> {
    let cannot = || format!("cannot use {EVENT_PORT}");
    let port = File::options()
        .write(true)
        .open(EVENT_PORT)
        .with_context(cannot)?;
    let mut terms = termios::tcgetattr(port.as_fd()).with_context(cannot)?;
    termios::cfmakeraw(&mut terms);
    termios::cfsetspeed(&mut terms, BaudRate::B115200).with_context(cannot)?;
    termios::tcsetattr(port.as_fd(), SetArg::TCSANOW, &terms).with_context(cannot)?;
    Ok(port)
}
