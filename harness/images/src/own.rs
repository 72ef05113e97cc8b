// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules and BPF programs of others, in source: built, and kept by their content.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::kept::{self, SENTINEL};
use crate::modules::{errors, make};
use crate::store::Cache;
use crate::toolchain::search_path;
use mutexlab_host::files;
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
    let hash = files::digest(sources, &found)?;
    let content = format!("module {file} {tree_key}\n{hash}\n");
    kept(cache, &content, file, interrupt, |partial| {
        files::copy(sources, &found, partial)?;
        make(tree, partial, &search_path(cache)?, interrupt)
            .with_context(|| format!("the module in {}", sources.display()))?;
        ensure!(
            partial.join(file).is_file(),
            "the module in {} was built, but its build gave no {file}",
            sources.display()
        );
        Ok(())
    })
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
    // What it includes may lie beside it.
    let directory = source.parent().unwrap_or(source);
    let hash = files::digest(directory, &find_sources(directory)?)?;
    let name = source.file_name().unwrap_or_default().display();
    let arguments = BPF_ARGUMENTS.join(" ");
    let text = format!("bpf {name} {hash} {arguments} {version}\n");
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
    let whole = |directory: &Path| -> Option<PathBuf> {
        let text = fs::read(directory.join(SENTINEL)).ok()?;
        let provenance: Provenance = serde_json::from_slice(&text).ok()?;
        let built = directory.join(&provenance.file);
        let same = Sha256::of_file(&built).ok()? == provenance.sha256;
        (same && provenance.file == file).then_some(built)
    };
    let directory = kept::directory(cache, content);
    let what = "building a module";
    kept::ensure(cache, &directory, what, interrupt, whole, |partial| {
        build(partial)?;
        Ok(Provenance {
            file: file.to_owned(),
            sha256: Sha256::of_file(&partial.join(file))?,
        })
    })
}

/// The files below `directory` that are no build's, in the order of names.
fn find_sources(directory: &Path) -> Result<Vec<PathBuf>> {
    files::below(directory, |name, metadata| {
        let file = name.file_name().unwrap_or_default();
        let hidden = file.as_encoded_bytes().starts_with(b".");
        let extension = name.extension().filter(|_| !metadata.is_dir());
        let built = extension.is_some_and(|end| BUILT.iter().any(|built| end == *built));
        Ok(!(hidden || built))
    })
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
