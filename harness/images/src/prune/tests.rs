// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes, and what stays.

use std::time::SystemTime;

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
