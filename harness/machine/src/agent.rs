// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's program on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use duct::cmd;
use mutexlab_host::hash::Sha256;
use mutexlab_protocol::test_info::TestInfo;
use tempfile::TempDir;

/// Its file, beside this program.
const FILE: &str = "mutexlab-agent";

/// A copy of the agent: whoever rebuilds it while it measures does not change what measures.
#[derive(Clone, Debug)]
pub struct Agent {
    directory: Arc<TempDir>,
    sha256: Sha256,
}

impl Agent {
    /// The one that was built with this program.
    ///
    /// # Errors
    /// If it is not there, or cannot be copied.
    pub fn find() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut file = program.with_file_name(FILE);
        // The program of a test is one directory deeper.
        if !file.is_file()
            && let Some(above) = program.parent().and_then(Path::parent)
        {
            file = above.join(FILE);
        }
        if !file.is_file() {
            bail!(
                "there is no {}: `cargo build --release` builds it",
                program.with_file_name(FILE).display()
            );
        }
        Self::copy_of(&file)
    }

    /// The one in `file`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_of(file: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mutexlab-agent-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let copy = directory.path().join(FILE);
        fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(Self {
            sha256: Sha256::of_file(&copy)?,
            directory: Arc::new(directory),
        })
    }

    /// Where the copy is.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }

    /// The copy's hash.
    pub const fn sha256(&self) -> &Sha256 {
        &self.sha256
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
