// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox check`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mprox_client::Commit;
use mprox_file::ProxyFile;

use super::{open, put, say, sizes};

/// Say what is wrong with a file, by line and column
///
/// The kernel judges, too, as if the file was applied, and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox check home.toml             Would it be taken?\n  \
    mprox check --offline home.toml   Without asking the kernel: needs neither module nor rights")]
pub struct CheckCommand {
    /// The file
    file: PathBuf,
    /// Do not ask the kernel
    #[arg(long)]
    offline: bool,
}

impl CheckCommand {
    pub fn run(&self) -> Result<()> {
        let file = ProxyFile::load(&self.file)?;
        if self.offline {
            say(&format_args!("{}: {}", file.path, sizes(&file)))?;
            return Ok(());
        }
        let trial = Commit {
            dry_run: true,
            ..Commit::default()
        };
        put(&mut open()?, &file, &trial)?;
        say(&format_args!(
            "{}: {}; the kernel would take it",
            file.path,
            sizes(&file)
        ))?;
        Ok(())
    }
}
