// SPDX-License-Identifier: MIT OR Apache-2.0

//! A results file: complete JSON at every moment, whatever happens to this program.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use jiff::{Timestamp, ToSpan};

use super::closure::Closure;
use super::record::{BootRecord, CellRecord, Results, Selection, SCHEMA};
use super::{derive, outline, stability};
use mutexlab_scenario::ScenarioFile;

/// A results file that is being written.
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    results: Results,
}

/// Fails unless a results file can be written into `directory`, which it makes: better now than when
/// kernels have been built.
///
/// # Errors
/// Names the directory.
pub fn check_writable(directory: &Path) -> Result<()> {
    let trial = directory.join(format!(".trial-{}", std::process::id()));
    fs::create_dir_all(directory)
        .and_then(|()| File::create(&trial))
        .and_then(|_| fs::remove_file(&trial))
        .with_context(|| format!("cannot write results to {}", directory.display()))
}

impl ResultsFile {
    /// Begins a new file in `directory`, named after the time, the commit and the scenario.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(
        directory: &Path,
        file: &ScenarioFile,
        selection: Selection,
        closure: Closure,
        now: Timestamp,
    ) -> Result<Self> {
        let (now, path) = free_name(directory, now, |now| {
            let (now, commit) = (now.strftime("%Y%m%dT%H%M%SZ"), closure.short_commit());
            format!("{now}-{commit}-{}.json", file.name)
        })?;
        let created = Self {
            path,
            results: Results {
                schema: SCHEMA,
                scenario: file.name.clone(),
                question: file.scenario.question.clone(),
                mode: file.scenario.mode,
                started: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                filter: selection.filter,
                shard: selection.shard,
                lens: file.scenario.lens,
                closure,
                boots: Vec::new(),
                cells: Vec::new(),
            },
        };
        created.save()?;
        Ok(created)
    }

    /// Opens a file to go on with it.
    ///
    /// # Errors
    /// If it cannot be read, or is of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: serde_json::Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        if value.get("schema") != Some(&SCHEMA.into()) {
            bail!(
                "{} is of schema {}, but this program writes {SCHEMA}",
                path.display(),
                value.get("schema").unwrap_or(&serde_json::Value::Null)
            );
        }
        let results = serde_json::from_value(value)
            .with_context(|| format!("{} is no results file", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            results,
        })
    }

    /// Writes a file with all of `results`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(path: &Path, results: Results) -> Result<Self> {
        let file = Self {
            path: path.to_owned(),
            results,
        };
        file.save()?;
        Ok(file)
    }

    /// All results of a scenario in `directory`, the newest first: names begin with the time.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all(directory: &Path, scenario: &str) -> Result<Vec<PathBuf>> {
        let end = format!("-{scenario}.json");
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = paths
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(|first: char| first.is_ascii_digit()) && name.ends_with(&end)
            })
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// The newest of [`Self::all`].
    ///
    /// # Errors
    /// If the directory cannot be read, or holds none.
    pub fn newest(directory: &Path, scenario: &str) -> Result<PathBuf> {
        let newest = Self::all(directory, scenario)?.into_iter().next();
        newest.with_context(|| {
            format!(
                "{} holds no results of {scenario} to resume",
                directory.display()
            )
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// What is in it, to be changed.
    pub fn into_results(self) -> Results {
        self.results
    }

    /// The directory of the run's console logs.
    pub fn log_directory(&self) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default();
        self.path.with_file_name("logs").join(stem)
    }

    /// Adds a cell, in the place of what was known of it, and writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_cell(&mut self, record: CellRecord) -> Result<()> {
        let cells = &mut self.results.cells;
        cells.retain(|cell| (&cell.id, cell.repetition) != (&record.id, record.repetition));
        cells.push(record);
        derive::path_over_none(cells, self.results.mode);
        self.save()
    }

    /// Puts the cells into an order that does not depend on which guest was faster, judges how
    /// steady times are, and writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(&mut self, order: impl Fn(&CellRecord) -> usize) -> Result<()> {
        self.results
            .cells
            .sort_by_cached_key(|cell| (cell.repetition, order(cell)));
        stability::judge(&mut self.results);
        self.save()
    }

    /// A name for a boot: the planned one, or one behind it if a run that was cut short has used
    /// that.
    pub fn boot_id(&self, planned: &str) -> String {
        let used = |id: &str| self.results.boots.iter().any(|boot| boot.id == id);
        if !used(planned) {
            return planned.to_owned();
        }
        let mut number = 2;
        loop {
            let id = format!("{planned}.{number}");
            if !used(&id) {
                return id;
            }
            number += 1;
        }
    }

    /// Adds a boot, in the place of what was known of it, and writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_boot(&mut self, record: BootRecord) -> Result<()> {
        self.results.boots.retain(|boot| boot.id != record.id);
        self.results.boots.push(record);
        self.save()
    }

    /// Writes everything to a file beside, to the disk, and then puts that in the old one's place.
    fn save(&self) -> Result<()> {
        let directory = match self.path.parent() {
            Some(directory) if directory != Path::new("") => directory,
            _ => Path::new("."),
        };
        let beside = beside(&self.path);
        let write = || -> Result<()> {
            fs::create_dir_all(directory)?;
            let mut file = BufWriter::new(File::create(&beside)?);
            outline::write(&mut file, &self.results)?;
            let file = file.into_inner()?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            File::open(directory)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| {
            // On a full disk the rest of it would only be in the way.
            let _ = fs::remove_file(&beside);
            format!("cannot write {}", self.path.display())
        })
    }
}

/// Where a file is written before it is put into its place.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// The first time from `now` on, in seconds, of which there is no file in `directory` that has the name which `name`
/// gives it, and that file. It is ours, whoever looks for one at the same time: what it is written to is there.
fn free_name(
    directory: &Path,
    mut now: Timestamp,
    name: impl Fn(Timestamp) -> String,
) -> Result<(Timestamp, PathBuf)> {
    loop {
        let path = directory.join(name(now));
        let beside = beside(&path);
        let claimed = fs::create_dir_all(directory).and_then(|()| File::create_new(&beside));
        match claimed {
            Ok(_) if !path.exists() => return Ok((now, path)),
            Ok(_) => {
                let _ = fs::remove_file(&beside);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot write {}", path.display()));
            }
        }
        now += 1.second();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_begin_in_one_second_have_names_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let name = |now: Timestamp| now.strftime("%H%M%S.json").to_string();
        let free = |now| free_name(directory.path(), now, name).unwrap();
        let first = free(Timestamp::UNIX_EPOCH);
        // Nothing is in it yet.
        let second = free(Timestamp::UNIX_EPOCH);
        fs::rename(beside(&second.1), &second.1).unwrap();
        let third = free(first.0);
        let names = [first, second, third].map(|(_, path)| path.file_name().unwrap().to_owned());
        assert_eq!(names, ["000000.json", "000001.json", "000002.json"]);
        let cannot = free_name(Path::new("/proc/none"), Timestamp::UNIX_EPOCH, name);
        assert!(cannot
            .unwrap_err()
            .to_string()
            .starts_with("cannot write /proc/none/"));
    }
}
