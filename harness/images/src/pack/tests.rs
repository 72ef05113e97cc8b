// SPDX-License-Identifier: MIT OR Apache-2.0

//! An archive comes out as it went in, or not at all.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::contents::Contents;
use super::{
    read::make_parent,
    write::{contents, is_for_modules, write_members},
    *,
};
use crate::manifest::Entry;
use crate::metadata::Metadata;
use crate::metadata::State;
use crate::progress::Progress;
use crate::{cache, metadata, sample, Cache, Image};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::{Interrupt, Interrupted};

/// What nobody interrupts.
fn quiet() -> Interrupt {
    Interrupt::install().unwrap()
}

#[test]
fn modules_are_built_with_these_parts_of_the_source() {
    for path in [
        "Makefile",
        "arch/x86/Makefile",
        "arch/x86/Makefile_32.cpu",
        "arch/x86/include/asm/tsc.h",
        "arch/x86/um/asm/include/a.h",
        "include/linux/skbuff.h",
        "scripts/Makefile.build",
        "scripts/mod/modpost.c",
        "mm/slab.h",
    ] {
        assert!(is_for_modules(path), "{path}");
    }
    for path in [
        "Kconfig",
        "mm/slub.c",
        "arch/arm64/include/asm/a.h",
        "arch/x86/kernel/cpu/common.c",
        "include/generated/utsrelease.h",
        "scripts/dtc/dtc.c",
    ] {
        assert!(!is_for_modules(path), "{path}");
    }
}

/// What a source of ours includes of the kernel's by a path from the source's root, not from include/.
fn included(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let end = path.extension().unwrap_or_default();
        if path.is_dir() {
            included(&path, found);
        } else if end == "c" || end == "h" {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let (name, _) = line.strip_prefix("#include <")?.split_once('>')?;
                let below_include = ["asm/", "linux/", "net/", "uapi/"];
                let elsewhere = !below_include.iter().any(|top| name.starts_with(top));
                elsewhere.then(|| name.to_owned())
            });
            found.extend(names);
        }
    }
}

#[test]
fn an_archive_has_what_our_modules_include() {
    let mut found = Vec::new();
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/../../module");
    included(Path::new(module), &mut found);
    assert!(!found.is_empty());
    for path in found {
        assert!(is_for_modules(&path), "{path}");
    }
}

/// A cache with an image, a source and a place for archives.
fn built() -> (tempfile::TempDir, Image) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("cache/images/k-plain-0123456789ab");
    let source = root.path().join("tree");
    for (path, text) in [
        (directory.join("arch/x86/boot/bzImage"), "kernel".to_owned()),
        (directory.join("vmlinux"), "symbols".repeat(10_000)),
        (directory.join(".tmp_vmlinux1.syms"), "a step".to_owned()),
        (
            directory.join("Makefile"),
            format!(
                "export KBUILD_OUTPUT = {}\ninclude {}/Makefile\n",
                directory.display(),
                source.display()
            ),
        ),
        (source.join("Makefile"), "all:".to_owned()),
        (source.join("include/linux/a.h"), "int a;".to_owned()),
        (source.join("mm/slub.c"), "never".to_owned()),
    ] {
        make_parent(&path).unwrap();
        fs::write(path, text).unwrap();
    }
    symlink(&source, directory.join("source")).unwrap();
    let metadata = Metadata {
        name: "k:plain".to_owned(),
        release: "7.3.0".to_owned(),
        source_sha256: Sha256::of("source"),
        stand_in: None,
        source,
        config_sha256: Sha256::of("config"),
        toolchain: sample::toolchain(),
        build_seconds: 1.0,
        steps: 7,
        built_at: 0,
    };
    metadata::manifest_of(&directory)
        .unwrap()
        .save(&directory)
        .unwrap();
    metadata::write(&metadata, &directory).unwrap();
    let image = Image {
        name: "k".parse().unwrap(),
        directory,
        metadata,
        in_use: None,
    };
    (root, image)
}

#[test]
fn what_was_packed_is_unpacked_elsewhere_and_packed_again() {
    let (root, image) = built();
    let file = root.path().join("k.tar.zst");
    let packed = pack(&image, &file, &quiet()).unwrap();
    assert_eq!(packed.sha256, Sha256::of_file(&file).unwrap());
    let cache = Cache::at(&root.path().join("other"));
    let directory = unpack(&cache, &file, Some(&packed.sha256), &quiet()).unwrap();
    let State::Whole(metadata) = State::of(&directory).unwrap() else {
        panic!()
    };
    assert_eq!(metadata.source, directory.join("source"));
    assert_eq!(metadata.config_sha256, image.metadata.config_sha256);
    let there = |path: &str| directory.join(path).exists();
    assert!(there("arch/x86/boot/bzImage") && there("source/include/linux/a.h"));
    assert!(!there(".tmp_vmlinux1.syms") && !there("source/mm/slub.c"));
    let makefile = fs::read_to_string(directory.join("Makefile")).unwrap();
    assert!(!makefile.contains("/tree"), "{makefile}");
    assert!(!makefile.contains("cache/images"), "{makefile}");
    // Once more, from there.
    let again = Image {
        directory: directory.clone(),
        metadata: *metadata,
        ..image
    };
    let second = root.path().join("again.tar.zst");
    pack(&again, &second, &quiet()).unwrap();
    let third = Cache::at(&root.path().join("third"));
    let directory = unpack(&third, &second, None, &quiet()).unwrap();
    assert!(directory.join("source/include/linux/a.h").exists());
}

#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let (root, image) = built();
    let file = root.path().join("k.tar.zst");
    let packed = pack(&image, &file, &quiet()).unwrap();
    let whole = fs::read(&file).unwrap();
    let cache = Cache::at(&root.path().join("other"));
    let refused = |expected: Option<&Sha256>| {
        let error = unpack(&cache, &file, expected, &quiet()).unwrap_err();
        assert!(format!("{error:#}").contains("k.tar.zst"), "{error:#}");
        let left = cache::directories(&cache.images());
        assert!(left.is_empty(), "{left:?}");
    };
    for place in [0, 10, whole.len() / 2, whole.len() - 3] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&file, damaged).unwrap();
        refused(None);
        refused(Some(&packed.sha256));
    }
    for length in [0, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        refused(None);
    }
    fs::write(&file, &whole).unwrap();
    unpack(&cache, &file, Some(&packed.sha256), &quiet()).unwrap();
}

#[test]
fn an_interrupt_leaves_nothing() {
    let (root, image) = built();
    let file = root.path().join("k.tar.zst");
    let raised = quiet();
    raised.raise();
    let error = pack(&image, &file, &raised).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().flatten().collect();
    assert!(!left.iter().any(|entry| entry.path().is_file()), "{left:?}");
    pack(&image, &file, &quiet()).unwrap();
    let cache = Cache::at(&root.path().join("other"));
    let error = unpack(&cache, &file, None, &raised).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error:#}");
    assert!(cache::directories(&cache.images()).is_empty());
    unpack(&cache, &file, None, &quiet()).unwrap();
}

#[test]
fn a_damaged_image_is_not_packed() {
    let (root, image) = built();
    let vmlinux = image.directory.join("vmlinux");
    fs::write(vmlinux, "symbolz".repeat(10_000)).unwrap();
    let file = root.path().join("k.tar.zst");
    let error = pack(&image, &file, &quiet()).unwrap_err().to_string();
    assert!(error.contains("vmlinux"), "{error}");
    assert!(!file.exists());
}

/// An archive whose list is `change`d after it was made.
fn forged(change: impl Fn(&mut Contents)) -> String {
    let (root, image) = built();
    let mut contents = contents(&image).unwrap();
    change(&mut contents);
    let mut archive = Vec::new();
    let progress = Progress::bytes("forging", 0);
    write_members(
        &contents,
        &image.directory,
        &mut archive,
        &progress,
        &quiet(),
    )
    .unwrap();
    let file = root.path().join("forged.tar.zst");
    duct::cmd!("zstd", "--quiet")
        .stdin_bytes(archive)
        .stdout_path(&file)
        .run()
        .unwrap();
    let cache = Cache::at(&root.path().join("other"));
    let error = unpack(&cache, &file, None, &quiet()).unwrap_err();
    assert!(cache::directories(&cache.images()).is_empty());
    format!("{error:#}")
}

#[test]
fn an_archive_that_lies_is_refused() {
    let error = forged(|contents| {
        let entry = contents.image.files.get_mut("vmlinux").unwrap();
        if let Entry::File { sha256, .. } = entry {
            *sha256 = Sha256::of("other");
        }
    });
    assert!(
        error.contains("vmlinux") && error.contains("damaged"),
        "{error}"
    );
    let error = forged(|contents| contents.directory = "../../k-plain-0123456789ab".into());
    assert!(error.contains("no name"), "{error}");
    let error = forged(|contents| contents.format = 99);
    assert!(error.contains("format 99"), "{error}");
}
