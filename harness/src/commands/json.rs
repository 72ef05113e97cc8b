// SPDX-License-Identifier: MIT OR Apache-2.0

//! What commands print with `--json`: one document on standard output, and nothing else there.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a document.
///
/// # Errors
/// If it cannot be written.
pub fn print(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document).context("cannot write JSON")?;
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}
