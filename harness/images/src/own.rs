// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules and BPF programs of others, in source: built, and kept by their content.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::lock::Lock;
use crate::modules::{errors, lock_path, make, mark_used, SENTINEL};
use crate::store::Cache;
use crate::toolchain::search_path;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;

/// Endings of what a build leaves, which is no source.
const BUILT: [&str; 7] = ["o", "ko", "a", "mod", "cmd", "symvers", "order"];
/// Arguments for a compiler of BPF, with types for the verifier's messages.
const BPF_ARGUMENTS: [&str; 7] = [
    "-target",
    "bpf",
    "-O2",
    "-g",
    "-Wall",
    // Where Debian keeps what is of one architecture: <asm/types.h>.
    "-I/usr/include/x86_64-linux-gnu",
    "-c",
];

/// What was built, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    /// The file beside this.
    file: String,
    sha256: Sha256,
}

/// The module `file` of the Kbuild directory `sources`, built against the kernel tree `tree` unless it was; `tree_key`
/// names the tree's content.
///
/// # Errors
/// If it does not build, or the user interrupts. The message has the first errors and names the log.
pub fn module(
    sources: &Path,
    file: &str,
    cache: &Cache,
    (tree, tree_key): (&Path, &str),
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let found = find_sources(sources)?;
    let mut text = format!("module {file} {tree_key}\n");
    for name in &found {
        let hash = Sha256::of_file(&sources.join(name))?;
        text.push_str(&format!("{} {}\n", name.display(), hash.as_str()));
    }
    let build = |partial: &Path| -> Result<()> {
        for name in &found {
            let to = partial.join(name);
            let parent = to.parent().unwrap_or(partial);
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
            fs::copy(sources.join(name), &to)
                .with_context(|| format!("cannot copy {}", name.display()))?;
        }
        make(tree, partial, &search_path(cache)?, interrupt)
            .with_context(|| format!("the module in {}", sources.display()))?;
        ensure!(
            partial.join(file).is_file(),
            "the module in {} was built, but its build gave no {file}",
            sources.display()
        );
        Ok(())
    };
    kept(cache, &text, file, interrupt, build)
}

/// The object of the BPF program `source`, in C, compiled unless it was.
///
/// # Errors
/// If it does not compile, or the user interrupts. The message has the first errors.
pub fn bpf(source: &Path, cache: &Cache, interrupt: &Interrupt) -> Result<PathBuf> {
    const FILE: &str = "program.o";
    let path = search_path(cache)?;
    let version = duct::cmd!("clang", "--version").env("PATH", &path).read();
    let version = version.context("cannot run clang, which compiles BPF; see './just doctor'")?;
    let hash = Sha256::of_file(source)?;
    let arguments = BPF_ARGUMENTS.join(" ");
    let text = format!("bpf {} {arguments} {version}\n", hash.as_str());
    let build = |partial: &Path| -> Result<()> {
        let arguments = BPF_ARGUMENTS.map(Into::into);
        let files = [
            source.into(),
            "-o".into(),
            partial.join(FILE).into_os_string(),
        ];
        let output = duct::cmd("clang", arguments.into_iter().chain(files))
            .env("PATH", &path)
            .stderr_to_stdout()
            .stdout_capture()
            .unchecked()
            .run()
            .context("cannot run clang")?;
        if !output.status.success() {
            bail!(
                "{} does not compile ({}):\n{}",
                source.display(),
                output.status,
                errors(&String::from_utf8_lossy(&output.stdout))
            );
        }
        Ok(())
    };
    kept(cache, &text, FILE, interrupt, build)
}

/// The file called `file` that `build` makes in an empty directory, unless that was done for the same `content`.
fn kept(
    cache: &Cache,
    content: &str,
    file: &str,
    interrupt: &Interrupt,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let key = Sha256::of(content);
    let directory = cache.directory().join("modules").join(&key.as_str()[..16]);
    let finished = || -> Option<PathBuf> {
        let text = fs::read(directory.join(SENTINEL)).ok()?;
        let provenance: Provenance = serde_json::from_slice(&text).ok()?;
        let built = directory.join(&provenance.file);
        let whole = Sha256::of_file(&built).ok()? == provenance.sha256;
        (whole && provenance.file == file).then_some(built)
    };
    if let Some(built) = finished() {
        mark_used(&directory);
        return Ok(built);
    }
    let _lock = Lock::acquire(
        &lock_path(cache, &directory),
        "building a module",
        interrupt,
    )?;
    if let Some(built) = finished() {
        return Ok(built);
    }
    let partial = directory.with_extension("partial");
    for stale in [&partial, &directory] {
        if stale.exists() {
            fs::remove_dir_all(stale)
                .with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    build(&partial)?;
    let provenance = Provenance {
        file: file.to_owned(),
        sha256: Sha256::of_file(&partial.join(file))?,
    };
    let sentinel = partial.join(SENTINEL);
    fs::write(&sentinel, serde_json::to_vec_pretty(&provenance)?)
        .with_context(|| format!("cannot write {}", sentinel.display()))?;
    fs::rename(&partial, &directory)
        .with_context(|| format!("cannot move {} to its place", partial.display()))?;
    finished().with_context(|| format!("{} changed while it was built", directory.display()))
}

/// The files below `directory` that are no build's, in the order of names.
fn find_sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let path = directory.join(&below);
        let entries =
            fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            let name = below.join(entry.file_name());
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let built = name
                .extension()
                .is_some_and(|extension| BUILT.iter().any(|built| extension == *built));
            if entry.path().is_dir() && !hidden {
                left.push(name);
            } else if !(hidden || built) {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_left_is_no_source() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        for name in [
            "Kbuild",
            "nat.c",
            "nat.o",
            "nat.ko",
            ".nat.o.cmd",
            "sub/x.h",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = find_sources(directory.path()).unwrap();
        assert_eq!(found, ["Kbuild", "nat.c", "sub/x.h"].map(PathBuf::from));
    }
}
