// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files below a directory: which there are, and what they are all together.

use std::fs;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::Digest as _;

use crate::hash::Sha256;

/// The files below `directory`, named from there on, in the order of their names. `keeps` is asked about each file, and about
/// each directory before it is looked into; symbolic links are followed. What it fails with ends the walk.
///
/// # Errors
/// If a directory cannot be listed, or `keeps` fails.
pub fn below(
    directory: &Path,
    mut keeps: impl FnMut(&Path, &Metadata) -> Result<bool>,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let path = directory.join(&below);
        let cannot = || format!("cannot list {}", path.display());
        for entry in fs::read_dir(&path).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let name = below.join(entry.file_name());
            let metadata = fs::metadata(entry.path())
                .with_context(|| format!("cannot look at {}", entry.path().display()))?;
            if !keeps(&name, &metadata)? {
                continue;
            }
            if metadata.is_dir() {
                left.push(name);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A hash over the names and contents of `files`, which are below `directory`.
///
/// # Errors
/// If one cannot be read.
pub fn digest(directory: &Path, files: &[PathBuf]) -> Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    for file in files {
        let path = directory.join(file);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Lengths keep a name and the content behind it apart.
        hash.update(format!("{} {}\n", file.display(), content.len()));
        hash.update(&content);
    }
    Ok(Sha256::digest(hash))
}

/// Copies `files` from below one directory to below another.
///
/// # Errors
/// If one cannot be read or written.
pub fn copy(from: &Path, files: &[PathBuf], to: &Path) -> Result<()> {
    for file in files {
        let target = to.join(file);
        let parent = target.parent().unwrap_or(to);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::copy(from.join(file), &target)
            .with_context(|| format!("cannot copy {}", from.join(file).display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::tree;

    #[test]
    fn files_come_in_order_and_as_far_as_they_are_kept() {
        let tree = tree(&[("b/c", ""), ("a", ""), ("no/d", ""), ("no-file", "")]);
        let found = below(tree.path(), |name, _| {
            Ok(!name.to_string_lossy().starts_with("no"))
        });
        assert_eq!(found.unwrap(), ["a", "b/c"].map(PathBuf::from));
        let failed = below(tree.path(), |_, _| anyhow::bail!("too much"));
        assert_eq!(failed.unwrap_err().to_string(), "too much");
    }

    #[test]
    fn a_hash_is_of_names_and_contents_and_a_copy_has_the_same() {
        let hash = |files: &[(&str, &str)]| {
            let tree = tree(files);
            let found = below(tree.path(), |_, _| Ok(true)).unwrap();
            let copied = tempfile::tempdir().unwrap();
            copy(tree.path(), &found, copied.path()).unwrap();
            let hash = digest(tree.path(), &found).unwrap();
            assert_eq!(hash, digest(copied.path(), &found).unwrap());
            hash
        };
        let base = hash(&[("a", "x"), ("b/c", "y")]);
        assert_eq!(base, hash(&[("b/c", "y"), ("a", "x")]));
        for other in [
            hash(&[("a", "X"), ("b/c", "y")]),
            hash(&[("a", "x"), ("b/d", "y")]),
            hash(&[("a", "x")]),
            hash(&[("a", "x"), ("b/c", "y"), ("e", "")]),
        ] {
            assert_ne!(base, other);
        }
    }
}
