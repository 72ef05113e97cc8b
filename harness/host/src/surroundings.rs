// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a process was given to work with: read once, where a program begins, and handed on, so that nothing else looks
//! into the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Says where the cache is, in a program's environment.
pub const CACHE_VARIABLE: &str = "MUTEXLAB_CACHE";
/// Says what [`Surroundings::debian_mirror`] is, there.
pub const MIRROR_VARIABLE: &str = "MUTEXLAB_MIRROR";
/// Says what [`Surroundings::kernel_mirror`] is, there.
pub const UPSTREAM_VARIABLE: &str = "MUTEXLAB_KERNEL_MIRROR";
/// Says what [`Surroundings::keyring`] is, there.
pub const KEYRING_VARIABLE: &str = "MUTEXLAB_KEYRING";

/// Where programs usually are, the administrator's as well.
const USUAL: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Places on this machine, and what was said about others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The directory of everything that is expensive to make: sources, images and tools.
    pub cache: PathBuf,
    /// The directories in which programs are looked for, in order: `PATH`.
    pub search_path: Vec<PathBuf>,
    /// The directory of the running program, with others that were built with it.
    pub built: PathBuf,
    /// The URL under which the main archive's `pool` and `dists` lie, if it is not to be apt's.
    pub debian_mirror: Option<String>,
    /// The URL under which upstream's releases lie, if it is not to be the usual one.
    pub kernel_mirror: Option<String>,
    /// The keys that a Debian archive is signed with, if they are not to be the installed ones.
    pub keyring: Option<PathBuf>,
}

impl Surroundings {
    /// With a cache in `cache`, and all else as it usually is.
    pub fn usual(cache: &Path) -> Self {
        Self {
            // make changes its directory, so it needs an absolute path.
            cache: std::path::absolute(cache).unwrap_or_else(|_| cache.to_owned()),
            search_path: USUAL.map(PathBuf::from).into(),
            built: PathBuf::new(),
            debian_mirror: None,
            kernel_mirror: None,
            keyring: None,
        }
    }

    /// The program called `name`, in the search path alone.
    pub fn in_search_path(&self, name: &str) -> Option<PathBuf> {
        let files = self.search_path.iter().map(|place| place.join(name));
        files.into_iter().find(|file| file.is_file())
    }

    /// The program called `name`, in the search path or where programs usually are.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let usual = || USUAL.iter().map(|place| Path::new(place).join(name));
        self.in_search_path(name)
            .or_else(|| usual().find(|file| file.is_file()))
    }

    /// The search path as children get it, with `first` before all else.
    ///
    /// # Errors
    /// If a directory has a ':' in its name.
    pub fn path_behind(&self, first: &[PathBuf]) -> Result<OsString> {
        let all = first.iter().chain(&self.search_path);
        std::env::join_paths(all).context("a directory of PATH has a ':' in its name")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn programs_are_found_where_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let usual = Surroundings::usual(directory.path());
        assert_eq!(usual.program("sh"), usual.in_search_path("sh"));
        let own = Surroundings {
            search_path: vec![directory.path().to_owned()],
            ..usual
        };
        assert_eq!(own.in_search_path("sh"), None);
        assert!(own.program("sh").is_some());
        let file = directory.path().join("sh");
        fs::write(&file, "").unwrap();
        assert_eq!(own.program("sh"), Some(file));
        let path = own.path_behind(&["/a".into()]).unwrap();
        let said = format!("/a:{}", directory.path().display());
        assert_eq!(path.into_string().unwrap(), said);
        assert!(own.path_behind(&["/a:b".into()]).is_err());
    }
}
