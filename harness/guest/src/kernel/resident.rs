// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files of another process that stay in memory.
//!
//! A page that has to come from the host takes none of the guest's time in virtual mode, but all of
//! it passes: an idle guest's clock jumps from timer to timer until the page is there. And the file
//! system keeps no page of a file that nobody has open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::libc::c_void;
use nix::sys::mman::{mlock, mmap, munmap, MapFlags, ProtFlags};

/// A file, all of which is in memory until this is dropped.
pub struct Resident {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Resident {
    /// All files that a process has mapped: its program and the libraries.
    pub fn of_process(pid: u32) -> Result<Vec<Self>> {
        let path = format!("/proc/{pid}/maps");
        let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        files(&maps)
            .into_iter()
            .filter_map(|file| Self::of(file).transpose())
            .collect()
    }

    /// `None` if there is nothing in the file.
    fn of(path: &str) -> Result<Option<Self>> {
        let map = || -> Result<Option<Self>> {
            let file = File::open(path)?;
            let Some(length) = NonZeroUsize::new(usize::try_from(file.metadata()?.len())?) else {
                return Ok(None);
            };
            let protection = ProtFlags::PROT_READ;
            // SAFETY: The kernel chooses a place where nothing is. Nothing is ever read through the
            // mapping.
            let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) }?;
            let resident = Self { start, length };
            // SAFETY: That is the mapping.
            unsafe { mlock(start, length.get()) }?;
            Ok(Some(resident))
        };
        map().with_context(|| format!("cannot keep {path} in memory"))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: The mapping is whole, and nobody has a reference into it. It cannot fail.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// The files in the text of `/proc/PID/maps`: proc_pid_maps(5).
fn files(maps: &str) -> BTreeSet<&str> {
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_found_once() {
        let maps = "5600-5601 r--p 00000000 00:19 7 /usr/sbin/redsocks\n\
                    5601-5602 r-xp 00001000 00:19 7 /usr/sbin/redsocks\n\
                    5700-5701 rw-p 00000000 00:00 0 [heap]\n\
                    7f00-7f01 r-xp 00000000 00:19 8 /lib/libc.so.6\n\
                    7f02-7f03 rw-p 00000000 00:00 0\n";
        let expected = BTreeSet::from(["/lib/libc.so.6", "/usr/sbin/redsocks"]);
        assert_eq!(files(maps), expected);
    }

    #[test]
    fn an_own_file_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [1; 5000]).unwrap();
        let resident = Resident::of(path.to_str().unwrap()).unwrap().unwrap();
        assert_eq!(resident.length.get(), 5000);
        fs::write(&path, []).unwrap();
        assert!(Resident::of(path.to_str().unwrap()).unwrap().is_none());
    }
}
