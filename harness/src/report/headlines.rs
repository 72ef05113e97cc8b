// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which metrics stand for a cell, and in which order: what the scenario is about comes first.

use super::run::Run;
use super::traffic::Dimension;
use crate::results::metrics::{
    FIRST_PACKET, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE,
};

/// What a closed loop is about.
const COST: [&str; 4] = [HOOK_MEAN, FIRST_PACKET, MEMORY_PER_FLOW, PATH_OVER_NONE];
/// Parts of a way, which have plots of their own.
const PARTS: [&str; 2] = [".original.", ".reply."];
/// Of a distribution only these stand for it.
const STATISTICS: [&str; 2] = [".p50", ".p99"];

/// Whether packets were sent at a rate, so that the run is about how they fare.
pub fn is_open(run: &Run) -> bool {
    run.cells
        .iter()
        .any(|cell| cell.traffic.number(Dimension::Rate).is_some())
}

/// The metrics of a run that are worth a plot, the most telling first.
pub fn of(run: &Run) -> Vec<&str> {
    let all = all(run);
    let of_distribution = |name: &str| {
        name.match_indices('.')
            .any(|(end, _)| all.contains(&format!("{}.p50", &name[..end]).as_str()))
    };
    let mut telling: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| {
            let part = PARTS.iter().any(|part| name.contains(part));
            let statistic = STATISTICS.iter().any(|end| name.ends_with(end));
            // The path says little by itself.
            let bare = *name == PATH_MEAN && all.contains(&PATH_OVER_NONE);
            !part && !bare && (statistic || !of_distribution(name)) && !is_zero(run, name)
        })
        .collect();
    let open = is_open(run);
    telling.sort_by_key(|name| {
        let place = COST.iter().position(|cost| cost == name);
        // Stable: the rest keeps the order of the file.
        match place {
            Some(place) => (open, place),
            None => (!open, 0),
        }
    });
    telling
}

/// Metrics for which less is better, and of which there was none in any cell, such as losses.
pub fn zero(run: &Run) -> Vec<&str> {
    let parts = |name: &&str| !name.contains('.') && is_zero(run, name);
    all(run).into_iter().filter(parts).collect()
}

/// Every metric's name, in the order of the file; those that only explain others are left out.
fn all(run: &Run) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for metric in run.cells.iter().flat_map(|cell| &cell.metrics) {
        if metric.better != "neither" && !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    names
}

fn is_zero(run: &Run, name: &str) -> bool {
    run.cells
        .iter()
        .filter_map(|cell| cell.value(name))
        .all(|value| value == 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    #[test]
    fn what_a_closed_loop_is_about_is_its_cost() {
        let run = synthetic::run(&synthetic::flows());
        assert_eq!(
            of(&run),
            [
                HOOK_MEAN,
                FIRST_PACKET,
                MEMORY_PER_FLOW,
                PATH_MEAN,
                "throughput.pps"
            ]
        );
        assert_eq!(zero(&run), [""; 0]);
    }

    #[test]
    fn what_an_open_loop_is_about_is_how_packets_fare() {
        let run = synthetic::run(&synthetic::latency());
        assert_eq!(
            of(&run),
            [
                "throughput.pps",
                "latency.p50",
                "latency.p99",
                HOOK_MEAN,
                FIRST_PACKET
            ]
        );
        assert_eq!(zero(&run), ["loss"]);
    }
}
