// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files that were built with this program, as they were when it needed them first.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use mutexlab_host::hash::Sha256;
use tempfile::TempDir;

/// A copy of a file, and its hash: whoever rebuilds the file while it is in use does not change what measures.
#[derive(Clone, Debug)]
pub struct Taken {
    directory: Arc<TempDir>,
    name: String,
    sha256: Sha256,
}

impl Taken {
    /// The file called `name` beside this program.
    ///
    /// # Errors
    /// If it is not there, or cannot be copied.
    pub fn beside_this_program(name: &str) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut file = program.with_file_name(name);
        // The program of a unit test lies one directory deeper.
        if !file.is_file()
            && let Some(above) = program.parent().and_then(Path::parent)
        {
            file = above.join(name);
        }
        if !file.is_file() {
            bail!(
                "there is no {}: `cargo build --release` builds it",
                program.with_file_name(name).display()
            );
        }
        Self::copy_of(&file, name)
    }

    /// A copy of `file`, called `name`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_of(file: &Path, name: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mutexlab-taken-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let copy = directory.path().join(name);
        fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(Self {
            sha256: Sha256::of_file(&copy)?,
            name: name.to_owned(),
            directory: Arc::new(directory),
        })
    }

    /// Where the copy is, for as long as this lives.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// The copy's hash.
    pub const fn sha256(&self) -> &Sha256 {
        &self.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_built_anew_stays_as_it_was_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "old").unwrap();
        let taken = Taken::copy_of(&file, "a").unwrap();
        fs::write(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(taken.file()).unwrap(), "old");
        assert_eq!(*taken.sha256(), Sha256::of("old"));
        let path = taken.file();
        drop(taken);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_there_is_told_with_what_builds_it() {
        let error = Taken::beside_this_program("no-such-file").unwrap_err();
        assert!(
            error.to_string().contains("cargo build --release"),
            "{error}"
        );
    }
}
