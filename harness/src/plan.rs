// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a scenario amounts to: boots, and the cells that each measures. The plan is data; making
//! it touches nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::guest::flows;
use crate::guest::protocol::{Family, GuestCell, Protocol, Subject, Traffic, Way};
use crate::scenario::{ParameterValue, Scenario};

/// Everything that is to be done, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The boots, none of them empty.
    pub boots: Vec<PlannedBoot>,
}

/// Cells that share a kernel and a number of CPUs are measured in one boot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedBoot {
    /// Stable name, such as `7.3/1cpu/boot1`.
    pub id: String,
    /// The kernel's name.
    pub kernel: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Which repetition it is, from 1.
    pub repetition: u32,
    /// The cells, in the order of measuring.
    pub cells: Vec<GuestCell>,
}

impl Plan {
    /// The whole product of a scenario's lists.
    pub fn new(scenario: &Scenario) -> Self {
        let mut boots = Vec::new();
        for kernel in &scenario.kernels {
            for &cpus in &scenario.cpus {
                let cells = cells(scenario, &format!("{kernel}/{cpus}cpu"));
                boots.extend((1..=scenario.boots).map(|repetition| PlannedBoot {
                    id: format!("{kernel}/{cpus}cpu/boot{repetition}"),
                    kernel: kernel.clone(),
                    cpus,
                    repetition,
                    cells: cells.clone(),
                }));
            }
        }
        Self { boots }
    }

    /// Keeps the cells that `keep` says to keep, and the boots that still have one.
    pub fn retain(&mut self, keep: impl Fn(&PlannedBoot, &GuestCell) -> bool) {
        for boot in &mut self.boots {
            let cells = std::mem::take(&mut boot.cells);
            boot.cells = cells.into_iter().filter(|cell| keep(boot, cell)).collect();
        }
        self.boots.retain(|boot| !boot.cells.is_empty());
    }

    /// How many cells there are in all boots.
    pub fn cells(&self) -> usize {
        self.boots.iter().map(|boot| boot.cells.len()).sum()
    }

    /// The kernels' names, each once.
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.boots.iter().map(|boot| boot.kernel.as_str()).collect();
        names.dedup();
        names
    }
}

/// The cells of one boot. Subjects are innermost, so that what is compared lies close together.
fn cells(scenario: &Scenario, prefix: &str) -> Vec<GuestCell> {
    let combinations = combinations(&scenario.parameters);
    let nothing = [BTreeMap::new()];
    let mut cells = Vec::new();
    for traffic in traffic(scenario) {
        for &subject in &scenario.subjects {
            let combinations = match subject {
                Subject::Module | Subject::ModuleUnmatched => combinations.as_slice(),
                Subject::None | Subject::NftDnat => &nothing,
            };
            cells.extend(combinations.iter().map(|chosen| {
                let mut parameters = chosen.clone();
                if subject.is_module() {
                    make_room(&mut parameters, &traffic);
                }
                GuestCell {
                    id: format!(
                        "{prefix}/{}/{}",
                        variant(subject, &parameters),
                        traffic_name(&traffic)
                    ),
                    subject,
                    parameters,
                    traffic,
                }
            }));
        }
    }
    cells
}

/// Has the module keep all flows of `traffic` for as long as they are needed, unless the scenario
/// says what it shall keep.
fn make_room(parameters: &mut BTreeMap<String, String>, traffic: &Traffic) {
    // The module's defaults.
    const MAX_FLOWS: u32 = 65_536;
    const UDP_TIMEOUT: u32 = 180;
    let mut set = |name: &str, wanted: u32| {
        let value = parameters.entry(name.to_owned());
        value.or_insert_with(|| wanted.to_string());
    };
    if traffic.flows > 1 {
        // Else chains would be others in each boot.
        set("hash_seed", 1);
    }
    let flows = traffic.flows + flows::OTHERS;
    if flows > MAX_FLOWS {
        set("max_flows", flows);
    }
    // Seconds of the guest's time that a flow may be left alone: while others are made, a tenth of
    // a millisecond each, and while round trips are measured, a hundredth of a second each.
    let idle = traffic.flows / 10_000 + traffic.round_trips / 100;
    if traffic.flows > 1 && idle > UDP_TIMEOUT / 3 {
        set("udp_timeout", (3 * idle).min(86_400));
    }
}

fn traffic(scenario: &Scenario) -> Vec<Traffic> {
    let matrix = &scenario.traffic;
    let mut all = Vec::new();
    for &way in &matrix.ways {
        for &family in &matrix.families {
            for &protocol in &matrix.protocols {
                for &payload in &matrix.payloads {
                    all.extend(matrix.flows.iter().map(|&flows| Traffic {
                        way,
                        family,
                        protocol,
                        payload,
                        flows,
                        round_trips: matrix.round_trips,
                        warm_up: matrix.warm_up,
                        burst: matrix.burst,
                    }));
                }
            }
        }
    }
    all
}

/// Every way to give each parameter one of its values.
fn combinations(
    parameters: &BTreeMap<String, Vec<ParameterValue>>,
) -> Vec<BTreeMap<String, String>> {
    let mut all = vec![BTreeMap::new()];
    for (name, values) in parameters {
        all = all
            .iter()
            .flat_map(|chosen| {
                values.iter().map(move |value| {
                    let mut chosen = chosen.clone();
                    chosen.insert(name.clone(), value.to_string());
                    chosen
                })
            })
            .collect();
    }
    all
}

/// A subject with its parameters, such as `module,cache=N`.
pub fn variant(subject: Subject, parameters: &BTreeMap<String, String>) -> String {
    let mut name = subject_name(subject).to_owned();
    for (parameter, value) in parameters {
        name.push_str(&format!(",{parameter}={value}"));
    }
    name
}

/// The name of a subject in ids and tables.
pub const fn subject_name(subject: Subject) -> &'static str {
    match subject {
        Subject::None => "none",
        Subject::NftDnat => "nft-dnat",
        Subject::Module => "module",
        Subject::ModuleUnmatched => "module-unmatched",
    }
}

/// The name of a traffic in ids, such as `forward-v4-udp-64`, and with more flows than one,
/// `forward-v4-udp-64-1000flows`.
pub fn traffic_name(traffic: &Traffic) -> String {
    let mut name = format!(
        "{}-{}-{}-{}",
        way_name(traffic.way),
        family_name(traffic.family),
        protocol_name(traffic.protocol),
        traffic.payload
    );
    if traffic.flows != 1 {
        name.push_str(&format!("-{}flows", traffic.flows));
    }
    name
}

/// The name of a way in ids and tables.
pub const fn way_name(way: Way) -> &'static str {
    match way {
        Way::Forward => "forward",
        Way::Local => "local",
    }
}

/// The name of an IP version in ids and tables.
pub const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// The name of a transport protocol in ids and tables.
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::{Mode, TrafficMatrix};

    fn scenario() -> Scenario {
        let values = |values: &[i64]| values.iter().map(|&v| ParameterValue::Integer(v)).collect();
        Scenario {
            question: String::new(),
            mode: Mode::Virtual,
            kernels: vec!["7.3".into(), "6.12".into()],
            cpus: vec![1, 2],
            boots: 3,
            subjects: vec![Subject::None, Subject::NftDnat, Subject::Module],
            parameters: [
                ("a".into(), values(&[0, 1])),
                ("b".into(), values(&[0, 1, 2])),
            ]
            .into(),
            traffic: TrafficMatrix {
                ways: vec![Way::Forward, Way::Local],
                families: vec![Family::V4, Family::V6],
                protocols: vec![Protocol::Udp],
                payloads: vec![64, 1024],
                flows: vec![1],
                round_trips: 10,
                warm_up: 1,
                burst: 1,
            },
        }
    }

    #[test]
    fn the_plan_is_the_whole_product() {
        let plan = Plan::new(&scenario());
        assert_eq!(plan.boots.len(), 2 * 2 * 3);
        // Two subjects without parameters, one with six combinations.
        assert_eq!(plan.cells(), 12 * 8 * (1 + 1 + 6));
        assert_eq!(plan.kernels(), ["7.3", "6.12"]);
    }

    #[test]
    fn names_are_unique_and_readable() {
        let plan = Plan::new(&scenario());
        let boots: BTreeSet<_> = plan.boots.iter().map(|boot| &boot.id).collect();
        assert_eq!(boots.len(), plan.boots.len());
        for boot in &plan.boots {
            let cells: BTreeSet<_> = boot.cells.iter().map(|cell| &cell.id).collect();
            assert_eq!(cells.len(), boot.cells.len());
        }
        assert_eq!(plan.boots[0].cells[0].id, "7.3/1cpu/none/forward-v4-udp-64");
        assert_eq!(
            plan.boots[0].cells[2].id,
            "7.3/1cpu/module,a=0,b=0/forward-v4-udp-64"
        );
    }

    #[test]
    fn many_flows_have_names_and_room() {
        let mut scenario = scenario();
        scenario.traffic.ways = vec![Way::Forward];
        scenario.traffic.flows = vec![1, 1_000, 1_000_000];
        let plan = Plan::new(&scenario);
        assert_eq!(plan.cells(), 12 * 4 * 3 * (1 + 1 + 6));
        let cells = &plan.boots[0].cells;
        let find = |id: &str| cells.iter().find(|cell| cell.id == id).unwrap();
        assert!(find("7.3/1cpu/none/forward-v4-udp-64-1000flows")
            .parameters
            .is_empty());
        let few = find("7.3/1cpu/module,a=0,b=0,hash_seed=1/forward-v4-udp-64-1000flows");
        assert_eq!(few.parameters.len(), 3);
        let many = find(
            "7.3/1cpu/module,a=0,b=0,hash_seed=1,max_flows=1001001,udp_timeout=300/forward-v4-udp-64-1000000flows",
        );
        assert_eq!(many.parameters["max_flows"], "1001001");

        // What the scenario says holds.
        let own = vec![ParameterValue::Integer(5)];
        scenario.parameters = [("max_flows".to_owned(), own)].into();
        scenario.traffic.flows = vec![100_000];
        let plan = Plan::new(&scenario);
        let module = plan.boots[0]
            .cells
            .iter()
            .find(|cell| cell.subject.is_module());
        assert_eq!(module.unwrap().parameters["max_flows"], "5");
    }

    #[test]
    fn retaining_drops_boots_without_cells() {
        let mut plan = Plan::new(&scenario());
        plan.retain(|boot, cell| boot.repetition == 2 && cell.id.contains("6.12/2cpu/none"));
        assert_eq!(plan.boots.len(), 1);
        assert_eq!(plan.cells(), 8);
    }
}
