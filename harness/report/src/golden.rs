// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers under version control: what each commit recorded in `results/golden/`.

use std::collections::BTreeMap;

use anyhow::Result;

use super::history::History;
use mutexlab_host::git::Repository;
use mutexlab_judge::golden::Counts;

/// Where golden counts lie in the repository.
const DIRECTORY: &str = "results/golden";

/// What a commit recorded of a scenario on a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// The commit's place in the history.
    pub commit: usize,
    /// The scenario.
    pub scenario: String,
    /// The kernel's name.
    pub kernel: String,
    /// Values by cell and metric.
    pub values: BTreeMap<(String, String), f64>,
}

impl Golden {
    /// The number of a cell's metric.
    pub fn value(&self, cell: &str, metric: &str) -> Option<f64> {
        let key = (cell.to_owned(), metric.to_owned());
        self.values.get(&key).copied()
    }
}

/// All that commits recorded, in order. A file that is no file of counts is left out.
///
/// # Errors
/// If git fails.
pub fn read(repository: &Repository, history: &History) -> Result<Vec<Golden>> {
    // A recorded number holds until it is recorded anew, so that only commits that did are asked.
    let log = repository.git(&[
        "log",
        "--first-parent",
        "-m",
        "--reverse",
        "--format=commit %H",
        "--name-only",
        "--diff-filter=AM",
        "HEAD",
        "--",
        DIRECTORY,
    ])?;
    let mut found = Vec::new();
    let mut commit = None;
    for line in log.lines().filter(|line| !line.is_empty()) {
        if let Some(hash) = line.strip_prefix("commit ") {
            commit = history.position(hash).map(|place| (place, hash));
            continue;
        }
        if let Some((place, hash)) = commit {
            let text = repository.git(&["show", &format!("{hash}:{line}")])?;
            found.extend(understand(&text, place));
        }
    }
    Ok(found)
}

/// What a file says; none if it is no file of counts.
fn understand(text: &str, commit: usize) -> Option<Golden> {
    let counts: Counts = text.parse().ok()?;
    let condition = |name: &str| Some(counts.condition(name).to_owned()).filter(|c| !c.is_empty());
    Some(Golden {
        commit,
        scenario: condition("scenario")?,
        kernel: condition("kernel")?,
        values: counts
            .cells
            .into_iter()
            .flat_map(|(id, metrics)| {
                let of_cell = move |(name, value)| ((id.clone(), name), value);
                metrics.into_iter().map(of_cell)
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use mutexlab_host::sample::empty;

    #[test]
    fn what_commits_recorded_is_read() {
        let (directory, repository) = empty();
        let run = |arguments: &[&str]| repository.git(arguments).unwrap();
        run(&["commit", "-q", "--allow-empty", "-m", "Nothing yet"]);
        let golden = directory.path().join(DIRECTORY);
        fs::create_dir_all(&golden).unwrap();
        fs::write(golden.join("README"), "no counts\n").unwrap();
        for value in [7, 8] {
            let text = format!(
                "# Counts\nkernel: 7.3\nscenario: quick\n\n\
                 7.3/1cpu/none/forward-v4-udp-64 hook.mean=0\n\
                 7.3/1cpu/module,a=1/forward-v4-udp-64 hook.mean={value}.5 hook.reply.p50=3\n"
            );
            fs::write(golden.join("quick-7.3.txt"), text).unwrap();
            run(&["add", "."]);
            run(&["commit", "-q", "-m", "Counts"]);
        }
        run(&["commit", "-q", "--allow-empty", "-m", "Something else"]);
        let history = History::read(&repository).unwrap();
        let read = read(&repository, &history).unwrap();
        let told: Vec<_> = read
            .iter()
            .map(|golden| {
                let value = golden.value("7.3/1cpu/module,a=1/forward-v4-udp-64", "hook.mean");
                (
                    golden.commit,
                    golden.scenario.as_str(),
                    golden.kernel.as_str(),
                    value,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, "quick", "7.3", Some(7.5)),
                (2, "quick", "7.3", Some(8.5))
            ]
        );
    }
}
