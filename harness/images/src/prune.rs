// SPDX-License-Identifier: MIT OR Apache-2.0

//! What of the cache can go.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    catalog::Catalog,
    lock::Lock,
    metadata::{self, State},
    place::Source,
    source,
    toolchain::Toolchain,
    usage::{age, disk_usage, unused},
    workshop,
    {cache, store::Cache},
};

/// Which images and modules go that could still be used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Those that nobody has used for so long.
    pub older_than: Option<Duration>,
    /// Images that no kernel of the catalogue has with this machine's toolchain.
    pub all_but_current: bool,
}

/// What kind of thing can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A built kernel.
    Image,
    /// An unpacked source.
    Source,
    /// A package or tarball.
    Download,
    /// Modules built against an image.
    Modules,
    /// Where commits of a kernel's repository are built.
    Workshop,
}

/// Something that can go.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// How much of the disk it takes.
    pub bytes: u64,
    /// How long ago it was last used, in seconds.
    pub unused_seconds: u64,
    /// Why it can go.
    pub why: String,
}

/// What came of removing an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// Another process uses it, so it stays.
    InUse,
}

/// What can go by `rules`, images first.
///
/// What nothing can use goes by any rules: what unfinished builds left, damaged images, sources of
/// no image and no kernel, downloads of no kernel.
///
/// # Errors
/// If a key cannot be computed.
pub fn plan(
    cache: &Cache,
    catalog: &Catalog,
    toolchain: &Toolchain,
    rules: Rules,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut current = BTreeSet::new();
    for kernel in catalog.kernels() {
        current.extend(cache.candidates(kernel, toolchain)?);
    }
    for directory in cache.image_directories() {
        let why = if is_partial(&directory) {
            is_left(&cache::lock_path(&directory.with_extension("")))?
                .then(|| "an unfinished build left it".to_owned())
        } else {
            match State::of(&directory)? {
                State::Absent => Some("it is no image".to_owned()),
                State::Damaged(why) => Some(format!("it is damaged: {why}")),
                State::Whole(_) if rules.all_but_current && !current.contains(&directory) => {
                    Some("it is of another source, configuration or toolchain".to_owned())
                }
                State::Whole(_) => too_old(&cache::lock_path(&directory), rules),
            }
        };
        items.extend(why.map(|why| item(&directory, Kind::Image, why)));
    }
    let going: BTreeSet<PathBuf> = items.iter().map(|item| item.path.clone()).collect();
    let needed = needed_sources(cache, catalog, &going);
    for directory in cache::directories(&cache.directory().join("sources")) {
        if is_partial(&directory) {
            if is_left(&cache::lock_path(&directory.with_extension("")))? {
                let why = "it was not unpacked to the end";
                items.push(item(&directory, Kind::Source, why));
            }
        } else if !needed.contains(&directory) {
            items.push(item(
                &directory,
                Kind::Source,
                "no image and no kernel is of it",
            ));
        }
    }
    items.extend(unneeded_downloads(cache, catalog)?);
    for directory in cache::directories(&cache.directory().join("modules")) {
        let why = if is_partial(&directory) {
            is_left(&crate::kept::lock_path(
                cache,
                &directory.with_extension(""),
            ))?
            .then(|| "an unfinished build left it".to_owned())
        } else {
            too_old(&directory.join(crate::kept::SENTINEL), rules)
        };
        items.extend(why.map(|why| item(&directory, Kind::Modules, why)));
    }
    for directory in cache::directories(&workshop::directory(cache)) {
        let lock = cache::lock_path(&directory.with_extension(""));
        let why = if is_partial(&directory) {
            is_left(&lock)?.then(|| "it was not removed to the end".to_owned())
        } else {
            too_old(&lock, rules)
        };
        items.extend(why.map(|why| item(&directory, Kind::Workshop, why)));
    }
    Ok(items)
}

/// Removes an item, unless another process uses it.
///
/// # Errors
/// If it cannot be locked or removed.
pub fn remove(cache: &Cache, catalog: &Catalog, item: &Item) -> Result<Removal> {
    let path = &item.path;
    let cannot = || format!("cannot remove {}", path.display());
    let whole = path.with_extension("");
    let whole = if is_partial(path) { &whole } else { path };
    let lock = match item.kind {
        Kind::Image | Kind::Source | Kind::Workshop => cache::lock_path(whole),
        Kind::Modules => crate::kept::lock_path(cache, whole),
        Kind::Download => lock_of_download(cache, path),
    };
    let Some(_alone) = Lock::try_acquire(&lock)? else {
        return Ok(Removal::InUse);
    };
    if item.kind == Kind::Download {
        fs::remove_file(path).with_context(cannot)?;
        return Ok(Removal::Removed);
    }
    // An image may have been made of it since.
    if item.kind == Kind::Source && needed_sources(cache, catalog, &BTreeSet::new()).contains(path)
    {
        return Ok(Removal::InUse);
    }
    if item.kind == Kind::Workshop {
        workshop::forget(path);
    }
    // Under another name first: what is removed in part must not be taken for a whole.
    let partial = cache::beside(whole, "partial");
    if *path != partial {
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(cannot)?;
        }
        fs::rename(path, &partial).with_context(cannot)?;
    }
    fs::remove_dir_all(&partial).with_context(cannot)?;
    Ok(Removal::Removed)
}

/// Whether nobody is at work on what has this lock.
fn is_left(lock: &Path) -> Result<bool> {
    Ok(Lock::try_acquire(lock)?.is_some())
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "partial")
}

/// Trees that the catalogue's kernels are built from, and those of images that stay.
fn needed_sources(
    cache: &Cache,
    catalog: &Catalog,
    going: &BTreeSet<PathBuf>,
) -> BTreeSet<PathBuf> {
    let mut needed: BTreeSet<PathBuf> = cache
        .image_directories()
        .iter()
        .filter(|directory| !going.contains(*directory))
        .filter_map(|directory| Some(metadata::read(directory)?.source))
        .collect();
    for kernel in catalog.kernels() {
        for place in &kernel.sources {
            if let Source::Pool { sha256, .. }
            | Source::Tarball { sha256, .. }
            | Source::File { sha256, .. } = place
            {
                needed.insert(source::directory(kernel, sha256, cache.directory()));
            }
        }
    }
    needed
}

/// The lock of a download, whether it is whole or partial.
fn lock_of_download(cache: &Cache, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    source::download_lock(cache.directory(), name.trim_end_matches(".partial"))
}

fn unneeded_downloads(cache: &Cache, catalog: &Catalog) -> Result<Vec<Item>> {
    let pinned: BTreeSet<&str> = catalog
        .kernels()
        .iter()
        .flat_map(|kernel| &kernel.sources)
        .filter_map(|place| match place {
            Source::Pool { path, .. } | Source::Tarball { path, .. } => path.rsplit('/').next(),
            Source::File { .. } | Source::Tree { .. } => None,
        })
        .collect();
    let mut items = Vec::new();
    for entry in fs::read_dir(cache.directory().join("downloads"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // What stands in for a pinned one may be on its way.
        if !pinned.contains(name.trim_end_matches(".partial"))
            && is_left(&lock_of_download(cache, &path))?
        {
            items.push(item(&path, Kind::Download, "no kernel is of it"));
        }
    }
    Ok(items)
}

fn item(path: &Path, kind: Kind, why: impl Into<String>) -> Item {
    let used = match kind {
        Kind::Image | Kind::Workshop => cache::lock_path(path),
        Kind::Modules => path.join(crate::kept::SENTINEL),
        Kind::Source | Kind::Download => path.to_owned(),
    };
    Item {
        bytes: disk_usage(path),
        unused_seconds: unused(&used).unwrap_or_default().as_secs(),
        path: path.to_owned(),
        kind,
        why: why.into(),
    }
}

fn too_old(stamp: &Path, rules: Rules) -> Option<String> {
    let limit = rules.older_than?;
    // What has no stamp is being made.
    let unused = unused(stamp)?;
    (unused >= limit).then(|| format!("nobody has used it for {}", age(unused)))
}

#[cfg(test)]
mod tests;
