// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every file of an image is, so that damage is found before a number comes of it.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use mutexlab_host::hash::Sha256;

/// Where it lies in the image.
pub const MANIFEST_FILE: &str = "files.json";

/// What a guest boots: hashed before each use, whatever its time says.
pub const BOOTED: &str = "arch/x86/boot/bzImage";

/// All files below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// By path below the directory.
    pub files: BTreeMap<String, Entry>,
}

/// What one of them is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its size in bytes.
        bytes: u64,
        /// When its content was last written, in nanoseconds since 1970: while that and the size
        /// are what they were, so is the content, unless the disk is at fault.
        modified: i64,
        /// Whether it is a program.
        executable: bool,
        /// Hash of its content.
        sha256: Sha256,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        to: PathBuf,
    },
}

/// A file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its path below the image.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.path, self.why)
    }
}

impl Entry {
    /// What is at `path`.
    pub fn of(path: &Path) -> Result<Entry> {
        let unreadable = || format!("cannot read {}", path.display());
        let metadata = fs::symlink_metadata(path).with_context(unreadable)?;
        if metadata.is_symlink() {
            let to = fs::read_link(path).with_context(unreadable)?;
            return Ok(Entry::Link { to });
        }
        Ok(Entry::File {
            bytes: metadata.len(),
            modified: modified(&metadata),
            executable: metadata.permissions().mode() & 0o100 != 0,
            sha256: Sha256::of_file(path)?,
        })
    }

    /// What is wrong with the file at `path`, if it should be this. Its content is read if
    /// `thoroughly`, or if it may have been written to.
    fn check(&self, path: &Path, thoroughly: bool) -> Option<String> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some("is missing".to_owned());
            }
            Err(error) => return Some(format!("cannot be read: {error}")),
        };
        match self {
            Entry::Link { to } => match fs::read_link(path) {
                Ok(found) if found == *to => None,
                Ok(found) => Some(format!(
                    "leads to {}, and not to {}",
                    found.display(),
                    to.display()
                )),
                Err(_) => Some("is no symbolic link".to_owned()),
            },
            Entry::File { .. } if !metadata.is_file() => Some("is no regular file".to_owned()),
            Entry::File { bytes, .. } if metadata.len() != *bytes => {
                Some(format!("has {} bytes, and not {bytes}", metadata.len()))
            }
            Entry::File {
                modified: time,
                sha256,
                ..
            } => {
                if !thoroughly && modified(&metadata) == *time {
                    return None;
                }
                match Sha256::of_file(path) {
                    Ok(found) if found == *sha256 => None,
                    Ok(found) => Some(format!("has SHA-256 {found}, and not {sha256}")),
                    Err(error) => Some(format!("{error:#}")),
                }
            }
        }
    }
}

fn modified(metadata: &fs::Metadata) -> i64 {
    metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
}

impl Manifest {
    /// Of all files below `directory` that `wanted` says yes to, by their paths below it.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn of(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Manifest> {
        let mut files = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(below) = left.pop() {
            let path = directory.join(&below);
            let unreadable = || format!("cannot read {}", path.display());
            for entry in fs::read_dir(&path).with_context(unreadable)? {
                let entry = entry.with_context(unreadable)?;
                let below = below.join(entry.file_name());
                if entry.file_type().with_context(unreadable)?.is_dir() {
                    left.push(below);
                    continue;
                }
                let name = below
                    .to_str()
                    .with_context(|| format!("{} is not UTF-8", below.display()))?
                    .to_owned();
                if wanted(&name) {
                    let entry = Entry::of(&directory.join(&name))?;
                    files.insert(name, entry);
                }
            }
        }
        Ok(Manifest { files })
    }

    /// The one that lies in `directory`, if there is one.
    ///
    /// # Errors
    /// If it is none.
    pub fn load(directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(MANIFEST_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let manifest = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(manifest))
    }

    /// Writes it into `directory`, as a whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MANIFEST_FILE);
        let write = || -> Result<()> {
            let file = tempfile::NamedTempFile::new_in(directory)?;
            serde_json::to_writer(&file, self)?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The first file that is not what it was, by size and time; what is booted, by its content.
    pub fn glance(&self, directory: &Path) -> Option<Damage> {
        self.damages(directory, |path| path == BOOTED).next()
    }

    /// All files that are not what they were, by their content.
    pub fn verify(&self, directory: &Path) -> Vec<Damage> {
        self.damages(directory, |_| true).collect()
    }

    fn damages<'a>(
        &'a self,
        directory: &'a Path,
        thoroughly: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = Damage> + 'a {
        self.files.iter().filter_map(move |(path, entry)| {
            let why = entry.check(&directory.join(path), thoroughly(path))?;
            Some(Damage {
                path: path.clone(),
                why,
            })
        })
    }

    /// The size of all its files, in bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = |entry: &Entry| match entry {
            Entry::File { bytes, .. } => *bytes,
            Entry::Link { .. } => 0,
        };
        self.files.values().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let boot = directory.path().join(BOOTED);
        fs::create_dir_all(boot.parent().unwrap()).unwrap();
        fs::write(boot, "kernel").unwrap();
        fs::write(directory.path().join("vmlinux"), "symbols").unwrap();
        std::os::unix::fs::symlink("vmlinux", directory.path().join("link")).unwrap();
        directory
    }

    fn touch(path: &Path, time: SystemTime) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    #[test]
    fn it_comes_back_from_its_file() {
        let directory = directory();
        assert_eq!(Manifest::load(directory.path()).unwrap(), None);
        let manifest = Manifest::of(directory.path(), |_| true).unwrap();
        manifest.save(directory.path()).unwrap();
        assert_eq!(Manifest::load(directory.path()).unwrap(), Some(manifest));
        fs::write(directory.path().join(MANIFEST_FILE), "{").unwrap();
        assert!(Manifest::load(directory.path()).is_err());
    }

    #[test]
    fn a_glance_sees_what_was_written_to_and_what_is_gone() {
        let directory = directory();
        let vmlinux = directory.path().join("vmlinux");
        let manifest = Manifest::of(directory.path(), |_| true).unwrap();
        assert_eq!(manifest.bytes(), 13);
        assert_eq!(manifest.glance(directory.path()), None);
        // Written again, but the same.
        touch(&vmlinux, SystemTime::now() + Duration::from_secs(9));
        assert_eq!(manifest.glance(directory.path()), None);
        fs::write(&vmlinux, "symbolz").unwrap();
        touch(&vmlinux, SystemTime::now() + Duration::from_secs(9));
        let damage = manifest.glance(directory.path()).unwrap();
        assert_eq!(damage.path, "vmlinux");
        assert!(damage.why.contains("SHA-256"), "{damage}");
        fs::write(&vmlinux, "symbol").unwrap();
        let damage = manifest.glance(directory.path()).unwrap();
        assert!(damage.why.contains("6 bytes, and not 7"), "{damage}");
        fs::remove_file(&vmlinux).unwrap();
        assert_eq!(manifest.glance(directory.path()).unwrap().why, "is missing");
    }

    #[test]
    fn content_is_read_where_times_lie() {
        let directory = directory();
        let manifest = Manifest::of(directory.path(), |_| true).unwrap();
        for name in [BOOTED, "vmlinux"] {
            let path = directory.path().join(name);
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let mut content = fs::read(&path).unwrap();
            content[0] ^= 1;
            fs::write(&path, content).unwrap();
            touch(&path, time);
        }
        assert_eq!(manifest.glance(directory.path()).unwrap().path, BOOTED);
        let damages = manifest.verify(directory.path());
        let paths: Vec<_> = damages.iter().map(|damage| damage.path.as_str()).collect();
        assert_eq!(paths, [BOOTED, "vmlinux"]);
    }

    #[test]
    fn a_link_is_what_it_says() {
        let directory = directory();
        let manifest = Manifest::of(directory.path(), |path| path == "link").unwrap();
        let link = directory.path().join("link");
        assert_eq!(manifest.verify(directory.path()), []);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert_eq!(manifest.verify(directory.path()).len(), 1);
    }
}
