// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox schema`.

use anyhow::Result;
use clap::Args;

use super::say;

/// Print the JSON Schema of files, for editors
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox schema > /etc/mprox/schema.json    For an editor that checks TOML by it")]
pub struct SchemaCommand {}

impl SchemaCommand {
    pub fn run(&self) -> Result<()> {
        say(&format_args!(
            "{}",
            serde_json::to_string_pretty(&mprox_file::schema())?
        ))?;
        Ok(())
    }
}
