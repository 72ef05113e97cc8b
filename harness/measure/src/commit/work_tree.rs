// SPDX-License-Identifier: MIT OR Apache-2.0

//! A commit's files in a directory of their own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use mutexlab_host::files;
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::Lock;

/// Where such directories lie, and what was built in them.
const DIRECTORY: &str = "target/commits";
/// What of the interface between module and harness a proxy of another commit does not meet: the
/// probe stays that of the harness, and the rest only lists the other files.
const NOT_THE_PROXYS: [&str; 2] = ["mod.rs", "probe.rs"];

/// A work tree of git's, removed when it is dropped. There is one at a time, and perhaps one beside
/// it: what was left by a process that was killed is removed first.
#[derive(Debug)]
pub struct WorkTree<'a> {
    repository: &'a Repository,
    directory: PathBuf,
    // None in the one beside, which borrows from the other.
    _lock: Option<Lock>,
}

impl<'a> WorkTree<'a> {
    /// Checks a commit out.
    ///
    /// # Errors
    /// If git cannot, or the user interrupts while another process has one.
    pub fn of(repository: &'a Repository, commit: &Commit, interrupt: &Interrupt) -> Result<Self> {
        let place = repository.directory().join(DIRECTORY);
        let lock = Lock::acquire(&place.join("lock"), "measuring a commit", interrupt)?;
        Self::check_out(repository, commit, place.join("tree"), Some(lock))
    }

    /// Checks a further commit out, beside this one.
    ///
    /// # Errors
    /// If git cannot.
    pub fn beside(&self, commit: &Commit) -> Result<WorkTree<'_>> {
        let directory = self.directory.with_file_name("proxy");
        WorkTree::check_out(self.repository, commit, directory, None)
    }

    fn check_out(
        repository: &'a Repository,
        commit: &Commit,
        directory: PathBuf,
        lock: Option<Lock>,
    ) -> Result<Self> {
        let tree = Self {
            repository,
            directory,
            _lock: lock,
        };
        tree.remove()?;
        let path = tree.directory.to_string_lossy().into_owned();
        let add = [
            "worktree",
            "add",
            "--quiet",
            "--detach",
            &path,
            &commit.hash,
        ];
        repository
            .git(&add)
            .with_context(|| format!("cannot check {} out into {path}", commit.short()))?;
        Ok(tree)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where what is built in it is kept for the next.
    pub fn target(&self) -> PathBuf {
        self.directory.with_file_name("harness")
    }

    /// The first file by which its proxy and the harness of the repository would misunderstand
    /// each other; `None` if they will not. Comments and tests do not matter.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn other_interface(&self) -> Result<Option<PathBuf>> {
        let interface = Path::new("module/abi");
        let ours = self.repository.directory().join(interface);
        let theirs = self.directory.join(interface);
        let rust = files::below(&ours, |name, metadata| {
            Ok(metadata.is_dir() || name.extension().is_some_and(|end| end == "rs"))
        })?;
        for name in rust {
            let (file, other) = (ours.join(&name), theirs.join(&name));
            if NOT_THE_PROXYS.iter().any(|not| name == Path::new(not)) || !other.exists() {
                continue;
            }
            let read = |path: &Path| {
                fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            if code(&read(&file)?) != code(&read(&other)?) {
                return Ok(Some(interface.join(name)));
            }
        }
        Ok(None)
    }

    fn remove(&self) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)
                .with_context(|| format!("cannot remove {}", self.directory.display()))?;
        }
        self.repository.git(&["worktree", "prune"]).map(drop)
    }
}

impl Drop for WorkTree<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::info!("{error:#}");
        }
    }
}

/// A file's lines without comments, up to its tests.
fn code(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .take_while(|line| *line != "#[cfg(test)]")
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::sample::with_history;

    #[test]
    fn a_work_tree_has_the_commits_files_and_goes() {
        let (directory, repository, commits) = with_history(&["a", "b"]);
        let place = directory.path().join(DIRECTORY).join("tree");
        // What a process left that was killed.
        fs::create_dir_all(place.join("module")).unwrap();
        let interrupt = Interrupt::install().unwrap();
        for (commit, text) in commits.iter().zip(["a", "b"]) {
            let tree = WorkTree::of(&repository, commit, &interrupt).unwrap();
            let read = fs::read_to_string(tree.directory().join("module/a")).unwrap();
            assert_eq!(read, text);
            // Beside it there is room for another.
            let other = tree.beside(&commits[0]).unwrap();
            let read = fs::read_to_string(other.directory().join("module/a")).unwrap();
            assert_eq!(read, "a");
            drop(other);
            drop(tree);
            assert!(!place.exists());
            let known = repository.git(&["worktree", "list"]).unwrap();
            assert_eq!(known.lines().count(), 1, "{known}");
        }
    }

    #[test]
    fn only_code_is_an_interface() {
        let old =
            "//! About.\nconst A: u8 = 1;\n\n    // Why.\nfn f() {}\n#[cfg(test)]\nmod tests {}\n";
        let new = "const A: u8 = 1;\nfn f() {}\n";
        assert_eq!(code(old), code(new));
        assert_ne!(code(old), code("const A: u8 = 2;\nfn f() {}\n"));
    }
}
