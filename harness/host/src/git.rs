// SPDX-License-Identifier: MIT OR Apache-2.0

//! What git knows.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, Context, Result};

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

/// Commits one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The one before them.
    pub base: Commit,
    /// Those behind it, the oldest first; not empty.
    pub commits: Vec<Commit>,
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

    /// Whether files differ from what is checked out, or are new.
    ///
    /// # Errors
    /// If it is no repository.
    pub fn is_dirty(&self) -> Result<bool> {
        Ok(!self.git(&["status", "--porcelain"])?.is_empty())
    }

    /// The commits of a range as git writes it, `A..B`, along first parents; `HEAD` where a name is left out.
    ///
    /// # Errors
    /// If it is written otherwise, one of the two is no commit here, or there is none between them.
    pub fn range(&self, text: &str) -> Result<Range> {
        let Some((from, to)) = text.split_once("..") else {
            bail!("{text:?} is no range of commits: write it as git does, such as HEAD~3..HEAD");
        };
        if to.starts_with('.') {
            bail!("{text:?}: three dots mean the commit where branches part; give `git merge-base`'s answer, and two dots");
        }
        let find = |name: &str| {
            let name = if name.is_empty() { "HEAD" } else { name };
            self.commit(name).map_err(|_| {
                let directory = self.directory.display();
                anyhow!("{name:?} of {text:?} is no commit of {directory}: `git -C {directory} log` shows which there are")
            })
        };
        let (base, last) = (find(from)?, find(to)?);
        let commits = self.between(&base, &last, ".")?;
        if commits.is_empty() {
            bail!(
                "{text:?}: there is no commit behind {} up to {}",
                base.short(),
                last.short()
            );
        }
        Ok(Range { base, commits })
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

    /// The files as they are, those that git ignores left out, as a commit that no branch has: `HEAD`'s if nothing differs
    /// from it. Neither files nor index are touched; another index is made in the directory `scratch`.
    ///
    /// # Errors
    /// If git cannot read them.
    pub fn snapshot(&self, scratch: &Path) -> Result<Commit> {
        let head = self.commit("HEAD")?;
        let index = scratch.join("index");
        let ours = self.git(&["rev-parse", "--path-format=absolute", "--git-path", "index"])?;
        // It knows the files' times, so that only those that differ are read.
        std::fs::copy(&ours, &index).with_context(|| format!("cannot copy {ours}"))?;
        // The same files are the same commit.
        let environment = [
            ("GIT_INDEX_FILE", index.to_string_lossy().into_owned()),
            ("GIT_AUTHOR_NAME", "mutexlab".to_owned()),
            ("GIT_AUTHOR_EMAIL", "mutexlab".to_owned()),
            ("GIT_AUTHOR_DATE", "@0 +0000".to_owned()),
            ("GIT_COMMITTER_NAME", "mutexlab".to_owned()),
            ("GIT_COMMITTER_EMAIL", "mutexlab".to_owned()),
            ("GIT_COMMITTER_DATE", "@0 +0000".to_owned()),
        ];
        self.with(&["add", "--all"], &environment)?;
        let tree = self.with(&["write-tree"], &environment)?;
        if tree == self.git(&["rev-parse", "HEAD^{tree}"])? {
            return Ok(head);
        }
        let message = "The files as they were when mutexlab built them";
        let commit = ["commit-tree", &tree, "-p", &head.hash, "-m", message];
        let hash = self.with(&commit, &environment)?;
        Ok(Commit { hash })
    }

    /// What git prints for these arguments.
    ///
    /// # Errors
    /// If it fails.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        self.with(arguments, &[])
    }

    fn with(&self, arguments: &[&str], environment: &[(&str, String)]) -> Result<String> {
        let mut command = duct::cmd("git", arguments).dir(&self.directory);
        for (name, value) in environment {
            command = command.env(name, value);
        }
        let output = command
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
    fn a_range_has_its_base_and_is_written_as_git_does() {
        let (_directory, repository, commits) = with_history(&["a", "b", "c"]);
        let range = repository.range("HEAD~2..HEAD").unwrap();
        assert_eq!(range.base, commits[0]);
        assert_eq!(range.commits, commits[1..]);
        assert_eq!(repository.range("HEAD~1..").unwrap().commits, commits[2..]);
        for (text, part) in [
            ("HEAD", "is no range of commits"),
            ("HEAD~1...HEAD", "three dots"),
            ("v9..HEAD", "\"v9\" of \"v9..HEAD\" is no commit of /"),
            ("HEAD..HEAD~1", "does not come before"),
            ("HEAD..HEAD", "there is no commit behind"),
        ] {
            let error = repository.range(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_committed_are_a_commit_of_their_own() {
        let (directory, repository, commits) = with_history(&["a", "b"]);
        let scratch = tempfile::tempdir().unwrap();
        let snapshot = || repository.snapshot(scratch.path()).unwrap();
        assert_eq!(snapshot(), commits[1]);
        std::fs::write(directory.path().join("module/a"), "c").unwrap();
        std::fs::write(directory.path().join("new"), "d").unwrap();
        let status = repository.git(&["status", "--porcelain"]).unwrap();
        let files = snapshot();
        assert_eq!(snapshot(), files);
        for (name, text) in [("module/a", "c"), ("new", "d"), ("other", "1")] {
            let shown = repository.git(&["show", &format!("{}:{name}", files.hash)]);
            assert_eq!(shown.unwrap(), text);
        }
        assert_eq!(repository.commit("HEAD").unwrap(), commits[1]);
        assert_eq!(repository.git(&["status", "--porcelain"]).unwrap(), status);
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
