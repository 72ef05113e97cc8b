// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent says to the host: a line for each event, as soon as it is true. Nothing is left to be sent when
//! [`tell`] returns, so that sending disturbs nothing that is measured.

use std::io::{self, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use mutexlab_protocol::{Event, EVENT_PREFIX};
use nix::errno::Errno;
use nix::sys::termios::tcdrain;

/// Tells the host.
///
/// # Errors
/// If it cannot be written.
pub fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("cannot write an event as JSON")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{EVENT_PREFIX}{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to the standard output")?;
    match tcdrain(stdout.as_fd()) {
        // A pipe, or a port of virtio's.
        Ok(()) | Err(Errno::ENOTTY) => Ok(()),
        Err(error) => Err(error).context("cannot send on the standard output"),
    }
}
