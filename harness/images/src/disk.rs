// SPDX-License-Identifier: MIT OR Apache-2.0

//! Room on the disk.

use std::path::Path;

use anyhow::{ensure, Context, Result};

const GIB: u64 = 1 << 30;

/// Bytes that are free where `directory` is.
pub fn free(directory: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory)
        .with_context(|| format!("cannot see how full the disk of {} is", directory.display()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// An error if there is less than `bytes` of room in `directory`.
pub fn require(directory: &Path, bytes: u64) -> Result<()> {
    let free = free(directory)?;
    ensure!(
        free >= bytes,
        "the disk of {} is full: {:.1} GiB are needed, {:.1} GiB are free; make room, or set \
         MUTEXLAB_CACHE to a directory on another disk",
        directory.display(),
        bytes as f64 / GIB as f64,
        free as f64 / GIB as f64
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named() {
        let directory = tempfile::tempdir().unwrap();
        require(directory.path(), 1).unwrap();
        let error = require(directory.path(), u64::MAX).unwrap_err().to_string();
        assert!(
            error.contains(&directory.path().display().to_string()),
            "{error}"
        );
    }
}
