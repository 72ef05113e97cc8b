// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox check`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mprox_client::{Commit, ContextName};
use mprox_file::ProxyFile;

use super::{name_of, open, parse_name, put, say, sizes};

/// Say what is wrong with a file, by line and column
///
/// The kernel judges, too, as if `mprox apply` did it: in the place of what the context of that name does, beside all others.
/// Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox check home.toml                       Would it be taken?\n  \
    mprox check --name guests /tmp/new.toml     In the place of `guests`\n  \
    mprox check --offline home.toml             Without asking the kernel: needs neither module nor rights")]
pub struct CheckCommand {
    /// The file
    file: PathBuf,
    /// The context's name [default: the file's, without directory and .toml]
    #[arg(long, value_parser = parse_name, conflicts_with = "offline")]
    name: Option<ContextName>,
    /// Do not ask the kernel
    #[arg(long)]
    offline: bool,
}

// Without a name it would be judged as one more context, and what it takes the place of would count against its limits.
fn trial(name: ContextName) -> Commit {
    Commit {
        context: Some(name),
        generation: None,
        dry_run: true,
    }
}

impl CheckCommand {
    pub fn run(&self) -> Result<()> {
        let file = ProxyFile::load(&self.file)?;
        if self.offline {
            say(&format_args!("{}: {}", file.path, sizes(&file)))?;
            return Ok(());
        }
        let name = name_of(self.name, &self.file)?;
        put(&mut open()?, &file, &trial(name))?;
        say(&format_args!(
            "{}: {}; the kernel would take it",
            file.path,
            sizes(&file)
        ))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_judges_in_the_place_of_the_context_of_that_name() {
        let name = ContextName::new(b"home").unwrap();
        let trial = trial(name);
        assert!(trial.dry_run && trial.context == Some(name));
    }
}
