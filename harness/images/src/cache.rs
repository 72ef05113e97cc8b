// SPDX-License-Identifier: MIT OR Apache-2.0

//! Built kernels, each built once for a source, a configuration and a toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{anyhow, Context, Result};

use super::catalog::{KernelName, Recipe};
use super::key::key;
use super::lock::Lock;
use super::metadata::{Image, Metadata, State, METADATA_FILE};
use super::place::Source;
use super::store::Cache;
use super::toolchain::Toolchain;
use super::{build, metadata, newest, requirements, source};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_model::stand_in::StandIn;

/// Lines that make prints for a kernel, until one has been built.
const STEPS_ESTIMATE: u64 = 1650;
/// What stands for the kernel's name in images of a tree: it is one image, whatever somebody calls it.
pub(super) const TREE: &str = "tree";

/// The source that an image is built from.
struct Chosen<'a> {
    /// Where it is from.
    place: &'a Source,
    /// Where it is now.
    tree: source::Tree,
    /// What it is, if it is no pinned one.
    stand_in: Option<StandIn>,
}

impl Cache {
    /// The image of `kernel` if there is one that fits its sources, its configuration and this
    /// machine's toolchain. It may be pruned at any time: to use it, take [`Cache::ensure`]'s.
    ///
    /// # Errors
    /// If the toolchain cannot be asked, or fragments contradict each other.
    pub fn find(&self, kernel: &Recipe) -> Result<Option<Image>> {
        let toolchain = Toolchain::detect(self)?;
        for directory in self.candidates(kernel, &toolchain)? {
            if let State::Whole(metadata) = State::of(&directory)? {
                return Ok(Some(image(kernel, directory, *metadata, None)));
            }
        }
        Ok(None)
    }

    /// What the image of `kernel` depends on, as one hash: that of the image that there is, else
    /// that of the one that would be built first.
    ///
    /// # Errors
    /// If a compiler is missing, or no source of the kernel can be told from another.
    pub fn key(&self, kernel: &Recipe) -> Result<Sha256> {
        let keys = self.keys(kernel, &Toolchain::detect(self)?)?;
        for key in &keys {
            if let State::Whole(_) = State::of(&self.image_directory(kernel, key))? {
                return Ok(key.clone());
            }
        }
        keys.into_iter()
            .next()
            .with_context(|| format!("no source of {} can be read", kernel.name))
    }

    /// Where an image of `kernel` may be, best first.
    pub fn candidates(&self, kernel: &Recipe, toolchain: &Toolchain) -> Result<Vec<PathBuf>> {
        let keys = self.keys(kernel, toolchain)?;
        Ok(keys
            .iter()
            .map(|key| self.image_directory(kernel, key))
            .collect())
    }

    /// The keys of images of `kernel`, best first: of its pinned sources, and of what stood in for
    /// them.
    fn keys(&self, kernel: &Recipe, toolchain: &Toolchain) -> Result<Vec<Sha256>> {
        let mut keys = Vec::new();
        for place in &kernel.sources {
            // A place that cannot be read has no image.
            if let Ok(identity) = source::identity(place) {
                keys.push(key(kernel, &identity, toolchain)?);
            }
        }
        let name = kernel.name.to_string();
        for directory in self.image_directories() {
            let Some(metadata) = metadata::read(&directory) else {
                continue;
            };
            if metadata.stand_in.is_none() || metadata.name != name {
                continue;
            }
            let key = key(kernel, &metadata.source_sha256, toolchain)?;
            if directory == self.image_directory(kernel, &key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The image of `kernel`, built if there is none. Building takes minutes and shows its
    /// progress; another process that builds the same is waited for. The image stays as long as it
    /// is held.
    ///
    /// # Errors
    /// Names the file it is about: a download with the wrong hash, a log, a full disk; or what of
    /// the toolchain is too old; or says that the user interrupts.
    pub fn ensure(&self, kernel: &Recipe, interrupt: &Interrupt) -> Result<Image> {
        let toolchain = Toolchain::detect(self)?;
        for directory in self.candidates(kernel, &toolchain)? {
            if let Some(image) = self.take(kernel, &directory, interrupt)? {
                return Ok(image);
            }
        }
        fs::create_dir_all(self.directory())
            .with_context(|| format!("cannot make the cache {}", self.directory().display()))?;
        let started = Instant::now();
        let mut failures = Vec::new();
        for place in &kernel.sources {
            match source::ensure(kernel, place, self, interrupt) {
                Ok(tree) => {
                    let chosen = Chosen {
                        place,
                        tree,
                        stand_in: None,
                    };
                    return self.build(kernel, &chosen, &toolchain, started, interrupt);
                }
                Err(error) => {
                    interrupt.check()?;
                    log::info!("no source of {}: {error:#}", kernel.name);
                    failures.push(format!("{error:#}"));
                }
            }
        }
        let gone = || {
            anyhow!(
                "the source of {} cannot be had:\n  {}\nA mirror drops superseded versions; a copy with \
                 the right SHA-256 can be put there by hand",
                kernel.name,
                failures.join("\n  ")
            )
        };
        let Some(series) = &kernel.newest else {
            return Err(gone());
        };
        let (place, stand_in) = newest::look_up(series, self.surroundings(), interrupt)
            .with_context(|| format!("{:#}\nnor can another version", gone()))?;
        announce(kernel, &stand_in);
        let tree = source::ensure(kernel, &place, self, interrupt).with_context(gone)?;
        let chosen = Chosen {
            place: &place,
            tree,
            stand_in: Some(stand_in),
        };
        self.build(kernel, &chosen, &toolchain, started, interrupt)
    }

    /// The image in `directory`, if it is whole; it stays as long as it is held.
    pub(super) fn take(
        &self,
        kernel: &Recipe,
        directory: &Path,
        interrupt: &Interrupt,
    ) -> Result<Option<Image>> {
        if !directory.join(METADATA_FILE).exists() {
            return Ok(None);
        }
        let lock_path = lock_path(directory);
        let what = format!("building {}", kernel.name);
        let lock = Lock::shared(&lock_path, &what, interrupt)?;
        match State::of(directory)? {
            State::Absent => Ok(None),
            State::Damaged(why) => {
                log::info!(
                    "the image {} is damaged: {why}; it will be built anew",
                    directory.display()
                );
                Ok(None)
            }
            State::Whole(metadata) => {
                mark_used(&lock_path);
                if let Some(stand_in) = &metadata.stand_in {
                    announce(kernel, stand_in);
                }
                let lock = Some(Arc::new(lock));
                Ok(Some(image(kernel, directory.to_owned(), *metadata, lock)))
            }
        }
    }

    fn build(
        &self,
        kernel: &Recipe,
        chosen: &Chosen<'_>,
        toolchain: &Toolchain,
        started: Instant,
        interrupt: &Interrupt,
    ) -> Result<Image> {
        let Chosen {
            place,
            tree,
            stand_in,
        } = chosen;
        requirements::check(kernel, &tree.path, toolchain)?;
        let identity = source::identity(place)?;
        let directory = self.image_directory(kernel, &key(kernel, &identity, toolchain)?);
        loop {
            let lock = Lock::acquire(
                &lock_path(&directory),
                &format!("building or using {}", kernel.name),
                interrupt,
            )?;
            if !matches!(State::of(&directory)?, State::Whole(_)) {
                let partial = cleared(&directory)?;
                let log = directory.file_name().unwrap_or_default().to_string_lossy();
                let log = self.directory().join("logs").join(format!("{log}.log"));
                let steps = self.steps(kernel);
                let built =
                    build::build(self, kernel, &tree.path, &partial, &log, steps, interrupt)?;
                build::trim(&partial)?;
                let metadata = Metadata {
                    stand_in: stand_in.clone(),
                    ..built.metadata(kernel, &identity, &tree.path, toolchain, started)
                };
                metadata::relocate(&partial, &partial, &directory, &tree.path, &tree.path)?;
                finish(&partial, &directory, &metadata)?;
            }
            drop(lock);
            // Someone may prune it in between.
            if let Some(image) = self.take(kernel, &directory, interrupt)? {
                return Ok(image);
            }
        }
    }

    /// Where the image of `kernel` with this key is, or would be.
    pub(super) fn image_directory(&self, kernel: &Recipe, key: &Sha256) -> PathBuf {
        let KernelName {
            kernel: name,
            flavour,
        } = &kernel.name;
        let name = match kernel.sources.as_slice() {
            [Source::Tree { .. }] => TREE,
            _ => name,
        };
        self.images()
            .join(format!("{name}-{flavour}-{}", key.short()))
    }

    /// Where all images are.
    pub(super) fn images(&self) -> PathBuf {
        self.directory().join("images")
    }

    /// All directories of images, in no order; unfinished ones as well.
    pub fn image_directories(&self) -> Vec<PathBuf> {
        directories(&self.images())
    }

    /// How many lines make will print, by the newest image of the same name.
    fn steps(&self, kernel: &Recipe) -> u64 {
        let name = kernel.name.to_string();
        self.image_directories()
            .iter()
            .filter_map(|directory| metadata::read(directory))
            .filter(|metadata| metadata.name == name)
            .max_by_key(|metadata| metadata.built_at)
            .map_or(STEPS_ESTIMATE, |metadata| metadata.steps)
    }
}

/// The directories in `directory`; none if it is not there.
pub(super) fn directories(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Where what is to be in `directory` is made, beside it: what an unfinished build left in either goes.
pub(super) fn cleared(directory: &Path) -> Result<PathBuf> {
    let partial = beside(directory, "partial");
    for leftover in [partial.as_path(), directory] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)
                .with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    Ok(partial)
}

/// Puts what is complete in `partial` in its place: an image from now on.
pub(super) fn finish(partial: &Path, directory: &Path, metadata: &Metadata) -> Result<()> {
    metadata::manifest_of(partial)?.save(partial)?;
    metadata::write(metadata, partial)?;
    fs::rename(partial, directory).with_context(|| {
        format!(
            "cannot rename {} to {}",
            partial.display(),
            directory.display()
        )
    })
}

fn image(
    kernel: &Recipe,
    directory: PathBuf,
    metadata: Metadata,
    in_use: Option<Arc<Lock>>,
) -> Image {
    Image {
        name: kernel.name.clone(),
        directory,
        metadata,
        in_use,
    }
}

/// Whoever uses an image that is not of a pinned source shall know.
fn announce(kernel: &Recipe, stand_in: &StandIn) {
    log::warn!(
        "WARNING: {} is not of a pinned source, since none could be had, but of the newest that \
         there was: {}. Its numbers are those of another kernel.",
        kernel.name,
        stand_in.describe()
    );
}

/// The lock of the image in `directory`: one has it alone to build or remove it, many share it who
/// use it. It was last written to when the image was last used.
pub fn lock_path(directory: &Path) -> PathBuf {
    beside(directory, "lock")
}

pub(super) fn mark_used(lock: &Path) {
    // Without it the image merely seems older.
    if let Ok(file) = fs::File::options().write(true).open(lock) {
        file.set_modified(SystemTime::now()).ok();
    }
}

/// `directory.suffix`.
pub(super) fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
