// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the agent says to the host: a line for each event, as soon as it is true.

use std::io::{self, Write};

use anyhow::{Context, Result};
use mutexlab_protocol::{Event, EVENT_PREFIX};

/// Tells the host.
///
/// # Errors
/// If it cannot be written.
pub fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("cannot write an event as JSON")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{EVENT_PREFIX}{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to the standard output")
}
