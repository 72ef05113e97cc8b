// SPDX-License-Identifier: MIT OR Apache-2.0

//! What git knows.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

/// A git repository with a work tree.
#[derive(Clone, Debug)]
pub struct Repository {
    directory: PathBuf,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// Its whole hash.
    pub hash: String,
}

impl Commit {
    /// As people and file names write it.
    pub fn short(&self) -> &str {
        self.hash.get(..10).unwrap_or(&self.hash)
    }
}

impl Repository {
    /// The repository whose work tree is `directory`.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The work tree.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The commit that `name` means: a hash, a branch, `HEAD~1`.
    ///
    /// # Errors
    /// If it means none.
    pub fn commit(&self, name: &str) -> Result<Commit> {
        let commit = format!("{name}^{{commit}}");
        let hash = self
            .git(&["rev-parse", "--quiet", "--verify", "--end-of-options", &commit])
            .with_context(|| {
                format!("{name:?} is neither a file nor a commit: give a results file, a commit, or A..B")
            })?;
        Ok(Commit { hash })
    }

    /// The first line of a commit's message.
    ///
    /// # Errors
    /// If there is no such commit.
    pub fn subject(&self, commit: &Commit) -> Result<String> {
        self.git(&["show", "--no-patch", "--format=%s", &commit.hash])
    }

    /// The commits behind `good` up to `bad`, along first parents, oldest first: of a branch that
    /// was merged only the merge. Only those that change something below `path`.
    ///
    /// # Errors
    /// If `good` does not come before `bad`.
    pub fn between(&self, good: &Commit, bad: &Commit, path: &str) -> Result<Vec<Commit>> {
        let before = ["merge-base", "--is-ancestor", &good.hash, &bad.hash];
        if self.git(&before).is_err() {
            bail!(
                "{} does not come before {}: give the good commit first",
                good.short(),
                bad.short()
            );
        }
        let range = format!("{}..{}", good.hash, bad.hash);
        let list = self.git(&[
            "rev-list",
            "--first-parent",
            "--reverse",
            &range,
            "--",
            path,
        ])?;
        Ok(list
            .lines()
            .map(|hash| Commit {
                hash: hash.to_owned(),
            })
            .collect())
    }

    /// What git prints for these arguments.
    ///
    /// # Errors
    /// If it fails.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = duct::cmd("git", arguments)
            .dir(&self.directory)
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .context("cannot run git")?;
        if !output.status.success() {
            bail!(
                "git {} fails in {}: {}",
                arguments.first().unwrap_or(&""),
                self.directory.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::sample::with_history;

    #[test]
    fn commits_between_change_the_path() {
        let (_directory, repository, commits) = with_history(&["a", "b", "", "c", ""]);
        let between =
            |good: usize, bad: usize| repository.between(&commits[good], &commits[bad], "module");
        assert_eq!(
            between(0, 4).unwrap(),
            [commits[1].clone(), commits[3].clone()]
        );
        assert_eq!(between(1, 2).unwrap(), []);
        let error = between(3, 1).unwrap_err().to_string();
        assert!(error.contains("does not come before"), "{error}");
        assert_eq!(repository.subject(&commits[3]).unwrap(), "State 3");
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        let (_directory, repository, commits) = with_history(&["a", "b"]);
        assert_eq!(repository.commit("HEAD~1").unwrap(), commits[0]);
        for name in ["nothing", "--all", ""] {
            assert!(repository.commit(name).is_err(), "{name}");
        }
    }
}
