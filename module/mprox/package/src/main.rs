// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox-package`: makes a .deb of `mprox`.
//!
//! It needs no program of Debian's, and of the same commit it makes the same bytes, wherever the sources are and whenever.
//!
//! Must not know: what `mprox` does. What it says of itself (manual pages, completions, the schema), it is asked for.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

mod commit;
mod contents;
mod deb;
mod needs;
mod output;
mod workspace;

use crate::commit::Commit;
use crate::workspace::Workspace;

/// Builds mprox, and makes a package for Debian and its kin.
#[derive(Debug, Parser)]
#[command(
    name = "mprox-package",
    after_help = "Examples:\n  \
        mprox-package                   target/package/mprox_<version>_<architecture>.deb\n  \
        mprox-package --output /tmp     There instead"
)]
struct Cli {
    /// The directory in which the package is written, made if it is not there
    #[arg(long)]
    output: Option<PathBuf>,
    /// Where the sources are
    #[arg(long, default_value = ".")]
    source: PathBuf,
}

fn main() -> ExitCode {
    match package(&Cli::parse()) {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mprox-package: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn package(cli: &Cli) -> Result<PathBuf> {
    let workspace = Workspace::of(&cli.source)?;
    let commit = Commit::of(&workspace.root)?;
    if commit.is_changed {
        eprintln!(
            "mprox-package: there are changes without a commit: another build may differ from this"
        );
    }
    let program = workspace.build()?;
    let deb = contents::deb(&workspace, &commit, &program)?;
    let directory = match &cli.output {
        Some(directory) => directory.clone(),
        None => workspace.target.join("package"),
    };
    let path = directory.join(deb.file_name());
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, deb.bytes()?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
