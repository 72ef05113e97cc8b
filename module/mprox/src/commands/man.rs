// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox man`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};

use crate::cli::Cli;

/// Write the manual pages: mprox(8), and one for each command
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox man /usr/local/share/man/man8    And then `man mprox`, `man mprox-apply`")]
pub struct ManCommand {
    /// Where to, which must be there
    directory: PathBuf,
}

/// System administration.
const SECTION: &str = "8";

impl ManCommand {
    pub fn run(&self) -> Result<()> {
        let mut all = Cli::command();
        all.build();
        self.write(&all, "mprox")?;
        for command in all.get_subcommands().filter(|one| one.get_name() != "help") {
            let name = format!("mprox-{}", command.get_name());
            self.write(command, &name)?;
        }
        Ok(())
    }

    fn write(&self, command: &clap::Command, name: &str) -> Result<()> {
        let mut page = Vec::new();
        let command = command.clone().display_name(name);
        clap_mangen::Man::new(command)
            .title(name.to_uppercase())
            .section(SECTION)
            .render(&mut page)?;
        let path = self.directory.join(format!("{name}.{SECTION}"));
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
    }
}
