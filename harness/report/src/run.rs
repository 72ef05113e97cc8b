// SPDX-License-Identifier: MIT OR Apache-2.0

//! A results file as the report sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::cell::Cell;
use mutexlab_results::record::SCHEMA;

/// The oldest schema that can be read.
const OLDEST: u32 = 1;

/// What a file tells of one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The file, for a person.
    pub file: String,
    /// The scenario's name.
    pub scenario: String,
    /// Its question.
    pub question: String,
    /// `virtual` or `wall`.
    pub mode: String,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Which cells were asked for, if not all were.
    pub filter: Option<String>,
    /// The commit, in full.
    pub commit: String,
    /// Whether files differed from it.
    pub dirty: bool,
    /// The kernel's name.
    pub kernel: String,
    /// What the kernel calls itself.
    pub release: String,
    /// Everything that the numbers depend on, but for other kernels and the scenario's text.
    pub closure: Value,
    /// The scenario's text.
    pub scenario_text: String,
    /// Boots that did not end well: name, verdict, reason and where the console went.
    pub bad_boots: Vec<[String; 4]>,
    /// The cells, each once.
    pub cells: Vec<Cell>,
}

impl Run {
    /// The commit as people write it.
    pub fn short_commit(&self) -> String {
        let short: String = self.commit.chars().take(7).collect();
        if self.dirty {
            short + "+"
        } else {
            short
        }
    }

    /// How many cells ended well.
    pub fn cells_ok(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_ok()).count()
    }
}

/// What a file says: a run for each kernel, and what could not be understood.
#[derive(Debug, Default)]
pub struct Contents {
    /// By kernel.
    pub runs: Vec<Run>,
    /// A line for each cell that cannot be read.
    pub unread: Vec<String>,
}

/// Reads a results file; `name` is what the report calls it.
///
/// # Errors
/// If it cannot be read at all, is cut short, or is of a schema that this program does not know.
pub fn read(path: &Path, name: &str) -> Result<Contents> {
    let text = fs::read(path).context("it cannot be read")?;
    understand(&text, name)
}

#[derive(Deserialize)]
struct File {
    scenario: String,
    #[serde(default)]
    question: String,
    mode: String,
    started: String,
    filter: Option<String>,
    closure: Value,
    #[serde(default)]
    boots: Vec<BootRecord>,
    cells: Vec<Value>,
}

#[derive(Deserialize)]
struct BootRecord {
    id: String,
    verdict: String,
    reason: Option<String>,
    #[serde(default)]
    console_log: String,
}

fn understand(text: &[u8], name: &str) -> Result<Contents> {
    let value: Value = serde_json::from_slice(text).context("it is no JSON, or was cut short")?;
    match value.get("schema").and_then(Value::as_u64) {
        Some(schema) if (u64::from(OLDEST)..=u64::from(SCHEMA)).contains(&schema) => {}
        Some(schema) => bail!(
            "it is of schema {schema}, and this program reads {OLDEST} to {SCHEMA}: {}",
            if schema > u64::from(SCHEMA) {
                "make the report with the newer program"
            } else {
                "measure anew"
            }
        ),
        None => bail!("it names no schema, so it is no results file"),
    }
    let file = File::deserialize(&value).context("it is no results file")?;
    let mut contents = Contents::default();
    let mut by_kernel: Vec<(String, Vec<Cell>)> = Vec::new();
    for record in &file.cells {
        let kernel = record.get("kernel").and_then(Value::as_str);
        let read = Cell::read(record).map_err(|error| format!("{error:#}"));
        let (kernel, cell) = match (kernel, read) {
            (Some(kernel), Ok(cell)) => (kernel, cell),
            (None, Ok(cell)) => {
                contents
                    .unread
                    .push(format!("cell {} names no kernel", cell.id));
                continue;
            }
            (_, Err(error)) => {
                contents.unread.push(error);
                continue;
            }
        };
        let cells = match by_kernel.iter_mut().find(|(name, _)| name == kernel) {
            Some((_, cells)) => cells,
            None => {
                by_kernel.push((kernel.to_owned(), Vec::new()));
                // Just pushed.
                &mut by_kernel.last_mut().context("no kernel")?.1
            }
        };
        match cells.iter_mut().find(|known| known.id == cell.id) {
            Some(known) => known.merge(cell),
            None => cells.push(cell),
        }
    }
    let text_of = |value: &Value, key: &str| {
        let text = value.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let commit = text_of(&file.closure, "commit");
    let dirty = file.closure.get("dirty").and_then(Value::as_bool) != Some(false);
    contents.runs = by_kernel
        .into_iter()
        .map(|(kernel, cells)| Run {
            file: name.to_owned(),
            scenario: file.scenario.clone(),
            question: file.question.clone(),
            mode: file.mode.clone(),
            started: file.started.clone(),
            filter: file.filter.clone(),
            commit: commit.clone(),
            dirty,
            release: file
                .closure
                .pointer(&format!("/kernels/{}/release", escape(&kernel)))
                .and_then(Value::as_str)
                .unwrap_or(&kernel)
                .to_owned(),
            closure: closure_of(&file.closure, &kernel),
            scenario_text: text_of(&file.closure, "scenario_text"),
            bad_boots: bad_boots(&file.boots, &kernel),
            kernel,
            cells,
        })
        .collect();
    Ok(contents)
}

/// A key in a JSON pointer, RFC 6901.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn closure_of(closure: &Value, kernel: &str) -> Value {
    let mut closure = closure.clone();
    if let Value::Object(fields) = &mut closure {
        fields.remove("scenario_text");
        if let Some(Value::Object(kernels)) = fields.get_mut("kernels") {
            kernels.retain(|name, _| name == kernel);
        }
    }
    closure
}

fn bad_boots(boots: &[BootRecord], kernel: &str) -> Vec<[String; 4]> {
    boots
        .iter()
        .filter(|boot| boot.verdict != "ok" && boot.id.starts_with(&format!("{kernel}/")))
        .map(|boot| {
            [
                boot.id.clone(),
                boot.verdict.clone(),
                boot.reason.clone().unwrap_or_default(),
                boot.console_log.clone(),
            ]
        })
        .collect()
}

/// What can be varied by hand: parameters that differ between cells of the same subject, traffic
/// and number of CPUs. Those that a plan sets by itself, such as room for many flows, do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knob {
    /// The parameter.
    pub name: String,
    /// The subject whose it is; none for our module.
    pub owner: Option<String>,
    /// The value that it has unless told; none if it was not set.
    pub default: Option<String>,
    /// The others.
    pub others: Vec<Option<String>>,
}

impl Run {
    /// The knobs, by name.
    pub fn knobs(&self) -> Vec<Knob> {
        let mut together: BTreeMap<_, Vec<&Cell>> = BTreeMap::new();
        for cell in &self.cells {
            let key = (&cell.subject, &cell.traffic, cell.cpus);
            together.entry(key).or_default().push(cell);
        }
        let names: BTreeSet<(Option<&str>, &String)> = self
            .cells
            .iter()
            .flat_map(|cell| cell.parameters.keys().map(|name| (cell.owner(), name)))
            .collect();
        names
            .into_iter()
            .filter_map(|(owner, name)| {
                let varied: Vec<&Cell> = together
                    .values()
                    .filter(|cells| cells.first().is_some_and(|cell| cell.owner() == owner))
                    .filter(|cells| {
                        let first = cells.first().and_then(|cell| cell.parameters.get(name));
                        cells.iter().any(|cell| cell.parameters.get(name) != first)
                    })
                    .flatten()
                    .copied()
                    .collect();
                self.knob(owner, name, &varied)
            })
            .collect()
    }

    fn knob(&self, owner: Option<&str>, name: &str, varied: &[&Cell]) -> Option<Knob> {
        let mut counts: Vec<(Option<&String>, usize)> = Vec::new();
        for cell in varied {
            let value = cell.parameters.get(name);
            match counts.iter_mut().find(|(known, _)| *known == value) {
                Some((_, count)) => *count += 1,
                None => counts.push((value, 1)),
            }
        }
        let told = self.first_in_scenario(owner, name);
        let most = counts.iter().map(|(_, count)| *count).max()?;
        let default = counts
            .iter()
            .find(|(value, _)| value.is_some() && *value == told.as_ref())
            // Where all combinations were not made, the default is what there is most of.
            .or_else(|| counts.iter().find(|(_, count)| *count == most))?
            .0;
        Some(Knob {
            name: name.to_owned(),
            owner: owner.map(str::to_owned),
            default: default.cloned(),
            others: counts
                .iter()
                .filter(|(value, _)| *value != default)
                .map(|(value, _)| value.cloned())
                .collect(),
        })
    }

    /// The first value of a parameter in the scenario, which is its default.
    fn first_in_scenario(&self, owner: Option<&str>, name: &str) -> Option<String> {
        let table: toml::Table = self.scenario_text.parse().ok()?;
        let all = table.get("parameters")?;
        let of_owner = owner.map_or(Some(all), |owner| all.get(owner))?;
        let first = match of_owner.get(name)? {
            toml::Value::Array(values) => values.first()?,
            range => range.get("from")?,
        };
        Some(match first {
            toml::Value::Boolean(true) => "Y".to_owned(),
            toml::Value::Boolean(false) => "N".to_owned(),
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// The knobs that a cell has turned, with their values.
    pub fn turned<'a>(&self, knobs: &'a [Knob], cell: &Cell) -> Vec<(&'a Knob, Option<String>)> {
        knobs
            .iter()
            .filter(|knob| knob.is_of(cell))
            .filter(|knob| cell.parameters.get(&knob.name) != knob.default.as_ref())
            .map(|knob| (knob, cell.parameters.get(&knob.name).cloned()))
            .collect()
    }

    /// A cell's subject, and the knobs it has turned.
    pub fn variant(&self, knobs: &[Knob], cell: &Cell) -> String {
        let mut name = cell.subject.clone();
        for (knob, value) in self.turned(knobs, cell) {
            name.push_str(", ");
            name.push_str(&setting(&knob.name, value.as_deref()));
        }
        name
    }
}

impl Knob {
    /// Whether it is one that a cell has.
    pub fn is_of(&self, cell: &Cell) -> bool {
        self.owner.as_deref() == cell.owner()
    }

    /// It with a value, for a person: whose it is, unless our module's.
    pub fn setting(&self, value: Option<&str>) -> String {
        let setting = setting(&self.name, value);
        match &self.owner {
            Some(owner) => format!("{owner}: {setting}"),
            None => setting,
        }
    }
}

/// A parameter's value for a person: the prefix that tells nothing is left out.
pub fn setting(name: &str, value: Option<&str>) -> String {
    format!("{} = {}", short_name(name), value.unwrap_or("unset"))
}

/// A parameter's name for a person.
pub fn short_name(name: &str) -> &str {
    name.strip_prefix("perf_enable_")
        .or_else(|| name.strip_prefix("perf_"))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told() {
        let whole = synthetic::ablation().to_string();
        for (text, part) in [
            (&whole[..whole.len() / 2], "cut short"),
            ("{}", "names no schema"),
            ("[1]", "names no schema"),
            (r#"{"schema": 0}"#, "schema 0, and this program reads 1 to"),
            (r#"{"schema": 99}"#, "newer program"),
            (r#"{"schema": 1}"#, "no results file"),
        ] {
            let error = format!("{:#}", understand(text.as_bytes(), "a").unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_cell_that_cannot_be_read_does_not_spoil_the_others() {
        let mut file = synthetic::ablation();
        let before = understand(file.to_string().as_bytes(), "a").unwrap();
        assert_eq!(before.unread, Vec::<String>::new());
        file["cells"][0]["metrics"] = "none".into();
        let after = understand(file.to_string().as_bytes(), "a").unwrap();
        assert_eq!(after.unread.len(), 1);
        assert_eq!(after.runs[0].cells.len() + 1, before.runs[0].cells.len());
    }

    #[test]
    fn knobs_are_what_a_scenario_varies() {
        let file = synthetic::ablation().to_string();
        let run = understand(file.as_bytes(), "a").unwrap().runs.remove(0);
        let knobs = run.knobs();
        let names: Vec<_> = knobs.iter().map(|knob| knob.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "perf_enable_pool",
                "perf_enable_rcu",
                "perf_enable_zero_copy"
            ]
        );
        assert_eq!(knobs[1].default.as_deref(), Some("1"));
        assert_eq!(knobs[1].others, [Some("0".to_owned())]);
        let variants: BTreeSet<_> = run
            .cells
            .iter()
            .map(|cell| run.variant(&knobs, cell))
            .collect();
        assert!(variants.contains("module"));
        assert!(variants.contains("module, pool = 0, rcu = 0"));
        assert!(variants.contains("nft-dnat"));
    }

    #[test]
    fn what_a_plan_sets_by_itself_is_no_knob() {
        let file = synthetic::flows().to_string();
        let run = understand(file.as_bytes(), "a").unwrap().runs.remove(0);
        assert_eq!(run.knobs(), []);
    }
}
