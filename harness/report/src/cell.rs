// SPDX-License-Identifier: MIT OR Apache-2.0

//! A cell as the report sees it: read by names, so that results of commits with other subjects,
//! metrics and histograms than today's can be shown, too.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::traffic::Traffic;
use mutexlab_model::histogram::Histogram;
use mutexlab_model::subject::Subject;

/// A cell, all its repetitions together.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its stable name.
    pub id: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// What was measured.
    pub subject: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// The packets.
    pub traffic: Traffic,
    /// How each repetition ended that did not end well, and why.
    pub bad: Vec<(String, String)>,
    /// How many repetitions there are.
    pub repetitions: usize,
    /// Packets by where they went, of all repetitions.
    pub delivery: BTreeMap<String, u64>,
    /// The metrics, in the order of the file.
    pub metrics: Vec<Metric>,
    /// Histograms by what they are of, such as `hook.original`, of all repetitions.
    pub histograms: BTreeMap<String, Histogram>,
}

/// A metric of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Which direction is better.
    pub better: String,
    /// Whether it is exact.
    pub kind: String,
    /// One for each repetition.
    pub values: Vec<f64>,
}

impl Metric {
    /// The median of the repetitions.
    pub fn value(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        if sorted.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        }
    }
}

impl Cell {
    /// The subject whose its parameters are; none if they are our module's.
    pub fn owner(&self) -> Option<&str> {
        let is_module = |subject: &Subject| subject.name() == self.subject;
        (!Subject::OF_MODULE.iter().any(is_module)).then_some(&self.subject)
    }

    /// One repetition, from its record.
    ///
    /// # Errors
    /// If it lacks what every record has had.
    pub fn read(record: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Record {
            id: String,
            cpus: u32,
            subject: String,
            #[serde(default)]
            parameters: BTreeMap<String, String>,
            verdict: String,
            reason: Option<String>,
            delivery: Option<Map<String, Value>>,
            #[serde(default)]
            metrics: Vec<MetricRecord>,
        }
        #[derive(Deserialize)]
        struct MetricRecord {
            name: String,
            unit: String,
            better: String,
            kind: String,
            value: f64,
        }
        let id = || record.get("id").and_then(Value::as_str).unwrap_or("?");
        let read = Record::deserialize(record).with_context(|| format!("cell {}", id()))?;
        let mut histograms = BTreeMap::new();
        find_histograms(String::new(), record, &mut histograms)
            .with_context(|| format!("cell {}", id()))?;
        let bad = (read.verdict != "ok").then(|| {
            let reason = read.reason.unwrap_or_else(|| "no reason given".to_owned());
            (read.verdict, reason)
        });
        Ok(Self {
            traffic: Traffic::of(&read.id),
            id: read.id,
            cpus: read.cpus,
            subject: read.subject,
            parameters: read.parameters,
            bad: bad.into_iter().collect(),
            repetitions: 1,
            delivery: read
                .delivery
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, count)| Some((name, count.as_u64()?)))
                .collect(),
            metrics: read
                .metrics
                .into_iter()
                .map(|metric| Metric {
                    name: metric.name,
                    unit: metric.unit,
                    better: metric.better,
                    kind: metric.kind,
                    values: vec![metric.value],
                })
                .collect(),
            histograms,
        })
    }

    /// Adds another repetition.
    pub fn merge(&mut self, other: Self) {
        self.repetitions += other.repetitions;
        self.bad.extend(other.bad);
        for (name, count) in other.delivery {
            *self.delivery.entry(name).or_default() += count;
        }
        for metric in other.metrics {
            match self.metrics.iter_mut().find(|own| own.name == metric.name) {
                Some(own) => own.values.extend(metric.values),
                None => self.metrics.push(metric),
            }
        }
        for (name, histogram) in other.histograms {
            self.histograms.entry(name).or_default().merge(&histogram);
        }
    }

    /// Whether every repetition ended well.
    pub fn is_ok(&self) -> bool {
        self.bad.is_empty()
    }

    /// How it ended: the verdict of the first repetition that did not end well.
    pub fn verdict(&self) -> &str {
        self.bad.first().map_or("ok", |(verdict, _)| verdict)
    }

    /// A metric by its name.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// Its number, if the cell ended well.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.metric(name)
            .filter(|_| self.is_ok())
            .map(Metric::value)
            .filter(|value| value.is_finite())
    }

    /// What is measured by `metrics` whose names begin like a histogram's: its unit.
    pub fn unit_of(&self, histogram: &str) -> Option<&str> {
        self.metrics
            .iter()
            .find(|metric| {
                metric
                    .name
                    .strip_prefix(histogram)
                    .is_some_and(|rest| rest.starts_with('.'))
            })
            .map(|metric| metric.unit.as_str())
    }
}

/// Takes every histogram out of a record, wherever it lies: `hook_cost.original.histogram` is of
/// `hook.original`, as its metrics are.
fn find_histograms(
    path: String,
    value: &Value,
    found: &mut BTreeMap<String, Histogram>,
) -> Result<()> {
    let Value::Object(fields) = value else {
        return Ok(());
    };
    for (name, value) in fields {
        if name == "histogram" {
            found.insert(path.clone(), read_histogram(value).context(path.clone())?);
            continue;
        }
        // A histogram may also be a field itself.
        if value.as_str().is_some_and(|text| text.starts_with("HISTF")) {
            found.insert(join(&path, name), read_histogram(value)?);
            continue;
        }
        find_histograms(join(&path, name), value, found)?;
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    let name = name.strip_suffix("_cost").unwrap_or(name);
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// As text since schema 2, as pairs before.
fn read_histogram(value: &Value) -> Result<Histogram> {
    if value.is_array() {
        let pairs: Vec<(u64, u64)> =
            Vec::deserialize(value).context("a histogram is no list of pairs")?;
        return Ok(Histogram::from_pairs(pairs));
    }
    Histogram::deserialize(value).context("a histogram cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(value: f64, pairs: Value) -> Value {
        json!({
            "id": "7.3/1cpu/thing/forward-v4-udp-64",
            "cpus": 1,
            "subject": "thing",
            "verdict": "ok",
            "reason": null,
            "delivery": {"sent": 7, "words": "unknown"},
            "metrics": [{"name": "hook.original.p50", "unit": "u", "better": "lower",
                         "kind": "exact", "value": value}],
            "hook_cost": {"original": {"histogram": pairs, "sum": 4}},
            "latency": serde_json::to_value(Histogram::from_pairs([(9, 3)])).unwrap(),
            "unheard": {"of": [1, 2]},
        })
    }

    #[test]
    fn histograms_of_both_schemas_are_found_wherever_they_are() {
        let cell = Cell::read(&record(5.0, json!([[5, 2], [9, 1]]))).unwrap();
        assert_eq!(cell.histograms["hook.original"].count(), 3);
        assert_eq!(cell.histograms["latency"].count(), 3);
        assert_eq!(cell.unit_of("hook.original"), Some("u"));
        assert_eq!(cell.unit_of("hook.orig"), None);
        assert_eq!(cell.delivery.len(), 1);
        let text = serde_json::to_value(Histogram::from_pairs([(5, 2), (9, 1)])).unwrap();
        let newer = Cell::read(&record(5.0, text)).unwrap();
        assert_eq!(newer.histograms, cell.histograms);
    }

    #[test]
    fn repetitions_become_one() {
        let mut cell = Cell::read(&record(5.0, json!([[5, 2]]))).unwrap();
        cell.merge(Cell::read(&record(9.0, json!([[9, 2]]))).unwrap());
        cell.merge(Cell::read(&record(6.0, json!([[6, 2]]))).unwrap());
        assert_eq!(cell.repetitions, 3);
        assert_eq!(cell.value("hook.original.p50"), Some(6.0));
        assert_eq!(cell.histograms["hook.original"].count(), 6);
        assert_eq!(cell.delivery["sent"], 21);
    }

    #[test]
    fn a_bad_end_has_no_numbers() {
        let mut record = record(5.0, json!([]));
        record["verdict"] = json!("splat");
        let cell = Cell::read(&record).unwrap();
        assert_eq!(
            (cell.verdict(), cell.value("hook.original.p50")),
            ("splat", None)
        );
    }

    #[test]
    fn damage_is_told_with_the_cell() {
        let error = Cell::read(&record(5.0, json!([[1]]))).unwrap_err();
        assert!(
            format!("{error:#}").contains("forward-v4-udp-64"),
            "{error:#}"
        );
        let error = Cell::read(&json!({"id": "x"})).unwrap_err();
        assert!(format!("{error:#}").contains("cell x"), "{error:#}");
    }
}
