// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's program on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use duct::cmd;
use mutexlab_host::hash::Sha256;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_protocol::test_info::TestInfo;

use crate::taken::Taken;

/// Its file, beside this program.
const FILE: &str = "mutexlab-agent";

/// The agent.
#[derive(Clone, Debug)]
pub struct Agent(Taken);

impl Agent {
    /// The one that was built with this program.
    ///
    /// # Errors
    /// If it is not there, or cannot be copied.
    pub fn find(surroundings: &Surroundings) -> Result<Self> {
        Taken::built_with_this(FILE, surroundings).map(Self)
    }

    /// The one in `file`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_of(file: &Path) -> Result<Self> {
        Taken::copy_of(file).map(Self)
    }

    /// Where it is, for as long as this lives.
    pub fn file(&self) -> PathBuf {
        self.0.file()
    }

    /// Its hash.
    pub const fn sha256(&self) -> &Sha256 {
        self.0.sha256()
    }

    /// The functional tests that it can run, in the order in which they should run.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn tests(&self) -> Result<Vec<TestInfo>> {
        let file = self.file();
        let told = cmd!(&file, "list-tests").read();
        let told = told.with_context(|| format!("cannot run {}", file.display()))?;
        serde_json::from_str(&told).context("cannot understand what tests the agent has")
    }
}
