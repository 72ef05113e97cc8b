// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the cache is.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Overrides where the cache is.
pub const CACHE_VARIABLE: &str = "MUTEXLAB_CACHE";

/// The directory with everything that is expensive to make: sources, images and tools.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache of this user: `$MUTEXLAB_CACHE`, else `mutexlab` under `$XDG_CACHE_HOME`, else
    /// under `~/.cache`. An error if none of them is known.
    pub fn new() -> Result<Cache> {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = variable(CACHE_VARIABLE)
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("mutexlab")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/mutexlab")))
            .with_context(|| format!("set {CACHE_VARIABLE}, since HOME is not set"))?;
        Ok(Cache::at(&directory))
    }

    /// A cache in another place.
    pub fn at(directory: &Path) -> Cache {
        // make changes its directory, so it needs an absolute path.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Cache { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
