// SPDX-License-Identifier: MIT OR Apache-2.0

//! What of the cache can go.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Serialize;

pub use super::amount::{age, size};
use super::{
    catalog::Catalog,
    lock::Lock,
    metadata::{self, State},
    place::Source,
    source,
    toolchain::Toolchain,
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

/// How long ago `stamp` was written to.
pub fn unused(stamp: &Path) -> Option<Duration> {
    let time = fs::metadata(stamp).ok()?.modified().ok()?;
    // A stamp of the future was written just now.
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// How much of the disk is taken by all that is at `path`, in bytes.
pub fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below: u64 = if metadata.is_dir() {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| disk_usage(&entry.path()))
            .sum()
    } else {
        0
    };
    // stat(2) counts in units of 512 bytes whatever the file system does.
    metadata.blocks() * 512 + below
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sample, Metadata};
    use mutexlab_host::hash::Sha256;
    use mutexlab_host::interrupt::Interrupt;

    /// A repository with a kernel whose image is current, and a cache with that and what can go.
    fn setup() -> (tempfile::TempDir, Cache, Catalog) {
        let (root, kernel) = sample::kernel("", "7.3");
        let catalog = Catalog::load(root.path()).unwrap();
        fs::write(root.path().join("tree/Makefile"), "").unwrap();
        let cache = Cache::at(&root.path().join("cache"));
        let toolchain = sample::toolchain();
        let current = &cache.candidates(&kernel, &toolchain).unwrap()[0];
        let make = |directory: &Path, source: &Path| {
            fs::create_dir_all(directory).unwrap();
            let metadata = Metadata {
                name: "k:plain".to_owned(),
                release: "7.3.0".to_owned(),
                source_sha256: Sha256::of("source"),
                stand_in: None,
                source: source.to_owned(),
                config_sha256: Sha256::of("config"),
                toolchain: toolchain.clone(),
                build_seconds: 1.0,
                steps: 7,
                built_at: 0,
            };
            metadata::write(&metadata, directory).unwrap();
            drop(Lock::try_acquire(&cache::lock_path(directory)).unwrap());
        };
        let sources = cache.directory().join("sources");
        for name in ["old", "unused", "torn.partial"] {
            fs::create_dir_all(sources.join(name)).unwrap();
            fs::write(sources.join(name).join("Makefile"), "").unwrap();
        }
        make(current, &root.path().join("tree"));
        make(
            &cache.images().join("k-plain-000000000000"),
            &sources.join("old"),
        );
        fs::create_dir_all(cache.images().join("k-plain-111111111111.partial")).unwrap();
        fs::create_dir_all(
            cache
                .directory()
                .join("modules/0123456789abcdef.partial/sys"),
        )
        .unwrap();
        fs::create_dir_all(cache.directory().join("downloads")).unwrap();
        fs::write(cache.directory().join("downloads/x.deb"), "x").unwrap();
        (root, cache, catalog)
    }

    fn names(cache: &Cache, catalog: &Catalog, rules: Rules) -> Vec<String> {
        let mut names: Vec<_> = plan(cache, catalog, &sample::toolchain(), rules)
            .unwrap()
            .iter()
            .map(|item| {
                item.path
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_nothing_can_use_goes_by_any_rules() {
        let (_root, cache, catalog) = setup();
        let rules = Rules::default();
        assert_eq!(
            names(&cache, &catalog, rules),
            [
                "0123456789abcdef.partial",
                "k-plain-111111111111.partial",
                "torn.partial",
                "unused",
                "x.deb"
            ]
        );
        for item in plan(&cache, &catalog, &sample::toolchain(), rules).unwrap() {
            assert_eq!(remove(&cache, &catalog, &item).unwrap(), Removal::Removed);
            assert!(!item.path.exists(), "{item:?}");
        }
        assert!(names(&cache, &catalog, rules).is_empty());
        assert_eq!(cache.image_directories().len(), 2);
    }

    #[test]
    fn other_images_go_with_their_sources_and_the_current_stays() {
        let (_root, cache, catalog) = setup();
        let rules = Rules {
            all_but_current: true,
            ..Rules::default()
        };
        let going = names(&cache, &catalog, rules);
        assert!(
            going.contains(&"k-plain-000000000000".to_owned()),
            "{going:?}"
        );
        assert!(going.contains(&"old".to_owned()), "{going:?}");
        for item in plan(&cache, &catalog, &sample::toolchain(), rules).unwrap() {
            assert_eq!(remove(&cache, &catalog, &item).unwrap(), Removal::Removed);
        }
        assert_eq!(cache.image_directories().len(), 1);
        assert!(cache::directories(&cache.directory().join("sources")).is_empty());
    }

    #[test]
    fn age_is_since_the_last_use() {
        let (_root, cache, catalog) = setup();
        let rules = Rules {
            older_than: Some(Duration::from_secs(1000)),
            ..Rules::default()
        };
        let old = "k-plain-000000000000".to_owned();
        assert!(!names(&cache, &catalog, rules).contains(&old));
        let stamp = cache::lock_path(&cache.images().join(&old));
        let file = fs::File::options().write(true).open(stamp).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(2000))
            .unwrap();
        assert!(names(&cache, &catalog, rules).contains(&old));
    }

    #[test]
    fn what_is_in_use_stays() {
        let (_root, cache, catalog) = setup();
        let rules = Rules {
            all_but_current: true,
            ..Rules::default()
        };
        let directory = cache.images().join("k-plain-000000000000");
        let interrupt = Interrupt::install().unwrap();
        let _used = Lock::shared(&cache::lock_path(&directory), "testing", &interrupt).unwrap();
        for item in plan(&cache, &catalog, &sample::toolchain(), rules).unwrap() {
            let removal = remove(&cache, &catalog, &item).unwrap();
            let stays = item.path == directory || item.path.ends_with("sources/old");
            assert_eq!(removal == Removal::InUse, stays, "{item:?}");
        }
        assert!(directory.join("image.json").exists());
    }

    #[test]
    fn what_is_being_built_is_not_shown() {
        let (_root, cache, catalog) = setup();
        let image = cache.images().join("k-plain-111111111111");
        let source = cache.directory().join("sources/torn");
        let modules = cache.directory().join("modules/0123456789abcdef");
        let download = cache.directory().join("downloads/x.deb");
        fs::rename(&download, cache::beside(&download, "partial")).unwrap();
        for (whole, lock) in [
            (&image, cache::lock_path(&image)),
            (&source, cache::lock_path(&source)),
            (&modules, crate::kept::lock_path(&cache, &modules)),
            (&download, lock_of_download(&cache, &download)),
        ] {
            let name = whole.file_name().unwrap().to_string_lossy();
            let partial = format!("{name}.partial");
            let builder = Lock::try_acquire(&lock).unwrap();
            assert!(builder.is_some());
            assert!(!names(&cache, &catalog, Rules::default()).contains(&partial));
            drop(builder);
            assert!(names(&cache, &catalog, Rules::default()).contains(&partial));
        }
    }

    #[test]
    fn a_workshop_goes_by_age_and_what_was_kept_of_it_stays() {
        let (root, cache, catalog) = setup();
        let workshop = workshop::directory(&cache).join("0123456789ab");
        let kept = cache.images().join("tree-plain-000000000000");
        fs::rename(cache.images().join("k-plain-000000000000"), &kept).unwrap();
        let mut metadata = metadata::read(&kept).unwrap();
        metadata.source = workshop.join("tree");
        metadata::write(&metadata, &kept).unwrap();
        fs::create_dir_all(workshop.join("tree")).unwrap();
        fs::create_dir_all(cache::beside(&workshop, "partial")).unwrap();
        let stamp = cache::lock_path(&workshop);
        let builder = Lock::try_acquire(&stamp).unwrap();
        let rules = Rules {
            older_than: Some(Duration::from_secs(1000)),
            ..Rules::default()
        };
        let going = || {
            let items = plan(&cache, &catalog, &sample::toolchain(), rules).unwrap();
            let workshops = items.into_iter().filter(|item| item.kind == Kind::Workshop);
            workshops.map(|item| item.path).collect::<Vec<_>>()
        };
        assert!(going().is_empty(), "somebody builds there");
        drop(builder);
        let torn = cache::beside(&workshop, "partial");
        assert_eq!(going(), std::slice::from_ref(&torn));
        let file = fs::File::options().write(true).open(&stamp).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(2000))
            .unwrap();
        for item in plan(&cache, &catalog, &sample::toolchain(), rules).unwrap() {
            if item.kind == Kind::Workshop {
                assert_eq!(remove(&cache, &catalog, &item).unwrap(), Removal::Removed);
            }
        }
        assert!(!workshop.exists() && !torn.exists());
        assert!(matches!(State::of(&kept).unwrap(), State::Whole(_)));
        drop(root);
    }

    #[test]
    fn sizes_and_ages_have_units() {
        assert_eq!(size(1), "1 KiB");
        assert_eq!(size(241 << 20), "241 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(age(Duration::from_secs(7100)), "118 min");
        assert_eq!(age(Duration::from_secs(1_000_000)), "11 days");
    }
}
