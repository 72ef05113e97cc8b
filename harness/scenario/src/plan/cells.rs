// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cells of a scenario on one machine.

use std::collections::BTreeSet;

use super::combine::{self, Combination};
use crate::named::Named;
use crate::question::{Exclusion, Scenario};
use mutexlab_model::limits::MAX_OTHER_FLOWS;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Load, Payload, Popularity, Steering, Traffic, MAX_PAYLOAD};
use mutexlab_protocol::GuestCell;

/// The cells of one machine. Subjects are innermost, so that what is compared lies close together.
pub(super) fn cells(scenario: &Scenario, prefix: &str, cpus: u32) -> Vec<GuestCell> {
    let combinations: Vec<_> = scenario
        .subjects
        .iter()
        .map(|Named { subject, .. }| {
            let choices = scenario.parameters.of(subject);
            let all = choices.map(|choices| combine::combinations(choices, scenario.combine));
            (subject, all.unwrap_or_else(|| vec![Combination::new()]))
        })
        .collect();
    let mut cells = Vec::new();
    for traffic in traffic(scenario, cpus) {
        for (subject, combinations) in &combinations {
            let subject = *subject;
            cells.extend(combinations.iter().map(|chosen| GuestCell {
                id: format!("{prefix}/{}/{}", variant(subject, chosen), traffic.name()),
                subject: subject.clone(),
                parameters: if subject.is_module() {
                    with_implied(chosen.clone(), &traffic)
                } else {
                    chosen.clone()
                },
                traffic,
                ballast: None,
                mischief: None,
                sabotage: None,
                lens: scenario.lens.is_some(),
            }));
        }
    }
    cells
}

impl Exclusion {
    /// Whether a cell agrees with all that is given.
    pub(super) fn holds(&self, kernel: &str, cpus: u32, cell: &GuestCell) -> bool {
        fn agrees<T: PartialEq>(given: &Option<T>, there: &T) -> bool {
            given.as_ref().is_none_or(|given| given == there)
        }
        let traffic = &cell.traffic;
        let (rate, churn) = match traffic.load {
            Load::Open { rate, churn, .. } => (Some(rate), Some(churn)),
            Load::Closed { .. } | Load::Search(_) | Load::BackToBack(_) | Load::Bulk { .. } => {
                (None, None)
            }
        };
        agrees(&self.kernel.as_deref(), &kernel)
            && agrees(&self.cpus, &cpus)
            && agrees(&self.subject, &cell.subject)
            && agrees(&self.ends, &traffic.ends)
            && agrees(&self.way, &traffic.way)
            && agrees(&self.family, &traffic.family)
            && agrees(&self.protocol, &traffic.protocol)
            && agrees(&self.payload, &traffic.payload)
            && agrees(&self.flows, &traffic.flows)
            && (self.flows_per_cpu.is_none() || self.flows_per_cpu == traffic.flows_per_cpu())
            && agrees(&self.steering, &traffic.steering)
            && agrees(&self.checksum, &traffic.checksum)
            && agrees(&self.cloned, &traffic.cloned)
            && (self.rate.is_none() || self.rate == rate)
            && (self.churn.is_none() || self.churn == churn)
            && self
                .parameters
                .iter()
                .all(|(name, value)| cell.parameters.get(name) == Some(&value.to_string()))
    }
}

/// Adds what the module needs for its numbers to be the same in every boot, and to keep all flows of
/// `traffic` for as long as they are needed, unless the scenario says it. No part of a cell's name.
fn with_implied(mut parameters: Combination, traffic: &Traffic) -> Combination {
    // The module's defaults.
    const MAX_FLOWS: u32 = 65_536;
    const UDP_TIMEOUT: u32 = 180;
    let mut set = |name: &str, wanted: u32| {
        let value = parameters.entry(name.to_owned());
        value.or_insert_with(|| wanted.to_string());
    };
    // Else buckets would be others in each boot: even two flows share one now and then.
    set("hash_seed", 1);
    let all = traffic.flows_in_all();
    let flows = all.saturating_add(MAX_OTHER_FLOWS);
    if flows > MAX_FLOWS {
        set("max_flows", flows);
    }
    // Seconds of the guest's time that a flow may be left alone: while others are made, a tenth of
    // a millisecond each, and while round trips are measured, a hundredth of a second each.
    let measured = match traffic.load {
        Load::Closed { round_trips, .. } => round_trips / 100,
        Load::Open { rate, packets, .. } => packets / rate,
        Load::Search(_) | Load::BackToBack(_) | Load::Bulk { .. } => 0,
    };
    let idle = traffic.flows / 10_000 + measured;
    if all > 1 && idle > UDP_TIMEOUT / 3 {
        set("udp_timeout", (3 * idle).min(86_400));
    }
    parameters
}

fn traffic(scenario: &Scenario, cpus: u32) -> Vec<Traffic> {
    let matrix = &scenario.traffic;
    let loads = matrix.loads();
    let all_flows = matrix.all_flows(cpus);
    let kinds: Vec<_> = product(&matrix.checksum, &matrix.cloned).collect();
    let mut all = Vec::new();
    for &ends in &matrix.ends {
        for &way in &matrix.ways {
            for &family in &matrix.families {
                for &protocol in &matrix.protocols {
                    for &payload in &matrix.payloads {
                        for &(flows, spread) in &all_flows {
                            let usual = [Steering::Symmetric];
                            // All of CPU 0 have no other CPU to come back to.
                            let steering = spread.map_or(&usual[..], |_| &matrix.steering);
                            let flows_of = product(steering, &matrix.popularity);
                            for ((&steering, &popularity), &(&checksum, &cloned)) in flows_of
                                .flat_map(|flows| kinds.iter().map(move |kind| (flows, kind)))
                            {
                                all.extend(loads.iter().map(|&load| Traffic {
                                    ends,
                                    way,
                                    family,
                                    protocol,
                                    payload,
                                    flows,
                                    spread,
                                    steering,
                                    popularity,
                                    checksum,
                                    cloned,
                                    load,
                                    warm_up: matrix.warm_up,
                                }));
                            }
                        }
                    }
                }
            }
        }
    }
    // One flow has no popularity among others.
    let mut names = BTreeSet::new();
    for traffic in &mut all {
        if traffic.flows_per_cpu().unwrap_or(traffic.flows) == 1 {
            traffic.popularity = Popularity::Uniform;
        }
        // A stream has no packets of its own but as many bytes in each as fit.
        if let Load::Bulk { .. } = traffic.load {
            traffic.payload = Payload::Bytes(MAX_PAYLOAD);
        }
    }
    all.retain(|traffic| names.insert(traffic.name()));
    all
}

/// Every pair of both.
fn product<'a, A, B>(all: &'a [A], others: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    all.iter()
        .flat_map(move |one| others.iter().map(move |other| (one, other)))
}

/// A subject with its parameters, such as `module,cache=N`.
pub fn variant(subject: &Subject, parameters: &Combination) -> String {
    let mut name = subject.name().to_owned();
    for (parameter, value) in parameters {
        name.push_str(&format!(",{parameter}={value}"));
    }
    name
}
