// SPDX-License-Identifier: MIT OR Apache-2.0

//! Directories and repositories for tests.

use std::fs;

use tempfile::TempDir;

use crate::git::{Commit, Repository};

/// A directory with these files, each a name and a text.
pub fn tree(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// A repository without a commit, that knows who commits.
pub fn empty() -> (TempDir, Repository) {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::new(directory.path());
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["config", "user.name", "a"],
        &["config", "user.email", "a@example.com"],
    ] {
        repository.git(arguments).unwrap();
    }
    (directory, repository)
}

/// A repository with a commit for each of `states`, of which each is the text of `module/a`,
/// or changes something else if it is empty.
pub fn with_history(states: &[&str]) -> (TempDir, Repository, Vec<Commit>) {
    let (directory, repository) = empty();
    fs::create_dir(directory.path().join("module")).unwrap();
    let git = |arguments: &[&str]| repository.git(arguments).unwrap();
    let mut commits = Vec::new();
    for (number, state) in states.iter().enumerate() {
        if !state.is_empty() {
            fs::write(directory.path().join("module/a"), state).unwrap();
        }
        fs::write(directory.path().join("other"), number.to_string()).unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", &format!("State {number}")]);
        commits.push(repository.commit("HEAD").unwrap());
    }
    (directory, repository, commits)
}
