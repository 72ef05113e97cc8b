// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Combine, Exclusion, Named, ParameterValue, Parameters, TrafficMatrix, Values};
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Checksum, Cloned, Ends, Payload, Popularity, Steering};
use mutexlab_model::traffic::{Family, Protocol, Way};

fn scenario() -> Scenario {
    let values =
        |values: &[i64]| Values(values.iter().map(|&v| ParameterValue::Integer(v)).collect());
    Scenario {
        question: String::new(),
        mode: Mode::Virtual,
        kernels: Values(vec!["7.3".into(), "6.12".into()]),
        cpus: Values(vec![1, 2]),
        boots: 3,
        seeds: None,
        subjects: Values(
            [Subject::NONE, Subject::NFT_DNAT, Subject::MODULE]
                .map(Named::from)
                .into(),
        ),
        parameters: Parameters {
            module: [
                ("a".into(), values(&[0, 1])),
                ("b".into(), values(&[0, 1, 2])),
            ]
            .into(),
            owned: [].into(),
        },
        combine: Combine::Full,
        exclude: Vec::new(),
        lens: None,
        traffic: TrafficMatrix {
            ways: Values(vec![Way::Forward, Way::Local]),
            families: Values(vec![Family::V4, Family::V6]),
            protocols: Values(vec![Protocol::Udp]),
            payloads: Values(vec![Payload::Bytes(64), Payload::Bytes(1024)]),
            flows: Some(Values(vec![1])),
            flows_per_cpu: None,
            ends: Values(vec![Ends::Wire]),
            steering: Values(vec![Steering::Symmetric]),
            checksum: Values(vec![Checksum::None]),
            cloned: Values(vec![Cloned::No]),
            popularity: Values(vec![Popularity::Uniform]),
            round_trips: Some(10),
            warm_up: 1,
            burst: 1,
            rates: None,
            packets: None,
            churn: None,
            search: None,
            back_to_back: None,
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
fn subjects_have_the_values_of_their_own_parameters() {
    let mut scenario = scenario();
    let rules = Values(vec![
        ParameterValue::Integer(10),
        ParameterValue::Integer(20),
    ]);
    let of_nft = [("rules".to_owned(), rules)].into();
    scenario.parameters.owned = [("nft-dnat".to_owned(), of_nft)].into();
    let plan = Plan::new(&scenario).unwrap();
    assert_eq!(plan.cells(), 12 * 8 * (1 + 2 + 6));
    let cell = &plan.boots[0].cells[2];
    assert_eq!(cell.id, "7.3/1cpu/nft-dnat,rules=20/forward-v4-udp-64");
    assert_eq!(
        cell.parameters,
        [("rules".to_owned(), "20".to_owned())].into()
    );
    scenario.exclude = vec![Exclusion {
        subject: Some(Subject::NFT_DNAT),
        parameters: [("rules".to_owned(), ParameterValue::Integer(20))].into(),
        ..Exclusion::default()
    }];
    assert_eq!(Plan::new(&scenario).unwrap().cells(), 12 * 8 * (1 + 1 + 6));
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
fn a_kernel_s_place_is_taken_by_others() {
    let plan = Plan::new(&scenario()).unwrap();
    let on = plan.on("7.3", &["before", "after"]);
    assert_eq!(on.cells(), plan.cells());
    let boots: Vec<_> = on.boots.iter().map(|boot| boot.id.as_str()).collect();
    assert_eq!(boots[..2], ["before/1cpu/boot1", "after/1cpu/boot1"]);
    let after = &on.boots[1];
    assert_eq!(after.kernel, "after");
    assert_eq!(after.cells[0].id, "after/1cpu/none/forward-v4-udp-64");
    assert_eq!(plan.on("7.2", &["after"]).boots, []);
}

#[test]
fn many_flows_have_names_and_room() {
    let mut scenario = scenario();
    scenario.traffic.ways = Values(vec![Way::Forward]);
    scenario.traffic.flows = Some(Values(vec![1, 1_000, 1_000_000]));
    let plan = Plan::new(&scenario).unwrap();
    assert_eq!(plan.cells(), 12 * 4 * 3 * (1 + 1 + 6));
    let mut cells = plan.boots.iter().flat_map(|boot| &boot.cells);
    let mut find = |id: &str| cells.find(|cell| cell.id == id).unwrap();
    assert!(find("7.3/1cpu/none/forward-v4-udp-64-1000flows")
        .parameters
        .is_empty());
    let few = find("7.3/1cpu/module,a=0,b=0/forward-v4-udp-64-1000flows");
    assert_eq!(few.parameters.len(), 3);
    let many = find("7.3/1cpu/module,a=0,b=0/forward-v4-udp-64-1000000flows");
    assert_eq!(many.parameters["max_flows"], "1001001");

    // What the scenario says holds.
    let own = Values(vec![ParameterValue::Integer(5)]);
    scenario.parameters.module = [("max_flows".to_owned(), own)].into();
    scenario.traffic.flows = Some(Values(vec![100_000]));
    let plan = Plan::new(&scenario).unwrap();
    let module = plan.boots[0]
        .cells
        .iter()
        .find(|cell| cell.subject.is_module());
    assert_eq!(module.unwrap().parameters["max_flows"], "5");
}

#[test]
fn spread_flows_are_steered() {
    let mut scenario = scenario();
    scenario.traffic.ways = Values(vec![Way::Forward]);
    scenario.traffic.flows_per_cpu = Some(Values(vec![1]));
    scenario.traffic.steering = Values(vec![Steering::Symmetric, Steering::Asymmetric]);
    // Those of CPU 0 are not: there is one such cell where there are two of the others.
    assert_eq!(
        Plan::new(&scenario).unwrap().cells(),
        12 * 4 * 3 * (1 + 1 + 6)
    );
    scenario.exclude = vec![Exclusion {
        steering: Some(Steering::Asymmetric),
        ..Exclusion::default()
    }];
    let plan = Plan::new(&scenario).unwrap();
    assert_eq!(plan.cells(), 12 * 4 * 2 * (1 + 1 + 6));
    let cells = plan.boots.iter().flat_map(|boot| &boot.cells);
    assert!(!cells.into_iter().any(|cell| cell.id.contains("asymmetric")));
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
    fn shards_partition_a_plan(
        count in 1_usize..9,
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
        let ids: BTreeSet<&str> = whole.boots.iter().map(|boot| boot.id.as_str()).collect();
        prop_assert_eq!(ids.len(), whole.boots.len());
    }
}

#[test]
fn a_large_boot_is_several_guests() {
    let mut scenario = scenario();
    scenario.boots = 1;
    let few = Plan::new(&scenario).unwrap();
    assert_eq!(few.boots.len(), 2 * 2);
    // 64 cells of 2,500 are at most 64,000 each in three guests.
    scenario.traffic.round_trips = Some(1_999);
    let many = Plan::new(&scenario).unwrap();
    assert_eq!(names(&many), names(&few));
    let ids: Vec<&str> = many.boots.iter().map(|boot| boot.id.as_str()).collect();
    assert_eq!(
        ids[..4],
        [
            "7.3/1cpu/boot1/part1",
            "7.3/1cpu/boot1/part2",
            "7.3/1cpu/boot1/part3",
            "7.3/2cpu/boot1/part1"
        ]
    );
    let sizes: Vec<usize> = many.boots.iter().map(|boot| boot.cells.len()).collect();
    assert_eq!(sizes[..3], [22, 21, 21]);
    // What is printed is in this order.
    let ids = |plan: &Plan| -> Vec<String> {
        let cells = plan.boots.iter().flat_map(|boot| &boot.cells);
        cells.map(|cell| cell.id.clone()).collect()
    };
    assert_eq!(ids(&many), ids(&few));
}

#[test]
fn each_seed_is_a_boot() {
    let mut scenario = scenario();
    scenario.kernels = Values(vec!["7.3".into()]);
    scenario.cpus = Values(vec![1]);
    let seeds = |scenario: &Scenario| {
        let plan = Plan::new(scenario).unwrap();
        let boots = plan.boots.iter();
        boots
            .map(|boot| (boot.id.clone(), boot.repetition, boot.seed))
            .collect::<Vec<_>>()
    };
    let boot = |number: u32, seed| (format!("7.3/1cpu/boot{number}"), number, seed);
    // Boots of one seed are the same boot.
    assert_eq!(seeds(&scenario), [boot(1, 1), boot(2, 1), boot(3, 1)]);
    scenario.seeds = Some(Values(vec![7]));
    assert_eq!(seeds(&scenario), [boot(1, 7), boot(2, 7), boot(3, 7)]);
    scenario.boots = 1;
    scenario.seeds = Some(Values(vec![5, 9]));
    assert_eq!(seeds(&scenario), [boot(1, 5), boot(2, 9)]);
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
