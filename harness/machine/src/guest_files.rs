// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files of a guest's root, before they are anywhere: laid out in a directory that the guest shares, or packed into
//! an archive that it unpacks into its memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc;

/// Types of files, as the mode of an entry has them (cpio(5)).
mod kind {
    pub const DIRECTORY: u32 = 0o040_000;
    pub const DEVICE: u32 = 0o020_000;
    pub const FILE: u32 = 0o100_000;
    pub const LINK: u32 = 0o120_000;
}

/// The device that the kernel opens for its first program (Documentation/admin-guide/devices.txt): path, major and minor number.
const CONSOLE: (&str, u32, u32) = ("dev/console", 5, 1);

/// Files by their paths in the guest, which begin without `/`. Directories above a file are there with it.
#[derive(Debug, Default)]
pub struct GuestFiles(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Directory {
        mode: u32,
    },
    Bytes {
        bytes: Vec<u8>,
        mode: u32,
    },
    /// A file of this machine, and its mode there.
    Of(PathBuf),
    Link {
        to: String,
    },
}

impl GuestFiles {
    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Directory { mode });
    }

    /// Adds a file with this in it.
    pub fn write(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        let bytes = bytes.into();
        self.put(path, Entry::Bytes { bytes, mode });
    }

    /// Adds a copy of a file of this machine, which is read when the files are laid out or packed.
    pub fn copy(&mut self, from: &Path, path: &str) {
        self.put(path, Entry::Of(from.to_owned()));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.put(path, Entry::Link { to: to.to_owned() });
    }

    /// Whether there is something at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path.trim_start_matches('/'))
    }

    fn put(&mut self, path: &str, entry: Entry) {
        const MODE: u32 = 0o755;
        let path = path.trim_start_matches('/');
        for (slash, _) in path.match_indices('/') {
            let above = self.0.entry(path[..slash].to_owned());
            above.or_insert(Entry::Directory { mode: MODE });
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Lays all out in the directory `root`.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn lay_out(&self, root: &Path) -> Result<()> {
        for (path, entry) in &self.0 {
            let target = root.join(path);
            let cannot = || format!("cannot create {}", target.display());
            match entry {
                Entry::Directory { mode } => {
                    fs::create_dir_all(&target).with_context(cannot)?;
                    set_mode(&target, *mode)?;
                }
                Entry::Bytes { bytes, mode } => {
                    fs::write(&target, bytes).with_context(cannot)?;
                    set_mode(&target, *mode)?;
                }
                Entry::Of(from) => {
                    fs::copy(from, &target).with_context(|| {
                        format!("cannot copy {} to {}", from.display(), target.display())
                    })?;
                }
                Entry::Link { to } => symlink(to, &target).with_context(cannot)?,
            }
        }
        Ok(())
    }

    /// Packs all into `file` as an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst). The same files make the
    /// same archive: the order is that of their names, and no time, owner or number of this machine is in it.
    ///
    /// # Errors
    /// If a file cannot be read, or `file` not be written.
    pub fn pack(&self, file: &Path) -> Result<()> {
        let cannot = || format!("cannot write {}", file.display());
        let mut archive = io::BufWriter::new(File::create(file).with_context(cannot)?);
        let mut inode = 0;
        let mut entry = |path: &str, mode: u32| {
            inode += 1;
            newc::Builder::new(path).ino(inode).mode(mode)
        };
        for (path, what) in &self.0 {
            match what {
                Entry::Directory { mode } => {
                    add(&mut archive, entry(path, kind::DIRECTORY | mode), &[])
                        .with_context(cannot)?;
                }
                Entry::Bytes { bytes, mode } => {
                    add(&mut archive, entry(path, kind::FILE | mode), bytes)
                        .with_context(cannot)?;
                }
                Entry::Of(from) => {
                    let cannot_read = || format!("cannot read {}", from.display());
                    let bytes = fs::read(from).with_context(cannot_read)?;
                    let mode = fs::metadata(from)
                        .with_context(cannot_read)?
                        .permissions()
                        .mode();
                    let entry = entry(path, kind::FILE | (mode & 0o7777));
                    add(&mut archive, entry, &bytes).with_context(cannot)?;
                }
                Entry::Link { to } => {
                    let entry = entry(path, kind::LINK | 0o777);
                    add(&mut archive, entry, to.as_bytes()).with_context(cannot)?;
                }
            }
        }
        let (path, major, minor) = CONSOLE;
        let console = entry(path, kind::DEVICE | 0o600);
        let console = console.rdev_major(major).rdev_minor(minor);
        add(&mut archive, console, &[]).with_context(cannot)?;
        let archive = newc::trailer(archive).with_context(cannot)?;
        archive.into_inner().map(drop).with_context(cannot)
    }
}

fn add(archive: &mut impl Write, entry: newc::Builder, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = entry.write(archive, length);
    writer.write_all(bytes)?;
    writer.finish().map(drop)
}

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> GuestFiles {
        let program = directory.join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        set_mode(&program, 0o750).unwrap();
        let mut files = GuestFiles::default();
        files.copy(&program, "/lab/program");
        files.directory("tmp", 0o1777);
        files.write("etc/hosts", "127.0.0.1 localhost\n", 0o644);
        files.link("bin/sh", "busybox");
        files
    }

    #[test]
    fn a_directory_has_them_all() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        files(place.path()).lay_out(&root).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("lab/program"), 0o100_750);
        assert_eq!(mode("tmp"), 0o041_777);
        assert_eq!(
            fs::read_link(root.join("bin/sh")).unwrap(),
            Path::new("busybox")
        );
        let hosts = fs::read_to_string(root.join("etc/hosts")).unwrap();
        assert_eq!(hosts, "127.0.0.1 localhost\n");
    }

    #[test]
    fn an_archive_has_them_all_in_the_order_of_names() {
        let place = tempfile::tempdir().unwrap();
        let archive = place.path().join("archive");
        files(place.path()).pack(&archive).unwrap();
        let bytes = fs::read(&archive).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            assert_eq!((entry.mtime(), entry.uid(), entry.gid()), (0, 0, 0));
            let (name, mode) = (entry.name().to_owned(), entry.mode());
            let mut content = String::new();
            io::Read::read_to_string(&mut reader, &mut content).unwrap();
            rest = reader.finish().unwrap();
            found.push((name, mode, content));
        }
        let found: Vec<_> = found
            .iter()
            .map(|(name, mode, content)| (name.as_str(), *mode, content.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("bin", 0o040_755, ""),
                ("bin/sh", 0o120_777, "busybox"),
                ("etc", 0o040_755, ""),
                ("etc/hosts", 0o100_644, "127.0.0.1 localhost\n"),
                ("lab", 0o040_755, ""),
                ("lab/program", 0o100_750, "#!/bin/sh\n"),
                ("tmp", 0o041_777, ""),
                ("dev/console", 0o020_600, ""),
            ]
        );
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let pack = || {
            let place = tempfile::tempdir().unwrap();
            let archive = place.path().join("archive");
            files(place.path()).pack(&archive).unwrap();
            fs::read(archive).unwrap()
        };
        assert_eq!(pack(), pack());
    }
}
