// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unpacking an image, and believing nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{symlink, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{bail, ensure, Context, Result};
use sha2::Digest;

use super::contents::{Contents, CONTENTS, FORMAT, SOURCE};
use crate::catalog::KernelName;
use crate::lock::Lock;
use crate::manifest::Entry;
use crate::metadata::{Metadata, State};
use crate::progress::Progress;
use crate::store::Cache;
use crate::{cache, disk, metadata};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::parent;

/// The longest that the list of contents may be; those of real images are a hundredth of it.
const CONTENTS_LIMIT: u64 = 64 << 20;

/// Unpacks `file` into the cache, unless the image is there, and gives its directory. `expected`
/// is the archive's own hash, if it is known.
///
/// # Errors
/// If the archive is damaged, or is none, or the user interrupts: nothing of it stays.
pub fn unpack(
    cache: &Cache,
    file: &Path,
    expected: Option<&Sha256>,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let refused = || format!("{} is not unpacked", file.display());
    if let Some(expected) = expected {
        let found = Sha256::of_file(file)?;
        ensure!(
            found == *expected,
            "{}: its SHA-256 is {found}, and not {expected}",
            refused()
        );
    }
    ensure!(file.is_file(), "{}: there is no such file", refused());
    let zstd = duct::cmd!("zstd", "--decompress", "--stdout", "--quiet", file)
        .before_spawn(parent::ends_it)
        .stderr_capture()
        .reader()
        .context("cannot run zstd: `./just doctor` tells what is missing")?;
    let mut archive = tar::Archive::new(&zstd);
    let mut members = archive.entries().with_context(refused)?;
    let first = members
        .next()
        .context("it is empty")
        .with_context(refused)?
        .with_context(refused)?;
    let contents = read_contents(first).with_context(refused)?;
    let directory = cache.images().join(&contents.directory);
    let lock = cache::lock_path(&directory);
    let what = format!("building or using {}", contents.directory);
    let _alone = Lock::acquire(&lock, &what, interrupt)?;
    if matches!(State::of(&directory)?, State::Whole(_)) {
        return Ok(directory);
    }
    let partial = cache::beside(&directory, "partial");
    for leftover in [&partial, &directory] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)
                .with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    let unpacked = unpack_members(&contents, members, &partial, interrupt)
        .and_then(|()| {
            // What is left are zeros; zstd compares its own checksum at the end.
            io::copy(&mut &zstd, &mut io::sink()).context("it is cut off or damaged")?;
            settle(&contents, &partial, &directory)
        })
        .with_context(refused);
    if unpacked.is_err() {
        fs::remove_dir_all(&partial).ok();
        // Ctrl-C may have ended zstd first, as if the archive were cut off.
        interrupt.check()?;
    }
    unpacked.map(|()| directory)
}

fn read_contents(member: tar::Entry<'_, impl Read>) -> Result<Contents> {
    ensure!(
        member.path()?.as_os_str() == CONTENTS,
        "it is no archive of `mutexlab image pack`"
    );
    let mut text = Vec::new();
    member.take(CONTENTS_LIMIT).read_to_end(&mut text)?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).context("its list of contents is damaged")?;
    ensure!(
        value.get("format") == Some(&FORMAT.into()),
        "it is of format {}, but this program reads {FORMAT}",
        value.get("format").unwrap_or(&serde_json::Value::Null)
    );
    let contents: Contents =
        serde_json::from_value(value).context("its list of contents is damaged")?;
    // It becomes the name of a directory.
    let name: KernelName = contents.metadata.name.parse()?;
    let key = [name.kernel.as_str(), cache::TREE]
        .into_iter()
        .find_map(|kernel| {
            let start = format!("{kernel}-{}-", name.flavour);
            contents.directory.strip_prefix(&start)
        });
    ensure!(
        key.is_some_and(|key| key.len() == 12 && key.bytes().all(|b| b.is_ascii_hexdigit())),
        "it has an image called {:?}, which is no name for one of {name}",
        contents.directory
    );
    for path in contents
        .image
        .files
        .keys()
        .chain(contents.source.files.keys())
    {
        let is_plain = path.split('/').all(|part| !["", ".", ".."].contains(&part));
        ensure!(is_plain, "it has a file called {path:?}");
    }
    Ok(contents)
}

fn unpack_members<'a, R: Read + 'a>(
    contents: &Contents,
    members: impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
    partial: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let bytes = contents.image.bytes() + contents.source.bytes();
    fs::create_dir_all(partial)
        .with_context(|| format!("cannot make the directory {}", partial.display()))?;
    disk::require(partial, bytes)?;
    let progress = Progress::bytes(&format!("unpacking {}", contents.metadata.name), bytes);
    // By where they are unpacked.
    let place = |prefix: &str, path: &str| match prefix {
        "source" => format!("{SOURCE}/{path}"),
        _ => path.to_owned(),
    };
    let mut left: BTreeMap<String, &Entry> = BTreeMap::new();
    for (prefix, manifest) in [("image", &contents.image), ("source", &contents.source)] {
        left.extend(
            manifest
                .files
                .iter()
                .map(|(path, entry)| (place(prefix, path), entry)),
        );
    }
    let (mut links, mut done) = (Vec::new(), 0);
    for member in members {
        interrupt.check()?;
        let mut member = member.context("it is cut off or damaged")?;
        let name = member.path()?.to_string_lossy().into_owned();
        let (prefix, path) = name.split_once('/').unwrap_or_default();
        let path = place(prefix, path);
        let entry = left
            .remove(&path)
            .with_context(|| format!("it has {name}, which its list has not, or not twice"))?;
        match entry {
            Entry::Link { to } => links.push((path, to)),
            Entry::File { bytes, .. } => {
                unpack_file(&mut member, entry, &partial.join(&path))
                    .with_context(|| name.clone())?;
                done += bytes;
                progress.set(done);
            }
        }
    }
    if let Some(path) = left.keys().next() {
        bail!("it lacks {path} and {} others", left.len() - 1);
    }
    // Only now, so that nothing is written through them.
    for (path, to) in links {
        let path = partial.join(path);
        make_parent(&path)?;
        symlink(to, &path).with_context(|| format!("cannot make the link {}", path.display()))?;
    }
    progress.done();
    Ok(())
}

fn unpack_file(member: &mut impl Read, entry: &Entry, path: &Path) -> Result<()> {
    let Entry::File {
        bytes,
        modified,
        executable,
        sha256,
    } = entry
    else {
        bail!("it is no file");
    };
    make_parent(path)?;
    let cannot_write = || format!("cannot write {}", path.display());
    let mut file = File::create_new(path).with_context(cannot_write)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut count = 0;
    loop {
        let length = member
            .read(&mut buffer)
            .context("it is cut off or damaged")?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        file.write_all(&buffer[..length])
            .with_context(cannot_write)?;
        count += length as u64;
    }
    let found = Sha256::digest(hash);
    ensure!(
        count == *bytes && found == *sha256,
        "it is damaged: {count} bytes with SHA-256 {found}, and not {bytes} with {sha256}"
    );
    let mode = if *executable { 0o755 } else { 0o644 };
    file.set_permissions(fs::Permissions::from_mode(mode))
        .with_context(cannot_write)?;
    // make must not hold one for older than another.
    let time = UNIX_EPOCH + Duration::from_nanos(u64::try_from(*modified).unwrap_or(0));
    file.set_modified(time).with_context(cannot_write)
}

pub(super) fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)
        .with_context(|| format!("cannot make the directory {}", parent.display()))
}

/// Makes an image of what was unpacked.
fn settle(contents: &Contents, partial: &Path, directory: &Path) -> Result<()> {
    let metadata = Metadata {
        source: directory.join(SOURCE),
        ..contents.metadata.clone()
    };
    metadata::relocate(
        partial,
        &contents.built_in,
        directory,
        &contents.metadata.source,
        &metadata.source,
    )?;
    cache::finish(partial, directory, &metadata)
}
