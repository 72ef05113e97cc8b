// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commit that a package is made of.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::output::output;

/// A commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its hash.
    pub hash: String,
    /// When it was made: the time of every file in the package, in seconds since 1970.
    pub time: u64,
    /// The same as RFC 5322 has it.
    pub date: String,
    /// Whose it is: a name, and an address in angle brackets.
    pub author: String,
    /// Whether the sources are others by now.
    pub is_changed: bool,
}

impl Commit {
    /// The one that is checked out in `root`.
    pub fn of(root: &Path) -> Result<Self> {
        let git = |arguments: &[&str]| {
            output(Command::new("git").arg("-C").arg(root).args(arguments))
                .context("the time of the package is its commit's, so git has to know the sources")
        };
        let format = "--format=%H%n%ct%n%cd%n%an <%ae>";
        let text = git(&["log", "-1", "--date=rfc", format])?;
        let mut lines = text.lines();
        let mut line = || {
            lines
                .next()
                .map(str::to_owned)
                .context("git says too little")
        };
        let (hash, time, date, author) = (line()?, line()?, line()?, line()?);
        Ok(Self {
            hash,
            time: time.parse().context("git tells no time")?,
            date,
            author,
            is_changed: !git(&["status", "--porcelain"])?.is_empty(),
        })
    }
}
