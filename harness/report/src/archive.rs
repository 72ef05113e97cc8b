// SPDX-License-Identifier: MIT OR Apache-2.0

//! All results that a report is made of.

use std::fs;
use std::path::{Path, PathBuf};

use super::history::History;
use super::run::{self, Run};

/// Results of many files.
#[derive(Debug, Default)]
pub struct Archive {
    /// The newest of each commit, scenario, mode and kernel; ordered by when they began.
    pub runs: Vec<Run>,
    /// How many files were understood.
    pub files: usize,
    /// What could not be read, and why.
    pub warnings: Vec<Warning>,
}

/// Something that a reader of the report should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about, such as a file.
    pub about: String,
    /// What is wrong.
    pub message: String,
}

impl Warning {
    /// A warning.
    pub fn new(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            message: message.into(),
        }
    }
}

/// Two runs of which the report shows the newer.
fn same(a: &Run, b: &Run) -> bool {
    let key = |run: &Run| {
        (
            run.commit.clone(),
            run.dirty,
            run.scenario.clone(),
            run.mode.clone(),
            run.kernel.clone(),
        )
    };
    key(a) == key(b)
}

impl Archive {
    /// Reads files, and those that lie in directories. What cannot be read becomes a warning.
    pub fn read(paths: &[PathBuf], repository: &Path) -> Self {
        let mut archive = Self::default();
        for path in archive.files_of(paths) {
            let name = path.strip_prefix(repository).unwrap_or(&path);
            let name = name.display().to_string();
            match run::read(&path, &name) {
                Ok(contents) => {
                    archive.files += 1;
                    for message in contents.unread {
                        archive.warnings.push(Warning::new(&name, message));
                    }
                    for run in contents.runs {
                        archive.add(run);
                    }
                }
                Err(error) => {
                    let message = format!("left out: {error:#}");
                    archive.warnings.push(Warning::new(&name, message));
                }
            }
        }
        archive
            .runs
            .sort_by(|a, b| (&a.started, &a.file).cmp(&(&b.started, &b.file)));
        archive
    }

    fn files_of(&mut self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            match fs::read_dir(path) {
                Ok(entries) => {
                    files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
                        let name = path.file_name().unwrap_or_default().to_string_lossy();
                        name.ends_with(".json")
                            && !name.starts_with('.')
                            && name != "schema.json"
                            && path.is_file()
                    }))
                }
                Err(error) => {
                    let message = format!("cannot read the directory: {error}");
                    let about = path.display().to_string();
                    self.warnings.push(Warning::new(about, message));
                }
            }
        }
        files.sort();
        files.dedup();
        files
    }

    /// Adds a run, in the place of an older one of the same kind. One that measured all cells of a commit
    /// is better than a later one that measured some; of files that differ from it only the latest is of
    /// what they are now.
    pub fn add(&mut self, run: Run) {
        let rank = |run: &Run| {
            (
                !run.dirty && run.filter.is_none(),
                run.started.clone(),
                run.file.clone(),
            )
        };
        match self.runs.iter_mut().find(|known| same(known, &run)) {
            Some(known) if rank(known) < rank(&run) => *known = run,
            Some(_) => {}
            None => self.runs.push(run),
        }
    }

    /// The newest run of each scenario, mode and kernel: of the newest commit, and of several of
    /// one commit the one that began last. First those of `order`, then the others by name.
    pub fn newest(&self, history: &History, order: &[&str]) -> Vec<&Run> {
        let rank = |run: &Run| (history.position(&run.commit), run.started.clone());
        let mut newest: Vec<&Run> = Vec::new();
        for run in &self.runs {
            let kind = |other: &Run| {
                (&other.scenario, &other.mode, &other.kernel)
                    == (&run.scenario, &run.mode, &run.kernel)
            };
            match newest.iter_mut().find(|known| kind(known)) {
                Some(known) if rank(known) < rank(run) => *known = run,
                Some(_) => {}
                None => newest.push(run),
            }
        }
        let place = |run: &Run| {
            let known = order.iter().position(|name| *name == run.scenario);
            known.unwrap_or(order.len())
        };
        newest.sort_by(|a, b| {
            let key = |run: &Run| {
                (
                    place(run),
                    run.scenario.clone(),
                    run.mode.clone(),
                    run.kernel.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    #[test]
    fn what_cannot_be_read_leaves_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("a.json", &synthetic::quick(1).to_string());
        write("b.json", "{\"schema\": 2");
        write("schema.json", "{}");
        write(".c.json.tmp", "{}");
        let missing = directory.path().join("missing.json");
        let paths = [directory.path().to_owned(), missing];
        let archive = Archive::read(&paths, directory.path());
        assert_eq!((archive.runs.len(), archive.files), (1, 1));
        let about: Vec<_> = archive.warnings.iter().map(|w| w.about.as_str()).collect();
        assert_eq!(about, ["b.json", "missing.json"]);
    }

    #[test]
    fn the_newest_of_a_kind_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, commit: usize, started: &str, filter: serde_json::Value| {
            let mut file = synthetic::quick(commit);
            file["started"] = started.into();
            file["filter"] = filter;
            fs::write(directory.path().join(name), file.to_string()).unwrap();
        };
        write("a.json", 2, "2026-01-01T00:00:00Z", serde_json::Value::Null);
        write("b.json", 2, "2026-01-02T00:00:00Z", serde_json::Value::Null);
        write("c.json", 2, "2026-01-03T00:00:00Z", "part".into());
        write("d.json", 1, "2026-01-04T00:00:00Z", serde_json::Value::Null);
        let archive = Archive::read(&[directory.path().to_owned()], directory.path());
        let files: Vec<_> = archive.runs.iter().map(|run| run.file.as_str()).collect();
        assert_eq!(files, ["b.json", "d.json"]);
        // A later measurement of an older commit is not the newest.
        let newest = archive.newest(&synthetic::history(), &[]);
        assert_eq!(newest.len(), 1);
        assert_eq!(newest[0].file, "b.json");
    }

    #[test]
    fn scenarios_come_in_the_order_that_is_asked_for() {
        let mut archive = Archive::default();
        for name in ["a", "b", "c"] {
            let file = synthetic::quick(0)
                .to_string()
                .replace("\"quick\"", &format!("{name:?}"));
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("x.json"), file).unwrap();
            let read = Archive::read(&[directory.path().to_owned()], directory.path());
            archive.runs.extend(read.runs);
        }
        let newest = archive.newest(&synthetic::history(), &["c"]);
        let names: Vec<_> = newest.iter().map(|run| run.scenario.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
    }
}
