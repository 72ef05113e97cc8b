// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the repository lies, and the running program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository that `directory` is in.
///
/// # Errors
/// If it is in none.
pub fn repository_above(directory: &Path) -> Result<PathBuf> {
    let mut above = directory.ancestors();
    above
        .find(|directory| is_repository(directory))
        .map(Path::to_owned)
        .with_context(|| {
            format!(
                "{} is not inside the mutexlab repository: change into it",
                directory.display()
            )
        })
}

fn is_repository(directory: &Path) -> bool {
    ["module", "harness", "scenarios"]
        .iter()
        .all(|name| directory.join(name).is_dir())
}

/// The running program's file, even if another one has taken its name since: whoever rebuilds
/// the harness while it measures must not change what measures.
pub fn this_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}
