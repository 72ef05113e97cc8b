// SPDX-License-Identifier: MIT OR Apache-2.0

//! A built kernel, and what it was built from.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{ensure, Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalog::KernelName;
use super::lock::Lock;
use super::manifest::{Manifest, BOOTED, MANIFEST_FILE};
use super::toolchain::Toolchain;
use mutexlab_host::hash::Sha256;
use mutexlab_model::stand_in::StandIn;

/// Its presence makes an image valid: it is written last.
pub const METADATA_FILE: &str = "image.json";

/// What an image was built from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// Name of the kernel and its flavour, as `7.3:plain`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// Hash of the source package or tarball; of a tree, of its files' names, sizes and times.
    pub source_sha256: Sha256,
    /// What stood in for the pinned sources, if they were gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<StandIn>,
    /// Where the source was unpacked, which modules are built against, too; of a commit's kernel the workshop's tree.
    pub source: PathBuf,
    /// Hash of the complete configuration.
    pub config_sha256: Sha256,
    /// What it was compiled with.
    pub toolchain: Toolchain,
    /// How long that took, in seconds, the source's unpacking included if it was necessary.
    pub build_seconds: f64,
    /// Lines that make printed.
    pub steps: u64,
    /// When it was finished, in seconds since 1970.
    pub built_at: u64,
}

/// A kernel that is ready to boot, and to build modules against.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name.
    pub name: KernelName,
    /// The output directory of its build: what `make -C` takes to build a module.
    pub directory: PathBuf,
    /// What it was built from.
    pub metadata: Metadata,
    /// Keeps it from being pruned, where it was asked for to be used.
    pub(super) in_use: Option<Arc<Lock>>,
}

impl Image {
    /// The file that QEMU boots.
    pub fn kernel_image(&self) -> PathBuf {
        self.directory.join(BOOTED)
    }

    /// The kernel with its symbols.
    pub fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// What keeps it from being pruned while it is held; none if it was only looked for.
    pub fn in_use(&self) -> Option<Arc<Lock>> {
        self.in_use.clone()
    }
}

/// What there is in an image's directory.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Nothing, or what an unfinished build left.
    Absent,
    /// An image that must not be used, and why.
    Damaged(String),
    /// An image.
    Whole(Box<Metadata>),
}

impl State {
    /// Looks into `directory`: at sizes and times of all files, and into what is booted.
    ///
    /// An image from before there were manifests gets its own.
    ///
    /// # Errors
    /// If a manifest cannot be written.
    pub fn of(directory: &Path) -> Result<State> {
        let path = directory.join(METADATA_FILE);
        let Ok(text) = fs::read(&path) else {
            return Ok(State::Absent);
        };
        let metadata: Metadata = match serde_json::from_slice(&text) {
            Ok(metadata) => metadata,
            Err(error) => return Ok(State::Damaged(format!("{METADATA_FILE}: {error}"))),
        };
        // Modules need the source as well: without it the image must be made again. One without make's output was kept
        // from a workshop, where they are built, which may have gone.
        let has_output = directory.join("Makefile").exists();
        if has_output && !metadata.source.join("Makefile").exists() {
            return Ok(State::Damaged(format!(
                "its source {} is gone",
                metadata.source.display()
            )));
        }
        let damage = match Manifest::load(directory) {
            Ok(Some(manifest)) => manifest.glance(directory).map(|damage| damage.to_string()),
            Ok(None) => {
                manifest_of(directory)?.save(directory)?;
                None
            }
            Err(error) => Some(format!("{error:#}")),
        };
        Ok(damage.map_or_else(|| State::Whole(Box::new(metadata)), State::Damaged))
    }
}

/// The manifest of an image that was just built.
///
/// # Errors
/// If something cannot be read.
pub fn manifest_of(directory: &Path) -> Result<Manifest> {
    Manifest::of(directory, |path| {
        ![METADATA_FILE, MANIFEST_FILE].contains(&path)
    })
}

/// What is known of the image in `directory`, whatever state it is in.
pub fn read(directory: &Path) -> Option<Metadata> {
    let text = fs::read(directory.join(METADATA_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes an image valid.
///
/// # Errors
/// If it cannot be written.
pub fn write(metadata: &Metadata, directory: &Path) -> Result<()> {
    let path = directory.join(METADATA_FILE);
    fs::write(&path, serde_json::to_string_pretty(metadata)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a build that knows itself in `from`, made of the source `old`, one that lies in `to`, made
/// of `new`; its files are in `directory`.
///
/// An output directory knows both in the Makefile that stands in for the source's: itself in newer
/// kernels, which export it there; older ones take make's working directory.
///
/// # Errors
/// If the Makefile knows its directory in another way, too.
pub fn relocate(directory: &Path, from: &Path, to: &Path, old: &Path, new: &Path) -> Result<()> {
    let path = directory.join("Makefile");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let output = |place: &Path| format!("export KBUILD_OUTPUT = {}\n", place.display());
    let source = |place: &Path| format!("{}/Makefile", place.display());
    let moved = text
        .replace(&output(from), &output(to))
        .replace(&source(old), &source(new));
    let knows = |place: &Path| moved.contains(&place.display().to_string());
    ensure!(
        (from == to || !knows(from)) && (old == new || !knows(old)),
        "{} names its directory in a way that is not known, so the build cannot be moved",
        path.display()
    );
    fs::write(&path, moved).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn metadata(source: &Path) -> Metadata {
        let hash = |byte| Sha256::from_bytes([byte; 32]);
        Metadata {
            name: "k:plain".to_owned(),
            release: "7.3.0".to_owned(),
            source_sha256: hash(2),
            stand_in: None,
            source: source.to_owned(),
            config_sha256: hash(3),
            toolchain: sample::toolchain(),
            build_seconds: 1.0,
            steps: 7,
            built_at: 0,
        }
    }

    #[test]
    fn an_image_is_valid_by_its_metadata_its_source_and_its_files() {
        let root = tempfile::tempdir().unwrap();
        let (image, tree) = (root.path().join("image"), root.path().join("tree"));
        for directory in [&image, &tree] {
            fs::create_dir(directory).unwrap();
        }
        let damage = |part: &str| {
            let State::Damaged(why) = State::of(&image).unwrap() else {
                panic!("not damaged: {part}")
            };
            assert!(why.contains(part), "{why}");
        };
        assert_eq!(State::of(&image).unwrap(), State::Absent);
        let metadata = metadata(&tree);
        fs::write(image.join("vmlinux"), "symbols").unwrap();
        write(&metadata, &image).unwrap();
        // Kept from a workshop that is gone.
        assert!(matches!(State::of(&image).unwrap(), State::Whole(_)));
        fs::remove_file(image.join(MANIFEST_FILE)).unwrap();
        fs::write(image.join("Makefile"), "include").unwrap();
        damage("source");
        fs::write(tree.join("Makefile"), "").unwrap();
        let whole = State::Whole(Box::new(metadata.clone()));
        assert_eq!(State::of(&image).unwrap(), whole);
        assert!(image.join(MANIFEST_FILE).is_file(), "it was adopted");
        assert_eq!(State::of(&image).unwrap(), whole);
        fs::write(image.join("vmlinux"), "none").unwrap();
        damage("vmlinux has 4 bytes");
        fs::write(image.join(METADATA_FILE), "{").unwrap();
        damage("image.json");
        assert_eq!(read(&image), None);
    }

    #[test]
    fn an_older_image_has_nothing_of_what_was_added() {
        let mut old = serde_json::to_value(metadata(Path::new("/tree"))).unwrap();
        let toolchain = old.get_mut("toolchain").unwrap().as_object_mut().unwrap();
        toolchain.remove("rustc_llvm");
        let old: Metadata = serde_json::from_value(old).unwrap();
        assert_eq!(old.toolchain.rustc_llvm, "");
        assert_eq!(old.stand_in, None);
    }

    #[test]
    fn a_build_is_moved_with_the_places_it_knows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (from, to) = (path.join("a.partial"), path.join("a"));
        let (old, new) = (Path::new("/s"), Path::new("/t"));
        let file = path.join("Makefile");
        let makefile = |place: &Path, source: &Path| {
            format!(
                "# x\nexport KBUILD_OUTPUT = {}\ninclude {}/Makefile\n",
                place.display(),
                source.display()
            )
        };
        fs::write(&file, makefile(&from, old)).unwrap();
        relocate(path, &from, &to, old, old).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), makefile(&to, old));
        relocate(path, &to, &to, old, new).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), makefile(&to, new));
        // 6.12 does not say where it lies, so there is nothing to change.
        let silent = "# x\ninclude /s/Makefile\n";
        fs::write(&file, silent).unwrap();
        relocate(path, &from, &to, old, old).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), silent);
        for unknown in [format!("O := {}\n", from.display()), "S := /s\n".into()] {
            fs::write(&file, unknown).unwrap();
            assert!(relocate(path, &from, &to, old, new).is_err());
        }
    }
}
