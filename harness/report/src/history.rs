// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commits, in order.

use anyhow::Result;

use mutexlab_host::git::Repository;

/// The first-parent history of HEAD, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The commits.
    pub commits: Vec<Commit>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its hash, in full.
    pub hash: String,
    /// The committer's day, `2026-01-31`.
    pub day: String,
    /// The first line of its message.
    pub subject: String,
}

impl Commit {
    /// The hash as people write it.
    pub fn short(&self) -> &str {
        self.hash.get(..7).unwrap_or(&self.hash)
    }
}

impl History {
    /// Reads it from the repository.
    ///
    /// # Errors
    /// If git fails, as it does outside of a repository.
    pub fn read(repository: &Repository) -> Result<Self> {
        let format = "--format=%H%x09%cs%x09%s";
        let log = repository.git(&["log", "--first-parent", "--reverse", format, "HEAD"])?;
        let commits = log.lines().filter_map(|line| {
            let mut fields = line.splitn(3, '\t').map(str::to_owned);
            Some(Commit {
                hash: fields.next()?,
                day: fields.next()?,
                subject: fields.next()?,
            })
        });
        Ok(Self {
            commits: commits.collect(),
        })
    }

    /// Where a commit stands; none if it is not of this history.
    pub fn position(&self, hash: &str) -> Option<usize> {
        self.commits.iter().rposition(|commit| commit.hash == hash)
    }

    /// The newest commit.
    pub fn head(&self) -> Option<&Commit> {
        self.commits.last()
    }

    /// How many commits came after this one.
    pub fn behind(&self, hash: &str) -> Option<usize> {
        Some(self.commits.len() - 1 - self.position(hash)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::sample::empty;

    #[test]
    fn commits_are_read_in_order() {
        let (_directory, repository) = empty();
        let run = |arguments: &[&str]| repository.git(arguments).unwrap();
        for subject in ["One\twith a tab", "Two"] {
            run(&["commit", "-q", "--allow-empty", "-m", subject]);
        }
        let history = History::read(&repository).unwrap();
        let subjects: Vec<_> = history.commits.iter().map(|c| c.subject.as_str()).collect();
        assert_eq!(subjects, ["One\twith a tab", "Two"]);
        let first = &history.commits[0];
        assert_eq!(history.position(&first.hash), Some(0));
        assert_eq!(history.behind(&first.hash), Some(1));
        assert_eq!(history.position("unknown"), None);
        assert_eq!(first.short().len(), 7);
    }

    #[test]
    fn no_repository_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(History::read(&Repository::new(directory.path())).is_err());
    }
}
