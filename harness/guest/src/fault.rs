// SPDX-License-Identifier: MIT OR Apache-2.0

//! Going wrong on purpose, so that the host can show that it notices.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};

use crate::kernel::log;
use mutexlab_protocol::Fault;

/// Where debugfs is.
pub const DEBUGFS: &str = "/sys/kernel/debug";

/// How much memory is taken at a time.
const PIECE: usize = 4 << 20;

/// Commits `fault`. Returns only after those that the kernel survives.
#[expect(clippy::exit, reason = "that is what is asked for")]
pub fn commit(fault: Fault) -> Result<()> {
    match fault {
        Fault::Panic => {
            let path = "/proc/sysrq-trigger";
            fs::write(path, "c").with_context(|| format!("cannot write {path}"))?;
            anyhow::bail!("the kernel survived its panic")
        }
        Fault::Warning => provoke("WARNING"),
        Fault::Lockup => provoke("HARDLOCKUP"),
        Fault::UseAfterFree => provoke("READ_AFTER_FREE"),
        Fault::LoggedWarning => log_warning(),
        Fault::LoggedWarningAndCrash => {
            log_warning()?;
            std::process::abort()
        }
        Fault::Silence => loop {
            thread::park();
        },
        Fault::AgentExit => std::process::exit(1),
        Fault::AgentCrash => std::process::abort(),
        Fault::OutOfMemory => {
            let mut taken = Vec::new();
            loop {
                // Not zero, or else it would be memory that nobody has touched.
                taken.push(black_box(vec![1_u8; PIECE]));
            }
        }
    }
}

/// Writes a line to the log as the kernel writes a warning that is no WARN(), and one of the sort that is seen last: without
/// its end.
pub fn log_warning() -> Result<()> {
    fs::write(log::PATH, "<4>mutexlab: a warning on purpose")
        .with_context(|| format!("cannot write {}", log::PATH))
}

/// Has the kernel's own test module do something bad (drivers/misc/lkdtm).
fn provoke(crash: &str) -> Result<()> {
    mount_debugfs()?;
    let path = Path::new(DEBUGFS).join("provoke-crash/DIRECT");
    fs::write(&path, crash).with_context(|| {
        format!(
            "cannot write {}; the kernel needs CONFIG_LKDTM",
            path.display()
        )
    })
}

/// Mounts debugfs unless it is there.
pub fn mount_debugfs() -> Result<()> {
    let is_empty = fs::read_dir(DEBUGFS).map_or(true, |mut entries| entries.next().is_none());
    if is_empty {
        mount(
            Some("debugfs"),
            DEBUGFS,
            Some("debugfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {DEBUGFS}"))?;
    }
    Ok(())
}
