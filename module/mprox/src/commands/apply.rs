// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox apply`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mprox_client::{Commit, ContextName};
use mprox_file::ProxyFile;

use super::{name_of, open, parse_name, put, say, sizes};

/// Redirect as a file says, from now on
///
/// All of it takes the place of what the context of that name did before, at once; or nothing does, if there is a
/// mistake. It stays until `mprox delete`, or until the network namespace ends.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox apply /etc/mprox/home.toml              As the context `home`\n  \
    mprox apply --name guests /tmp/guests.toml    As `guests`\n  \
    mprox delete home                             Redirect no more")]
pub struct ApplyCommand {
    /// The file
    file: PathBuf,
    /// The context's name [default: the file's, without directory and .toml]
    #[arg(long, value_parser = parse_name)]
    name: Option<ContextName>,
    /// Only if the context was configured so often, as `mprox show` tells: 0, if it must not be there
    #[arg(long, value_name = "TIMES")]
    generation: Option<u32>,
}

impl ApplyCommand {
    pub fn run(&self) -> Result<()> {
        let name = name_of(self.name, &self.file)?;
        let file = ProxyFile::load(&self.file)?;
        let commit = Commit {
            context: Some(name),
            generation: self.generation,
            dry_run: false,
        };
        let generation = put(&mut open()?, &file, &commit)?;
        let how = match generation {
            1 => "new",
            _ => "replaced",
        };
        say(&format_args!("{name:?}: {how}, {}", sizes(&file)))?;
        Ok(())
    }
}
