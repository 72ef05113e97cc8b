// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a person reads.

use super::*;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::Load;
use mutexlab_results::closure::{Closure, Host, QemuClosure};
use mutexlab_results::cpu;
use mutexlab_results::metric::{Better, Kind, Metric, Unit};
use mutexlab_results::record::SCHEMA;

fn cell(subject: Subject, mean: f64, delivery: Delivery) -> CellRecord {
    let metric = |name: &str, value| Metric {
        name: name.to_owned(),
        unit: Unit::InstructionsPerPacket,
        better: Better::Lower,
        kind: Kind::Sampled,
        value,
    };
    CellRecord {
        id: format!("7.3/1cpu/{}/forward-v4-udp-64", subject.name()),
        boot: "7.3/1cpu/boot1".into(),
        kernel: "7.3".into(),
        cpus: 1,
        repetition: 1,
        subject,
        parameters: BTreeMap::new(),
        traffic: Traffic {
            load: Load::Closed {
                round_trips: 10,
                burst: 1,
            },
            ..Traffic::USUAL
        },
        verdict: Verdict::Ok,
        reason: None,
        delivery: Some(delivery),
        metrics: vec![metric(HOOK_MEAN, mean), metric("hook.original.p50", mean)],
        hook_cost: None,
        latency: None,
        counters: BTreeMap::new(),
    }
}

fn redirected() -> Delivery {
    Delivery {
        sent: 10,
        at_upstream: 10,
        replies: 10,
        replies_from_original: 10,
        ..Delivery::default()
    }
}

fn results(cells: Vec<CellRecord>) -> Results {
    Results {
        schema: SCHEMA,
        scenario: "s".into(),
        question: "What?".into(),
        mode: Mode::Virtual,
        started: String::new(),
        filter: None,
        shard: None,
        lens: None,
        closure: Closure {
            commit: String::new(),
            dirty: false,
            harness: None,
            harness_sha256: String::new(),
            agent_sha256: None,
            plugin_sha256: None,
            derivation: None,
            kernels: BTreeMap::new(),
            virtme_ng: String::new(),
            nft: String::new(),
            programs: [].into(),
            subjects: [].into(),
            qemu: QemuClosure {
                version: String::new(),
                accelerator: Accelerator::TcgIcount,
                cpu_model: String::new(),
                arguments: String::new(),
            },
            host: Host {
                kernel: String::new(),
                architecture: String::new(),
                cpu: String::new(),
                cpus: 1,
            },
            seeds: BTreeMap::new(),
            scenario_text: String::new(),
        },
        boots: Vec::new(),
        cells,
    }
}

fn line<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.contains(part)).unwrap();
    line.split_whitespace().collect()
}

#[test]
fn subjects_stand_side_by_side_with_their_ratio() {
    let straight = Delivery {
        at_original: 10,
        at_upstream: 0,
        ..redirected()
    };
    let text = text(&results(vec![
        cell(Subject::NONE, 0.0, straight),
        cell(Subject::NFT_DNAT, 1500.0, redirected()),
        cell(Subject::MODULE, 300.0, redirected()),
    ]));
    let expected = ["forward", "v4", "udp", "64", "0", "1,500", "300", "0.20"];
    assert_eq!(line(&text, "forward"), expected);
    assert!(text.contains("With nft-dnat and module, every packet arrived"));
    assert!(!text.contains("astray"));
}

#[test]
fn a_subject_of_one_s_own_has_a_column() {
    let own = Subject::named("my-nat").unwrap();
    let none = || cell(Subject::NONE, 0.0, redirected());
    let alone = text(&results(vec![
        none(),
        cell(own.clone(), 700.0, redirected()),
    ]));
    assert_eq!(
        line(&alone, "forward"),
        ["forward", "v4", "udp", "64", "0", "700"]
    );
    assert!(
        line(&alone, "way").ends_with(&["none", "my-nat"]),
        "{alone}"
    );
    let compared = text(&results(vec![
        none(),
        cell(own, 700.0, redirected()),
        cell(Subject::MODULE, 300.0, redirected()),
    ]));
    let expected = ["forward", "v4", "udp", "64", "0", "–", "300", "700", "–"];
    assert_eq!(line(&compared, "forward"), expected);
}

#[test]
fn many_flows_stand_beside_one() {
    let module = cell(Subject::MODULE, 200.0, redirected());
    let mut many = cell(Subject::MODULE, 230.0, redirected());
    many.traffic.flows = 1_000;
    many.metrics.push(Metric {
        name: MEMORY_PER_FLOW.to_owned(),
        unit: Unit::BytesPerFlow,
        better: Better::Lower,
        kind: Kind::Sampled,
        value: 203.0,
    });
    let text = text(&results(vec![module, many]));
    let costs = line(&text, "1,000 flows");
    assert_eq!(costs[4..], ["1,000", "flows", "–", "–", "230", "–", "1.15"]);
    assert_eq!(text.matches("1,000 flows").count(), 3);
    let last = text.lines().rfind(|line| line.contains("1,000 flows"));
    assert!(last.unwrap().ends_with(" 203"), "{text}");
}

#[test]
fn whatever_is_between_sockets_stands_side_by_side() {
    let between = |subject: Subject, path: f64| {
        let mut cell = cell(subject, 0.0, redirected());
        cell.traffic.ends = Ends::Stack;
        cell.metrics = vec![Metric {
            name: PATH_MEAN.to_owned(),
            value: path,
            ..cell.metrics[0].clone()
        }];
        cell
    };
    let mut tproxy = between(Subject::named("tproxy").unwrap(), 50_000.0);
    tproxy.metrics.push(Metric {
        name: cpu::PROXY.to_owned(),
        unit: Unit::Percent,
        value: 61.2,
        ..tproxy.metrics[0].clone()
    });
    let text = text(&results(vec![
        between(Subject::NONE, 10_000.0),
        tproxy,
        between(Subject::MODULE, 10_500.0),
    ]));
    let all = line(&text, "forward");
    assert_eq!(all[5..], ["all", "10,000", "50,000", "10,500"]);
    assert_eq!(line(&text, "over none")[2..], ["–", "40,000", "500"]);
    assert_eq!(line(&text, "module's")[3..], ["0.95", "4.76", "1.00"]);
    assert_eq!(line(&text, "the proxy")[4..], ["–", "61", "–"]);
    assert!(!text.contains("hooks"), "nothing was on the wire: {text}");
}

#[test]
fn parameters_stand_against_their_defaults() {
    let variant = |parameters: &str, mean| CellRecord {
        id: format!("7.3/1cpu/module{parameters}/forward-v4-udp-64"),
        ..cell(Subject::MODULE, mean, redirected())
    };
    let text = text(&results(vec![
        variant(",a=1,b=0", 179.0),
        variant(",a=0,b=0", 310.5),
        variant(",a=1,b=2", 170.0),
        variant(",a=0,b=2", 179.0),
    ]));
    assert_eq!(line(&text, "(all defaults)")[2..], ["179"]);
    assert_eq!(line(&text, "  a=0  ")[1..], ["+132"]);
    assert_eq!(line(&text, "  b=2  ")[1..], ["-9"]);
    assert_eq!(line(&text, "a=0, b=2")[2..], ["0"]);
}

#[test]
fn each_subject_s_parameters_have_a_table() {
    let of = |subject: Subject, parameters: &str, mean| CellRecord {
        id: format!("7.3/1cpu/{}{parameters}/forward-v4-udp-64", subject.name()),
        ..cell(subject, mean, redirected())
    };
    let text = text(&results(vec![
        of(Subject::MODULE, ",a=1", 179.0),
        of(Subject::MODULE, ",a=0", 180.0),
        of(Subject::NFT_DNAT, ",rules=1", 300.0),
        of(Subject::NFT_DNAT, ",rules=9", 1_476.0),
        of(Subject::NONE, "", 0.0),
    ]));
    assert!(text.contains("parameters of module change"), "{text}");
    assert!(text.contains("parameters of nft-dnat change"), "{text}");
    assert!(!text.contains("parameters of none change"), "{text}");
    assert_eq!(line(&text, "  a=0  ")[1..], ["+1"]);
    assert_eq!(line(&text, "  rules=9  ")[1..], ["+1,176"]);
}

#[test]
fn what_went_wrong_takes_the_number_s_place_and_is_told_once() {
    let bad = |subject| CellRecord {
        verdict: Verdict::Splat,
        reason: Some("warning: at a.c:1".into()),
        ..cell(subject, 1.0, Delivery::default())
    };
    let cells = vec![bad(Subject::MODULE), bad(Subject::NFT_DNAT)];
    let text = text(&results(cells));
    let expected = ["forward", "v4", "udp", "64", "–", "splat", "splat", "–"];
    assert_eq!(line(&text, "forward"), expected);
    assert_eq!(text.matches("warning: at a.c:1").count(), 1);
}

#[test]
fn a_packet_that_went_astray_is_not_passed_over() {
    let delivery = Delivery {
        at_upstream: 9,
        at_original: 1,
        ..redirected()
    };
    let text = text(&results(vec![cell(Subject::MODULE, 1.0, delivery)]));
    assert!(text.contains("With module, packets went astray."));
    assert!(!text.contains("every packet arrived"));
}
