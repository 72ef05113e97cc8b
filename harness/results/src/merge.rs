// SPDX-License-Identifier: MIT OR Apache-2.0

//! One results file of the shards that several machines measured.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use anyhow::{bail, ensure, Context, Result};

use crate::closure::Host;
use crate::derive;
use crate::record::{CellRecord, Results};
use mutexlab_model::mode::Mode;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

/// Joins runs, each with its name for errors. In whatever order they come, the result is the same.
///
/// # Errors
/// If they were measured under different conditions, or have different records of the same cell.
pub fn merge(mut runs: Vec<(String, Results)>) -> Result<Results> {
    for (name, run) in &runs {
        ensure!(!run.cells.is_empty(), "{name} has no cells");
    }
    // Names are for people, and the same file has one here and another there.
    runs.sort_by_cached_key(|(_, run)| serde_json::to_string(run).unwrap_or_default());
    check_conditions(&runs)?;
    let mut runs = runs.into_iter();
    let Some((first_name, mut merged)) = runs.next() else {
        bail!("there is nothing to join");
    };
    merged.shard = None;
    let mut seen: HashMap<(String, u32), (String, CellRecord)> = HashMap::new();
    for cell in &merged.cells {
        seen.insert(key(cell), (first_name.clone(), cell.clone()));
    }
    for (name, run) in runs {
        merged.closure.host = joined(&merged.closure.host, &run.closure.host);
        let boots = take_boots(&mut merged, &run);
        for mut cell in run.cells {
            if let Some(boot) = boots.get(&cell.boot) {
                cell.boot.clone_from(boot);
            }
            match seen.entry(key(&cell)) {
                Entry::Vacant(place) => {
                    place.insert((name.clone(), cell.clone()));
                    merged.cells.push(cell);
                }
                Entry::Occupied(known) => {
                    let (other, record) = known.get();
                    ensure!(
                        *record == cell,
                        "{other} and {name} both have cell {}, repetition {}, and differ: which \
                         of them is to be kept?",
                        cell.id,
                        cell.repetition
                    );
                }
            }
        }
    }
    let order = places(&merged)?;
    merged.cells.sort_by_cached_key(|cell| {
        let place = order.get(&cell.id).copied().unwrap_or(usize::MAX);
        (cell.repetition, place, cell.id.clone())
    });
    derive::path_over_none(&mut merged.cells, merged.mode);
    Ok(merged)
}

fn key(cell: &CellRecord) -> (String, u32) {
    (cell.id.clone(), cell.repetition)
}

/// Fails with a line for everything that is not the same in all runs but must be.
fn check_conditions(runs: &[(String, Results)]) -> Result<()> {
    let Some(((first_name, first), rest)) = runs.split_first() else {
        return Ok(());
    };
    let mut found = Vec::new();
    for (name, run) in rest {
        let mut differ = |what: &str, same: bool| {
            if !same {
                found.push(format!("{first_name} and {name}: {what}"));
            }
        };
        differ("scenario", first.scenario == run.scenario);
        differ("mode", first.mode == run.mode);
        differ("filter", first.filter == run.filter);
        // Of one scenario: a run may have asked for the lens itself.
        differ("the lens, or its caches", first.lens == run.lens);
        let mut closure = run.closure.clone();
        if run.mode == Mode::Virtual {
            closure.host = first.closure.host.clone();
        }
        for line in closure.differences(&first.closure)? {
            // "this then, that now": here it is "this there, that here".
            differ(&line, false);
        }
    }
    ensure!(
        found.is_empty(),
        "these were measured under different conditions:\n  {}",
        found.join("\n  ")
    );
    Ok(())
}

/// Adds the boots of `run`; returns which name each of them has now. Shards have boots of the same
/// name.
fn take_boots(merged: &mut Results, run: &Results) -> HashMap<String, String> {
    let mut names = HashMap::new();
    for boot in &run.boots {
        let mut number = 1;
        let name = loop {
            let name = match number {
                1 => boot.id.clone(),
                _ => format!("{}.{number}", boot.id),
            };
            let mut candidate = boot.clone();
            candidate.id.clone_from(&name);
            // A second try stands behind the first.
            candidate.retry_of =
                (boot.retry_of.as_ref()).map(|first| names.get(first).unwrap_or(first).clone());
            match merged.boots.iter().find(|known| known.id == name) {
                None => {
                    merged.boots.push(candidate);
                    break name;
                }
                Some(known) if *known == candidate => break name,
                Some(_) => number += 1,
            }
        };
        names.insert(boot.id.clone(), name);
    }
    names
}

/// Both machines, where they differ.
fn joined(a: &Host, b: &Host) -> Host {
    let join = |a: &str, b: &str| {
        let mut parts: BTreeSet<&str> = a.split(" + ").collect();
        parts.insert(b);
        parts.into_iter().collect::<Vec<_>>().join(" + ")
    };
    Host {
        kernel: join(&a.kernel, &b.kernel),
        architecture: join(&a.architecture, &b.architecture),
        cpu: join(&a.cpu, &b.cpu),
        cpus: a.cpus.min(b.cpus),
    }
}

/// What was to be measured, in the end of all machines: what the filter admits, on the kernels that there were. These
/// may be trees in the place of the scenario's one.
fn plan(results: &Results) -> Result<Plan> {
    let (closure, name) = (&results.closure, &results.scenario);
    let text = closure.scenario_text.clone();
    let scenario = ScenarioFile::parse(name.clone(), format!("{name}.toml"), text)
        .context("cannot read the scenario in the results")?;
    let plan = Plan::new(&scenario.scenario);
    let mut plan = plan.map_err(|fault| scenario.explain(&fault))?;
    if let Some(filter) = &results.filter {
        plan.retain(|_, cell| filter.admits(&cell.id));
    }
    let there: Vec<&str> = closure.kernels.keys().map(String::as_str).collect();
    let planned: BTreeSet<&str> = plan.kernels().into_iter().collect();
    let only = planned.first().filter(|_| planned.len() == 1);
    if let Some(like) = only.filter(|like| !there.contains(like)) {
        return Ok(plan.on(like, &there));
    }
    Ok(plan)
}

/// Where each cell stands in the plan.
fn places(results: &Results) -> Result<HashMap<String, usize>> {
    let mut places = HashMap::new();
    for boot in plan(results)?.boots {
        for cell in boot.cells {
            let next = places.len();
            places.entry(cell.id).or_insert(next);
        }
    }
    Ok(places)
}

/// The cells of the scenario that are not there.
pub fn missing(results: &Results) -> Result<Vec<String>> {
    let known: BTreeSet<_> = results.cells.iter().map(key).collect();
    let mut missing = Vec::new();
    for boot in plan(results)?.boots {
        for cell in boot.cells {
            if !known.contains(&(cell.id.clone(), boot.repetition)) {
                missing.push(format!("{} (boot {})", cell.id, boot.repetition));
            }
        }
    }
    Ok(missing)
}
