// SPDX-License-Identifier: MIT OR Apache-2.0

//! Going wrong on purpose, so that the host can show that it notices.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{mount, MsFlags};

use super::protocol::Fault;

/// Where debugfs is.
pub const DEBUGFS: &str = "/sys/kernel/debug";

/// Commits `fault`. Returns after [`Fault::Warning`] only.
pub fn commit(fault: Fault) -> Result<()> {
    match fault {
        Fault::Panic => {
            let path = "/proc/sysrq-trigger";
            fs::write(path, "c").with_context(|| format!("cannot write {path}"))?;
            anyhow::bail!("the kernel survived its panic")
        }
        Fault::Warning => {
            mount_debugfs()?;
            let path = Path::new(DEBUGFS).join("provoke-crash/DIRECT");
            fs::write(&path, "WARNING").with_context(|| {
                format!(
                    "cannot write {}; the kernel needs CONFIG_LKDTM",
                    path.display()
                )
            })
        }
        Fault::Silence => loop {
            thread::park();
        },
        Fault::AgentExit => std::process::exit(1),
    }
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
