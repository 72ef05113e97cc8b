// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which metrics stand for a cell, and in which order: what the scenario is about comes first.

use super::run::Run;
use super::traffic::Dimension;
use mutexlab_results::lens_metrics::{CYCLES, LAST_MISSES, OURS_LINES, TRANSFERS};
use mutexlab_results::metric::{
    FIRST_PACKET, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE,
};

/// What a closed loop is about.
const COST: [&str; 8] = [
    HOOK_MEAN,
    CYCLES,
    TRANSFERS,
    LAST_MISSES,
    OURS_LINES,
    FIRST_PACKET,
    MEMORY_PER_FLOW,
    PATH_OVER_NONE,
];
/// What only the lens sees: of it, the above stand for the rest.
const LENS: &str = "lens.";
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
            let detail = name.starts_with(LENS) && !COST.contains(name);
            !part
                && !detail
                && !bare
                && (statistic || !of_distribution(name))
                && !is_zero(run, name)
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
    use serde_json::json;

    use super::super::subjects::Styles;
    use super::super::{curves, synthetic};
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
    fn what_the_lens_sees_is_shown_over_cpus() {
        let mut file = synthetic::scaling();
        for cell in file["cells"].as_array_mut().unwrap() {
            let cpus = cell["cpus"].as_f64().unwrap();
            let metrics = cell["metrics"].as_array_mut().unwrap();
            for (name, value) in [
                ("lens.l1d_misses", 1.0),
                (LAST_MISSES, 0.0),
                (TRANSFERS, cpus),
                (CYCLES, 100.0 * cpus),
            ] {
                metrics.push(json!({"name": name, "unit": "1/packet", "better": "lower",
                                    "kind": "modelled", "value": value}));
            }
        }
        let run = synthetic::run(&file);
        let names = of(&run);
        // Nothing missed the last level, and a level's misses are a detail.
        assert_eq!(names[..4], [HOOK_MEAN, CYCLES, TRANSFERS, FIRST_PACKET]);
        assert!(!names.contains(&"lens.l1d_misses"));
        let plots = curves::plots(&run, &[], &mut Styles::new(std::iter::empty()));
        assert_eq!(plots.len(), names.len());
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
