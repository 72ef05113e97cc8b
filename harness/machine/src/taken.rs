// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files that were built with this program, as they were when it needed them first.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use mutexlab_host::hash::Sha256;
use mutexlab_host::surroundings::Surroundings;

/// A copy of a file, and its hash: whoever rebuilds the file while it is in use does not change what measures. The
/// copy has no name, so that nothing of it is left however this process ends.
#[derive(Clone, Debug)]
pub struct Taken {
    copy: Arc<File>,
    sha256: Sha256,
}

impl Taken {
    /// The file called `name` that was built with this program.
    ///
    /// # Errors
    /// If it is not there, or cannot be copied.
    pub fn built_with_this(name: &str, surroundings: &Surroundings) -> Result<Self> {
        let file = surroundings.built.join(name);
        if !file.is_file() {
            bail!(
                "there is no {}: `cargo build --release` builds it",
                file.display()
            );
        }
        Self::copy_of(&file)
    }

    /// A copy of `file`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_of(file: &Path) -> Result<Self> {
        let copied = || -> io::Result<File> {
            let mut copy = tempfile::NamedTempFile::new()?;
            io::copy(&mut File::open(file)?, &mut copy)?;
            let mode = fs::metadata(file)?.permissions();
            fs::set_permissions(copy.path(), mode)?;
            // A program that somebody has open for writing cannot be started.
            File::open(copy.path())
        };
        let copy = copied().with_context(|| format!("cannot copy {}", file.display()))?;
        let mut taken = Self {
            copy: Arc::new(copy),
            sha256: Sha256::of(""),
        };
        taken.sha256 = Sha256::of_file(&taken.file())?;
        Ok(taken)
    }

    /// Where the copy is, for as long as this lives.
    pub fn file(&self) -> PathBuf {
        let descriptor = self.copy.as_raw_fd();
        PathBuf::from(format!("/proc/{}/fd/{descriptor}", std::process::id()))
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
        let taken = Taken::copy_of(&file).unwrap();
        fs::write(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(taken.file()).unwrap(), "old");
        assert_eq!(*taken.sha256(), Sha256::of("old"));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_builds_it() {
        let error = Taken::built_with_this("no-such-file", &Surroundings::usual(Path::new("/")))
            .unwrap_err();
        assert!(
            error.to_string().contains("cargo build --release"),
            "{error}"
        );
    }
}
