// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packing an image.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure, Context, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::contents::{Contents, CONTENTS, FORMAT, SOURCE};
use crate::build::is_intermediate;
use crate::manifest::{Entry, Manifest};
use crate::metadata::Image;
use crate::progress::Progress;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::parent;

/// zstd's level: beyond it minutes of time win a few percent.
const LEVEL: &str = "-12";

/// What came of packing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Packed {
    /// The archive.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub sha256: Sha256,
    /// The size of what is in it.
    pub unpacked_bytes: u64,
}

/// Whether building a module reads the file `path` of the kernel's source. Ours read a header of mm/, which
/// others do not.
pub(super) fn is_for_modules(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["Makefile"] => true,
        ["include", below, ..] => !["config", "generated"].contains(&below),
        ["arch", "x86", name] => name.starts_with("Makefile"),
        ["arch", "x86", ..] => parts.contains(&"include") && !parts.contains(&"generated"),
        ["scripts", below, _, ..] => !["atomic", "dtc", "kconfig", "package"].contains(&below),
        ["scripts", _] => true,
        ["mm", name] => name.ends_with(".h"),
        _ => false,
    }
}

/// Packs `image`, which must be whole, as `file`, which appears only once it is complete.
///
/// # Errors
/// If a file of the image is damaged, the archive cannot be written, or the user interrupts: nothing
/// of it stays then.
pub fn pack(image: &Image, file: &Path, interrupt: &Interrupt) -> Result<Packed> {
    let directory = &image.directory;
    let contents = contents(image)?;
    let unpacked_bytes = contents.image.bytes() + contents.source.bytes();
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let cannot_write = || format!("cannot write {}", file.display());
    let archive = tempfile::NamedTempFile::new_in(parent).with_context(cannot_write)?;
    let progress = Progress::bytes(&format!("packing {}", image.name), unpacked_bytes);
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let zstd = duct::cmd!("zstd", "--quiet", "--threads=0", LEVEL)
        .before_spawn(parent::ends_it)
        .stdin_file(reader)
        .stdout_file(archive.reopen().with_context(cannot_write)?)
        .stderr_capture()
        .unchecked()
        .start()
        .context("cannot run zstd: `./just doctor` tells what is missing")?;
    let written = write_members(&contents, directory, writer, &progress, interrupt);
    let output = zstd.wait().context("zstd")?;
    // Ctrl-C may have ended zstd first.
    interrupt.check()?;
    ensure!(
        output.status.success(),
        "{}: zstd says {}",
        cannot_write(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written.with_context(cannot_write)?;
    archive.as_file().sync_all().with_context(cannot_write)?;
    // Temporary files are for their owner alone; this one is for others.
    archive
        .as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .with_context(cannot_write)?;
    archive.persist(file).with_context(cannot_write)?;
    progress.done();
    Ok(Packed {
        file: file.to_owned(),
        bytes: fs::metadata(file).with_context(cannot_write)?.len(),
        sha256: Sha256::of_file(file)?,
        unpacked_bytes,
    })
}

/// Lists what is to be packed, as it was when the image was built.
pub(super) fn contents(image: &Image) -> Result<Contents> {
    let directory = &image.directory;
    let recorded = Manifest::load(directory)?
        .with_context(|| format!("{} has no list of its files", directory.display()))?;
    let mut contents = Contents {
        format: FORMAT,
        directory: directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        built_in: directory.clone(),
        metadata: image.metadata.clone(),
        image: Manifest::default(),
        source: Manifest::default(),
    };
    let is_within = image.metadata.source == directory.join(SOURCE);
    for (path, entry) in recorded.files {
        let name = path.rsplit('/').next().unwrap_or(&path);
        match path.strip_prefix("source/") {
            Some(below) if is_within => {
                contents.source.files.insert(below.to_owned(), entry);
            }
            _ if path == SOURCE || is_intermediate(name) => {}
            _ => {
                contents.image.files.insert(path, entry);
            }
        }
    }
    if !is_within {
        contents.source = Manifest::of(&image.metadata.source, is_for_modules)?;
    }
    let damages = contents.image.verify(directory);
    if let Some(damage) = damages.first() {
        bail!("{} is damaged: {damage}", directory.display());
    }
    Ok(contents)
}

pub(super) fn write_members(
    contents: &Contents,
    directory: &Path,
    writer: impl Write,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut archive = tar::Builder::new(writer);
    let list = serde_json::to_vec(contents).context("cannot list the contents")?;
    let mut header = tar::Header::new_gnu();
    header.set_size(list.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, CONTENTS, list.as_slice())?;
    let mut done = 0;
    for (prefix, from, manifest) in [
        ("image", directory, &contents.image),
        ("source", &contents.metadata.source, &contents.source),
    ] {
        for (path, entry) in &manifest.files {
            interrupt.check()?;
            let name = format!("{prefix}/{path}");
            let mut header = tar::Header::new_gnu();
            match entry {
                Entry::Link { to } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, name, to)?;
                }
                Entry::File {
                    bytes, executable, ..
                } => {
                    header.set_size(*bytes);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    archive.append_data(&mut header, name, File::open(from.join(path))?)?;
                    done += bytes;
                    progress.set(done);
                }
            }
        }
    }
    archive.into_inner()?.flush()?;
    Ok(())
}
