// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox man`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};

use crate::cli::Cli;
use crate::reference;

/// Write the manual pages: mprox(8), one for each command, and mprox.conf(5)
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox man /usr/local/share/man    And then `man mprox`, `man mprox-apply`, `man mprox.conf`")]
pub struct ManCommand {
    /// Where the directories man5 and man8 are, or will be
    directory: PathBuf,
}

const SEE_ALSO: &str = ".SH \"SEE ALSO\"\n\\fBmprox.conf\\fR(5)\n";

impl ManCommand {
    pub fn run(&self) -> Result<()> {
        let mut all = Cli::command();
        all.build();
        self.command(&all, "mprox")?;
        for command in all.get_subcommands().filter(|one| one.get_name() != "help") {
            let name = format!("mprox-{}", command.get_name());
            self.command(command, &name)?;
        }
        let page = reference::page(mprox_file::schema().as_value());
        self.write("mprox.conf", 5, page.as_bytes())
    }

    fn command(&self, command: &clap::Command, name: &str) -> Result<()> {
        let mut page = Vec::new();
        let command = command.clone().display_name(name);
        clap_mangen::Man::new(command)
            .title(name.to_uppercase())
            .section("8")
            .render(&mut page)?;
        page.extend_from_slice(SEE_ALSO.as_bytes());
        self.write(name, 8, &page)
    }

    fn write(&self, name: &str, section: u8, page: &[u8]) -> Result<()> {
        let directory = self.directory.join(format!("man{section}"));
        let path = directory.join(format!("{name}.{section}"));
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&path, page))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
