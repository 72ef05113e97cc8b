// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built once and kept: a directory of the cache's `modules`, named by what its content depends on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lock::Lock;
use crate::store::Cache;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;

/// Its presence makes a directory valid; it was last written to when that was last used.
pub const SENTINEL: &str = "modules.json";

/// Where what depends on `content` is kept.
pub fn directory(cache: &Cache, content: &str) -> PathBuf {
    let key = Sha256::of(content);
    cache.directory().join("modules").join(&key.as_str()[..16])
}

/// The lock of such a directory: whoever builds or removes it has it.
pub fn lock_path(cache: &Cache, directory: &Path) -> PathBuf {
    let key = directory.file_name().unwrap_or_default().to_string_lossy();
    cache
        .directory()
        .join("locks")
        .join(format!("modules-{key}"))
}

/// What `whole` finds in `directory`, which is marked as used then.
pub fn used<T>(directory: &Path, whole: impl Fn(&Path) -> Option<T>) -> Option<T> {
    let found = whole(directory)?;
    // Without it it merely seems older.
    if let Ok(file) = fs::File::options()
        .write(true)
        .open(directory.join(SENTINEL))
    {
        file.set_modified(std::time::SystemTime::now()).ok();
    }
    Some(found)
}

/// What `whole` finds in `directory`; if it finds nothing, `build` makes it in an empty directory beside, and says
/// what it is.
///
/// # Errors
/// If it does not build, or the user interrupts.
pub fn ensure<T, P: Serialize>(
    cache: &Cache,
    directory: &Path,
    what: &str,
    interrupt: &Interrupt,
    whole: impl Fn(&Path) -> Option<T>,
    build: impl FnOnce(&Path) -> Result<P>,
) -> Result<T> {
    if let Some(found) = used(directory, &whole) {
        return Ok(found);
    }
    let lock = lock_path(cache, directory);
    let _lock = Lock::acquire(&lock, what, interrupt)?;
    if let Some(found) = whole(directory) {
        return Ok(found);
    }
    let partial = directory.with_extension("partial");
    for stale in [partial.as_path(), directory] {
        if stale.exists() {
            fs::remove_dir_all(stale)
                .with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let provenance = build(&partial)?;
    let sentinel = partial.join(SENTINEL);
    fs::write(&sentinel, serde_json::to_vec_pretty(&provenance)?)
        .with_context(|| format!("cannot write {}", sentinel.display()))?;
    fs::rename(&partial, directory)
        .with_context(|| format!("cannot move {} to its place", partial.display()))?;
    whole(directory).with_context(|| format!("{} changed while it was built", directory.display()))
}
