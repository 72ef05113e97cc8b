// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where things lie: the repository and the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the repository that the current directory is in.
///
/// # Errors
/// If it is in none.
pub fn repository() -> Result<PathBuf> {
    let here = std::env::current_dir().context("cannot find the current directory")?;
    here.ancestors()
        .find(|directory| is_repository(directory))
        .map(Path::to_owned)
        .with_context(|| {
            format!(
                "{} is not inside the mutexlab repository: change into it",
                here.display()
            )
        })
}

fn is_repository(directory: &Path) -> bool {
    ["module", "harness", "scenarios"]
        .iter()
        .all(|name| directory.join(name).is_dir())
}

/// The cache: `$MUTEXLAB_CACHE`, else `mutexlab` in the user's cache directory.
///
/// # Errors
/// If neither the variable nor a home directory is set.
pub fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    variable("MUTEXLAB_CACHE")
        .map(PathBuf::from)
        .or_else(|| variable("XDG_CACHE_HOME").map(|base| PathBuf::from(base).join("mutexlab")))
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache/mutexlab")))
        .context("neither MUTEXLAB_CACHE nor HOME is set: set one to say where the cache is")
}
