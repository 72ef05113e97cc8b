// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a scenario amounts to: boots, and the cells that each measures. The plan is data; making
//! it touches nothing.

mod combine;
mod shard;

use std::collections::BTreeSet;

use serde::Serialize;

pub use combine::Combination;
pub use shard::Shard;

use crate::guest::flows;
use crate::guest::protocol::{GuestCell, Subject};
use crate::scenario::{Exclusion, Fault, Mode, Scenario};
use crate::traffic::{Load, Payload, Popularity, Traffic, MAX_PAYLOAD};

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
    /// All that a scenario's lists amount to.
    ///
    /// # Errors
    /// If the scenario excludes what it does not ask for, or everything.
    pub fn new(scenario: &Scenario) -> Result<Self, Fault> {
        let mut used = vec![false; scenario.exclude.len()];
        let mut machines = Vec::new();
        for kernel in &scenario.kernels {
            for &cpus in &scenario.cpus {
                let mut cells = cells(scenario, &format!("{kernel}/{cpus}cpu"));
                cells.retain(|cell| {
                    let mut excluded = false;
                    for (exclusion, used) in scenario.exclude.iter().zip(&mut used) {
                        if exclusion.holds(kernel, cpus, cell) {
                            *used = true;
                            excluded = true;
                        }
                    }
                    !excluded
                });
                for cell in &cells {
                    scenario.check_cell(cell.subject, &cell.traffic)?;
                }
                machines.push((kernel, cpus, cells));
            }
        }
        if let Some(index) = used.iter().position(|used| !used) {
            let message = "this excludes nothing: no cell is like it";
            return Err(Fault::at("exclude", message).element(index));
        }
        if machines.iter().all(|(_, _, cells)| cells.is_empty()) {
            return Err(Fault::at("exclude", "every cell is excluded"));
        }
        Ok(Self {
            boots: match scenario.mode {
                Mode::Virtual => one_after_another(scenario, &machines),
                Mode::Wall => interleaved(scenario, &machines),
            },
        })
    }

    /// Keeps the cells of one shard.
    pub fn shard(&mut self, shard: Shard) {
        let mut place = 0;
        for boot in &mut self.boots {
            boot.cells.retain(|_| {
                place += 1;
                shard.has(place - 1)
            });
        }
        self.boots.retain(|boot| !boot.cells.is_empty());
    }

    /// Splits boots so that `guests` of them can run side by side, if there are fewer: what a cell
    /// costs in virtual mode does not depend on what else its boot measures.
    #[must_use]
    pub fn spread(self, guests: usize) -> Self {
        let parts = guests.div_ceil(self.boots.len().max(1));
        let mut boots = Vec::new();
        for boot in self.boots {
            let parts = parts.min(boot.cells.len());
            if parts <= 1 {
                boots.push(boot);
                continue;
            }
            let mut split: Vec<PlannedBoot> = (1..=parts)
                .map(|part| PlannedBoot {
                    id: format!("{}/part{part}", boot.id),
                    cells: Vec::new(),
                    ..boot.clone()
                })
                .collect();
            // Whichever part is done first gets the next cell.
            let mut work = vec![0_u64; parts];
            for cell in boot.cells {
                let least = (0..parts).min_by_key(|&part| work[part]).unwrap_or(0);
                work[least] += effort(&cell.traffic);
                split[least].cells.push(cell);
            }
            boots.extend(split);
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

/// A kernel, a number of CPUs, and what is to be measured there.
type Machine<'a> = (&'a String, u32, Vec<GuestCell>);

/// All cells of a machine in one boot.
fn one_after_another(scenario: &Scenario, machines: &[Machine<'_>]) -> Vec<PlannedBoot> {
    let mut boots = Vec::new();
    for (kernel, cpus, cells) in machines {
        boots.extend((1..=scenario.boots).map(|repetition| PlannedBoot {
            id: format!("{kernel}/{cpus}cpu/boot{repetition}"),
            kernel: (*kernel).clone(),
            cpus: *cpus,
            repetition,
            cells: cells.clone(),
        }));
    }
    boots.retain(|boot| !boot.cells.is_empty());
    boots
}

/// A boot for each thing that is compared, again and again in turn, so that what changes on the
/// host meanwhile befalls all alike.
fn interleaved(scenario: &Scenario, machines: &[Machine<'_>]) -> Vec<PlannedBoot> {
    let mut boots: Vec<PlannedBoot> = Vec::new();
    for repetition in 1..=scenario.boots {
        for (kernel, cpus, cells) in machines {
            let start = boots.len();
            for cell in cells {
                // The name without what is implied.
                let variant = cell.id.split('/').nth(2).unwrap_or(cell.subject.name());
                let id = format!("{kernel}/{cpus}cpu/{variant}/boot{repetition}");
                let there = boots[start..].iter().position(|boot| boot.id == id);
                let place = there.map_or(boots.len(), |index| start + index);
                if place == boots.len() {
                    boots.push(PlannedBoot {
                        id,
                        kernel: (*kernel).clone(),
                        cpus: *cpus,
                        repetition,
                        cells: Vec::new(),
                    });
                }
                boots[place].cells.push(cell.clone());
            }
        }
    }
    boots
}

/// How long a cell takes, beside others: establishing a flow is about a fifth of a paced round
/// trip, and what every cell does is about 500 of these.
fn effort(traffic: &Traffic) -> u64 {
    const EACH: u64 = 500;
    EACH + u64::from(traffic.flows) / 5 + u64::from(traffic.load.packets() + traffic.warm_up)
}

/// The cells of one boot. Subjects are innermost, so that what is compared lies close together.
fn cells(scenario: &Scenario, prefix: &str) -> Vec<GuestCell> {
    let combinations = combine::combinations(&scenario.parameters, scenario.combine);
    let nothing = [Combination::new()];
    let mut cells = Vec::new();
    for traffic in traffic(scenario) {
        for &subject in &scenario.subjects {
            let combinations = if subject.is_module() {
                combinations.as_slice()
            } else {
                &nothing
            };
            cells.extend(combinations.iter().map(|chosen| GuestCell {
                id: format!("{prefix}/{}/{}", variant(subject, chosen), traffic.name()),
                subject,
                parameters: if subject.is_module() {
                    with_implied(chosen.clone(), &traffic)
                } else {
                    Combination::new()
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
    fn holds(&self, kernel: &str, cpus: u32, cell: &GuestCell) -> bool {
        fn agrees<T: PartialEq>(given: &Option<T>, there: &T) -> bool {
            given.as_ref().is_none_or(|given| given == there)
        }
        let traffic = &cell.traffic;
        let (rate, churn) = match traffic.load {
            Load::Open { rate, churn, .. } => (Some(rate), Some(churn)),
            Load::Closed { .. } | Load::Search(_) | Load::Bulk { .. } => (None, None),
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
    // Else chains would be others in each boot: even two flows share one now and then.
    set("hash_seed", 1);
    let all = traffic.flows_in_all();
    let flows = all.saturating_add(flows::OTHERS);
    if flows > MAX_FLOWS {
        set("max_flows", flows);
    }
    // Seconds of the guest's time that a flow may be left alone: while others are made, a tenth of
    // a millisecond each, and while round trips are measured, a hundredth of a second each.
    let measured = match traffic.load {
        Load::Closed { round_trips, .. } => round_trips / 100,
        Load::Open { rate, packets, .. } => packets / rate,
        Load::Search(_) | Load::Bulk { .. } => 0,
    };
    let idle = traffic.flows / 10_000 + measured;
    if all > 1 && idle > UDP_TIMEOUT / 3 {
        set("udp_timeout", (3 * idle).min(86_400));
    }
    parameters
}

fn traffic(scenario: &Scenario) -> Vec<Traffic> {
    let matrix = &scenario.traffic;
    let loads = matrix.loads();
    let mut all = Vec::new();
    for &ends in &matrix.ends {
        for &way in &matrix.ways {
            for &family in &matrix.families {
                for &protocol in &matrix.protocols {
                    for &payload in &matrix.payloads {
                        for &flows in &matrix.flows {
                            for &popularity in &matrix.popularity {
                                all.extend(loads.iter().map(|&load| Traffic {
                                    ends,
                                    way,
                                    family,
                                    protocol,
                                    payload,
                                    flows,
                                    popularity,
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
        if traffic.flows == 1 {
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

/// A subject with its parameters, such as `module,cache=N`.
pub fn variant(subject: Subject, parameters: &Combination) -> String {
    let mut name = subject.name().to_owned();
    for (parameter, value) in parameters {
        name.push_str(&format!(",{parameter}={value}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guest::protocol::{Family, Protocol, Way};
    use crate::scenario::{Combine, ParameterValue, Step, TrafficMatrix, Values};
    use crate::traffic::Ends;

    fn scenario() -> Scenario {
        let values =
            |values: &[i64]| Values(values.iter().map(|&v| ParameterValue::Integer(v)).collect());
        Scenario {
            question: String::new(),
            mode: Mode::Virtual,
            kernels: Values(vec!["7.3".into(), "6.12".into()]),
            cpus: Values(vec![1, 2]),
            boots: 3,
            subjects: Values(vec![Subject::None, Subject::NftDnat, Subject::Module]),
            parameters: [
                ("a".into(), values(&[0, 1])),
                ("b".into(), values(&[0, 1, 2])),
            ]
            .into(),
            combine: Combine::Full,
            exclude: Vec::new(),
            lens: None,
            traffic: TrafficMatrix {
                ways: Values(vec![Way::Forward, Way::Local]),
                families: Values(vec![Family::V4, Family::V6]),
                protocols: Values(vec![Protocol::Udp]),
                payloads: Values(vec![Payload::Bytes(64), Payload::Bytes(1024)]),
                flows: Values(vec![1]),
                ends: Values(vec![Ends::Wire]),
                popularity: Values(vec![Popularity::Uniform]),
                round_trips: Some(10),
                warm_up: 1,
                burst: 1,
                rates: None,
                packets: None,
                churn: None,
                search: None,
                bulk: None,
            },
        }
    }

    #[test]
    fn the_plan_is_the_whole_product() {
        let plan = Plan::new(&scenario()).unwrap();
        assert_eq!(plan.boots.len(), 2 * 2 * 3);
        // Two subjects without parameters, one with six combinations.
        assert_eq!(plan.cells(), 12 * 8 * (1 + 1 + 6));
        assert_eq!(plan.kernels(), ["7.3", "6.12"]);
    }

    #[test]
    fn names_are_unique_and_readable() {
        let plan = Plan::new(&scenario()).unwrap();
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
        scenario.traffic.ways = Values(vec![Way::Forward]);
        scenario.traffic.flows = Values(vec![1, 1_000, 1_000_000]);
        let plan = Plan::new(&scenario).unwrap();
        assert_eq!(plan.cells(), 12 * 4 * 3 * (1 + 1 + 6));
        let cells = &plan.boots[0].cells;
        let find = |id: &str| cells.iter().find(|cell| cell.id == id).unwrap();
        assert!(find("7.3/1cpu/none/forward-v4-udp-64-1000flows")
            .parameters
            .is_empty());
        let few = find("7.3/1cpu/module,a=0,b=0/forward-v4-udp-64-1000flows");
        assert_eq!(few.parameters.len(), 3);
        let many = find("7.3/1cpu/module,a=0,b=0/forward-v4-udp-64-1000000flows");
        assert_eq!(many.parameters["max_flows"], "1001001");

        // What the scenario says holds.
        let own = Values(vec![ParameterValue::Integer(5)]);
        scenario.parameters = [("max_flows".to_owned(), own)].into();
        scenario.traffic.flows = Values(vec![100_000]);
        let plan = Plan::new(&scenario).unwrap();
        let module = plan.boots[0]
            .cells
            .iter()
            .find(|cell| cell.subject.is_module());
        assert_eq!(module.unwrap().parameters["max_flows"], "5");
    }

    #[test]
    fn what_is_excluded_is_not_there() {
        let mut scenario = scenario();
        let not_b = Exclusion {
            kernel: Some("6.12".into()),
            parameters: [("b".to_owned(), ParameterValue::Integer(2))].into(),
            ..Exclusion::default()
        };
        scenario.exclude = vec![not_b.clone()];
        let plan = Plan::new(&scenario).unwrap();
        // Two values of `a` with this one of `b`, in half of the boots.
        assert_eq!(plan.cells(), 12 * 8 * 8 - 6 * 8 * 2);
        let cells = plan.boots.iter().flat_map(|boot| &boot.cells);
        for cell in cells.filter(|cell| cell.id.contains("b=2")) {
            assert!(cell.id.starts_with("7.3/"), "{}", cell.id);
        }

        let nothing = Exclusion {
            cpus: Some(3),
            ..Exclusion::default()
        };
        scenario.exclude = vec![not_b, nothing];
        let fault = Plan::new(&scenario).unwrap_err();
        assert!(fault.message.contains("excludes nothing"), "{fault:?}");
        scenario.exclude = vec![Exclusion::default()];
        let fault = Plan::new(&scenario).unwrap_err();
        assert!(fault.message.contains("every cell"), "{fault:?}");
    }

    #[test]
    fn real_time_is_measured_in_turn() {
        let mut scenario = scenario();
        scenario.mode = Mode::Wall;
        scenario.kernels = Values(vec!["7.3".into()]);
        scenario.cpus = Values(vec![1]);
        let plan = Plan::new(&scenario).unwrap();
        let ids: Vec<&str> = plan.boots.iter().map(|boot| boot.id.as_str()).collect();
        assert_eq!(plan.boots.len(), 3 * 8);
        assert_eq!(ids[..2], ["7.3/1cpu/none/boot1", "7.3/1cpu/nft-dnat/boot1"]);
        assert_eq!(ids[8], "7.3/1cpu/none/boot2");
        assert_eq!(plan.cells(), 3 * 8 * 8);
    }

    fn names(plan: &Plan) -> Vec<(u32, String)> {
        let cells = |boot: &PlannedBoot| {
            let repetition = boot.repetition;
            let ids = boot
                .cells
                .iter()
                .map(move |cell| (repetition, cell.id.clone()));
            ids.collect::<Vec<_>>()
        };
        let mut names: Vec<_> = plan.boots.iter().flat_map(cells).collect();
        names.sort();
        names
    }

    proptest! {
        #[test]
        fn shards_and_guests_partition_a_plan(
            count in 1_usize..9,
            guests in 1_usize..9,
            mode in prop_oneof![Just(Mode::Virtual), Just(Mode::Wall)],
            combine in prop_oneof![
                Just(Combine::Full), Just(Combine::Alone),
                Just(Combine::Pairs), Just(Combine::Pairwise),
            ],
        ) {
            let scenario = Scenario { mode, combine, ..scenario() };
            let whole = Plan::new(&scenario).unwrap();
            let all = names(&whole);
            let mut distinct = all.clone();
            distinct.dedup();
            prop_assert_eq!(&distinct, &all);
            let mut parts = Vec::new();
            for index in 1..=count {
                let mut part = whole.clone();
                part.shard(format!("{index}/{count}").parse().unwrap());
                prop_assert!(part.boots.iter().all(|boot| !boot.cells.is_empty()));
                parts.extend(names(&part));
            }
            parts.sort();
            prop_assert_eq!(&parts, &all);
            let spread = whole.clone().spread(guests);
            prop_assert_eq!(&names(&spread), &all);
            prop_assert!(spread.boots.len() >= guests.min(whole.cells()));
            let ids: BTreeSet<&str> = spread.boots.iter().map(|boot| boot.id.as_str()).collect();
            prop_assert_eq!(ids.len(), spread.boots.len());
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_unless_it_is_left_out() {
        let mut scenario = scenario();
        scenario.subjects = Values(vec![Subject::None, Subject::Tproxy, Subject::Module]);
        let fault = Plan::new(&scenario).unwrap_err();
        assert_eq!(fault.at, ["subjects".into(), Step::Element(1)]);
        let expected = "tproxy cannot have the traffic forward-v4-udp-64: a proxy in user space";
        assert!(fault.message.starts_with(expected), "{}", fault.message);
        scenario.exclude = vec![Exclusion {
            subject: Some(Subject::Tproxy),
            ..Exclusion::default()
        }];
        assert!(Plan::new(&scenario).is_ok());
    }

    #[test]
    fn a_stream_has_one_payload() {
        let mut scenario = scenario();
        let traffic = &mut scenario.traffic;
        traffic.ends = Values(vec![Ends::Stack]);
        traffic.protocols = Values(vec![Protocol::Tcp]);
        traffic.bulk = Some(1 << 20);
        let plan = Plan::new(&scenario).unwrap();
        let ids = plan.boots[0].cells.iter().map(|cell| cell.id.as_str());
        let streams: Vec<&str> = ids.filter(|id| id.ends_with("-bulk")).collect();
        // Two ways, two IP versions, and the subjects.
        assert_eq!(streams.len(), 2 * 2 * (1 + 1 + 6));
        assert_eq!(streams[0], "7.3/1cpu/none/forward-v4-tcp-1400-stack-bulk");
    }

    #[test]
    fn retaining_drops_boots_without_cells() {
        let mut plan = Plan::new(&scenario()).unwrap();
        plan.retain(|boot, cell| boot.repetition == 2 && cell.id.contains("6.12/2cpu/none"));
        assert_eq!(plan.boots.len(), 1);
        assert_eq!(plan.cells(), 8);
    }
}
