// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel's source on this machine: fetched, checked and unpacked once.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{bail, Context, Result};
use sha2::Digest;

use super::catalog::Recipe;
use super::lock::Lock;
use super::place::Source;
use super::progress::Progress;
use super::store::Cache;
use super::{disk, download, mirror};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::parent;

/// What an unpacked tree takes, about.
const TREE_BYTES: u64 = 2 << 30;

/// What is never compiled here and makes up two thirds of a kernel's source: unpacking it would
/// cost more time than all else. Every Kconfig and Makefile is kept, so kconfig sees the whole.
const LEFT_OUT: &[&str] = &[
    "*/Documentation/*.rst",
    "*/Documentation/*.txt",
    "*/Documentation/*.yaml",
    "*/Documentation/*.svg",
    "*/drivers/gpu/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/drivers/infiniband/*.[ch]",
    "*/drivers/iio/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/scsi/*.[ch]",
    "*/drivers/usb/*.[ch]",
    "*/sound/*.[ch]",
    "*.dts",
    "*.dtsi",
    "*/tools/testing/*",
    "*/tools/perf/*",
];

/// Identifies a source's content without having it, as far as possible.
///
/// A package or tarball is known by its hash. A tree is known by the names, sizes and times of
/// its files; the error names it if it cannot be read.
pub fn identity(source: &Source) -> Result<Sha256> {
    match source {
        Source::Pool { sha256, .. }
        | Source::Tarball { sha256, .. }
        | Source::File { sha256, .. } => Ok(sha256.clone()),
        Source::Tree { path } => {
            let mut hash = sha2::Sha256::new();
            hash.update(path.as_os_str().as_encoded_bytes());
            hash_tree(path, &mut hash)?;
            Ok(Sha256::digest(hash))
        }
    }
}

fn hash_tree(directory: &Path, hash: &mut sha2::Sha256) -> Result<()> {
    let unreadable = || format!("cannot read the kernel tree {}", directory.display());
    let mut entries = fs::read_dir(directory)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .with_context(unreadable)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name();
        if name == ".git" {
            continue;
        }
        let metadata = entry.metadata().with_context(unreadable)?;
        hash.update(name.as_encoded_bytes());
        if metadata.is_dir() {
            hash.update([0]);
            hash_tree(&entry.path(), hash)?;
            hash.update([1]);
        } else {
            for number in [
                metadata.len() as i64,
                metadata.mtime(),
                metadata.mtime_nsec(),
            ] {
                hash.update(number.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// A tree to build from, which stays as long as this is held.
#[derive(Debug)]
pub struct Tree {
    /// Where it is.
    pub path: PathBuf,
    /// Keeps it from being pruned; none for a tree of the user's.
    _in_use: Option<Lock>,
}

/// Where the tree of the source with the hash `sha256` lies in `cache`.
pub fn directory(kernel: &Recipe, sha256: &Sha256, cache: &Path) -> PathBuf {
    let name = format!("{}-{}", kernel.name.kernel, sha256.short());
    cache.join("sources").join(name)
}

/// The lock of the download called `name`: whoever fetches, unpacks or removes it has it.
pub fn download_lock(cache: &Path, name: &str) -> PathBuf {
    cache.join("locks").join(format!("download-{name}"))
}

/// The tree of `source`, fetched into `cache` and unpacked there if need be.
pub fn ensure(
    kernel: &Recipe,
    source: &Source,
    cache: &Cache,
    interrupt: &Interrupt,
) -> Result<Tree> {
    let sha256 = match source {
        Source::Tree { path } => {
            return Ok(Tree {
                path: path.clone(),
                _in_use: None,
            });
        }
        Source::Pool { sha256, .. }
        | Source::Tarball { sha256, .. }
        | Source::File { sha256, .. } => sha256,
    };
    let tree = directory(kernel, sha256, cache.directory());
    let name = tree.file_name().unwrap_or_default().to_string_lossy();
    let lock = tree.with_file_name(format!("{name}.lock"));
    let what = format!("fetching the source of {name}");
    loop {
        let in_use = Lock::shared(&lock, &what, interrupt)?;
        if tree.exists() {
            return Ok(Tree {
                path: tree,
                _in_use: Some(in_use),
            });
        }
        drop(in_use);
        let _alone = Lock::acquire(&lock, &what, interrupt)?;
        if !tree.exists() {
            fetch(source, cache, &tree, interrupt)?;
        }
    }
}

/// Fetches and unpacks it. The caller has the tree's lock.
fn fetch(source: &Source, cache: &Cache, tree: &Path, interrupt: &Interrupt) -> Result<()> {
    let directory = cache.directory();
    disk::require(directory, TREE_BYTES)?;
    let download = |path: &str, urls: &[String], sha256, bytes| -> Result<_> {
        let downloads = directory.join("downloads");
        fs::create_dir_all(&downloads)
            .with_context(|| format!("cannot make the directory {}", downloads.display()))?;
        let name = path.rsplit('/').next().unwrap_or(path);
        let lock = download_lock(directory, name);
        let alone = Lock::acquire(&lock, &format!("downloading {name}"), interrupt)?;
        let file = downloads.join(name);
        download::fetch(urls, &file, sha256, bytes, interrupt)?;
        Ok((file, Some(alone)))
    };
    let (file, _alone) = match source {
        Source::Pool {
            path,
            archive,
            sha256,
            bytes,
        } => {
            let urls: Vec<_> = mirror::urls(*archive, cache.surroundings())?
                .iter()
                .map(|mirror| format!("{mirror}/{path}"))
                .collect();
            download(path, &urls, sha256, Some(*bytes))?
        }
        Source::Tarball { path, sha256 } => download(
            path,
            &[format!("{}/{path}", mirror::upstream(cache.surroundings()))],
            sha256,
            None,
        )?,
        Source::File { path, sha256 } => {
            download::verify(path, sha256)?;
            (path.clone(), None)
        }
        Source::Tree { path } => bail!("{} is a tree already", path.display()),
    };
    let mut partial = tree.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial)
        .with_context(|| format!("cannot make the directory {}", partial.display()))?;
    unpack(&file, &partial, interrupt)?;
    fs::rename(&partial, tree)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), tree.display()))
}

/// Unpacks a Debian `linux-source` package, or a tarball, without its topmost directory.
fn unpack(file: &Path, directory: &Path, interrupt: &Interrupt) -> Result<()> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let progress = Progress::steps(&format!("unpacking {name}"), 0);
    let tarball = match file.extension().and_then(|e| e.to_str()) {
        Some("deb") => {
            let members = duct::cmd!("ar", "t", file)
                .read()
                .with_context(|| format!("cannot list the package {}", file.display()))?;
            let data = members
                .lines()
                .find(|member| member.starts_with("data.tar"))
                .with_context(|| format!("{} is no Debian package", file.display()))?;
            duct::cmd!("ar", "p", file, data)
                .pipe(decompressor(data)?)
                .pipe(duct::cmd!(
                    "tar",
                    "--extract",
                    "--to-stdout",
                    "--wildcards",
                    "*/usr/src/linux-source-*.tar.xz"
                ))
                .pipe(decompressor("x.xz")?)
        }
        _ => decompressor(&name)?.stdin_path(file),
    };
    let mut arguments = vec!["--extract".into(), "--strip-components=1".into()];
    arguments.extend(
        LEFT_OUT
            .iter()
            .map(|pattern| format!("--exclude={pattern}").into()),
    );
    arguments.extend(["--directory".into(), directory.as_os_str().to_owned()]);
    let pipe = tarball
        .pipe(duct::cmd("tar", arguments))
        .before_spawn(parent::ends_it)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked();
    let unpacked = download::run(&pipe, interrupt, || ());
    interrupt.check()?;
    let output = unpacked.with_context(|| format!("cannot unpack {}", file.display()))?;
    if !output.status.success() {
        bail!(
            "cannot unpack {} to {}: {}",
            file.display(),
            directory.display(),
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .next()
                .unwrap_or("tar failed")
        );
    }
    progress.done();
    Ok(())
}

/// A filter that decompresses what is named `name`.
fn decompressor(name: &str) -> Result<duct::Expression> {
    match name.rsplit('.').next() {
        Some("xz") => Ok(duct::cmd!("xz", "--decompress", "--stdout", "--threads=0")),
        Some("gz") => Ok(duct::cmd!("gzip", "--decompress", "--stdout")),
        Some("zst") => Ok(duct::cmd!("zstd", "--decompress", "--stdout", "--quiet")),
        Some("tar") => Ok(duct::cmd!("cat")),
        _ => bail!("{name} is neither a .deb, nor a .tar, .tar.xz, .tar.gz or .tar.zst"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tarball_loses_its_top_directory_and_what_is_never_compiled() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("linux-7.3");
        for path in [
            "Kconfig",
            "drivers/gpu/drm/Kconfig",
            "drivers/gpu/drm/a.c",
            "mm/slub.c",
        ] {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        let tarball = directory.path().join("linux.tar.gz");
        duct::cmd!("tar", "-czf", &tarball, "-C", directory.path(), "linux-7.3")
            .run()
            .unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        unpack(&tarball, &tree, &Interrupt::install().unwrap()).unwrap();
        for path in ["Kconfig", "drivers/gpu/drm/Kconfig", "mm/slub.c"] {
            assert!(tree.join(path).exists(), "{path}");
        }
        assert!(!tree.join("drivers/gpu/drm/a.c").exists());
    }

    #[test]
    fn a_broken_tarball_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let tarball = directory.path().join("linux.tar.xz");
        fs::write(&tarball, "not xz").unwrap();
        let interrupt = Interrupt::install().unwrap();
        let error = unpack(&tarball, directory.path(), &interrupt)
            .unwrap_err()
            .to_string();
        assert!(error.contains("linux.tar.xz"), "{error}");
    }

    #[test]
    fn a_tree_is_known_by_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::Tree {
            path: directory.path().to_owned(),
        };
        let file = directory.path().join("a.c");
        fs::write(&file, "1").unwrap();
        let first = identity(&source).unwrap();
        assert_eq!(identity(&source).unwrap(), first);
        fs::write(&file, "12").unwrap();
        assert_ne!(identity(&source).unwrap(), first);
    }
}
