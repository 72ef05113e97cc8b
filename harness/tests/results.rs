// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is written to `results/` is what `results/schema.json` says, and survives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use jsonschema::Validator;
use mutexlab::commands::document::Document;
use mutexlab_model::complaint::Complaint;
use mutexlab_model::complaint::Kind;
use mutexlab_model::facts::Facts;
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{Delivery, FirstPacket, HookCost, PathCost};
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{
    Checksum, Cloned, Ends, Family, Load, Payload, Popularity, Protocol, Steering, Traffic, Way,
};
use mutexlab_model::verdict::Verdict;
use mutexlab_protocol::measurement::Measurement;
use mutexlab_results::closure::Closure;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::metric::Clock;
use mutexlab_results::record::{BootRecord, CellRecord, Directions, Selection};
use mutexlab_results::{metric, metrics};
use mutexlab_scenario::ScenarioFile;
use serde_json::{json, Value};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn schema() -> Validator {
    let text = fs::read(repository().join("results/schema.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_slice(&text).unwrap()).unwrap()
}

fn closure() -> Closure {
    serde_json::from_str(include_str!("sample/closure.json")).unwrap()
}

const VIRTUAL: Clock = Clock {
    mode: Mode::Virtual,
    khz: 1_000_000,
};

fn measurement(path_ticks: u64) -> Measurement {
    let cost = HookCost {
        overhead: 112,
        packets: 3,
        histogram: Histogram::from_pairs([(100, 2), (120, 1)]),
        sum: 320,
        min: 100,
        max: 120,
        by_hook: [("pre_routing".to_owned(), 50.5)].into(),
        ..HookCost::default()
    };
    Measurement {
        delivery: Delivery {
            sent: 4,
            at_upstream: 4,
            replies: 4,
            replies_from_original: 4,
            ..Delivery::default()
        },
        original: cost.clone(),
        reply: cost,
        first_packet: Some(FirstPacket {
            median: 6000,
            p10: 5900,
        }),
        flow_memory: Some(640_000),
        router: None,
        path: PathCost {
            ticks: path_ticks,
            nanoseconds: path_ticks,
            packets: 6,
            bytes: 318,
        },
        round_trip: Some(Histogram::from_pairs([(path_ticks / 3, 3)])),
        open: None,
        bulk: None,
        proxy_time: None,
        cores: Vec::new(),
        received: Vec::new(),
        buckets: None,
        counters: [("packets_original".to_owned(), 4)].into(),
        memory_map: None,
    }
}

fn cell(subject: Subject, verdict: Verdict, path_ticks: u64) -> CellRecord {
    let measurement = measurement(path_ticks);
    let ok = verdict == Verdict::Ok;
    let traffic = Traffic {
        way: Way::Forward,
        family: Family::V4,
        protocol: Protocol::Udp,
        payload: Payload::Bytes(64),
        flows: 2_000,
        spread: None,
        steering: Steering::Symmetric,
        load: Load::Closed {
            round_trips: 3,
            burst: 1,
        },
        ends: Ends::Wire,
        popularity: Popularity::Uniform,
        checksum: Checksum::None,
        cloned: Cloned::No,
        warm_up: 1,
    };
    CellRecord {
        id: format!("7.3/1cpu/{subject}/forward-v4-udp-64"),
        boot: "7.3/1cpu/boot1".into(),
        kernel: "7.3".into(),
        cpus: 1,
        repetition: 1,
        subject,
        parameters: BTreeMap::new(),
        traffic,
        verdict,
        reason: (!ok).then(|| "because".to_owned()),
        delivery: ok.then_some(measurement.delivery),
        metrics: if ok {
            metrics::of(&measurement, &Facts::default(), &traffic, VIRTUAL)
        } else {
            Vec::new()
        },
        latency: ok.then(|| measurement.latency().cloned()).flatten(),
        hook_cost: ok.then(|| Directions {
            original: measurement.original.clone(),
            reply: measurement.reply.clone(),
        }),
        counters: BTreeMap::new(),
    }
}

fn boot(verdict: Verdict) -> BootRecord {
    BootRecord {
        id: "7.3/1cpu/boot1".into(),
        verdict,
        reason: None,
        reports: vec![Complaint {
            kind: Kind::Warning,
            title: "WARNING: at a.c:1".into(),
            text: vec!["WARNING: at a.c:1".into()],
            at: Some(1.5),
        }],
        seconds: 4.5,
        qemu: vec!["qemu-system-x86_64".into()],
        console_log: "results/logs/x/y.console.log".into(),
        retry_of: None,
    }
}

fn create(directory: &Path) -> ResultsFile {
    let scenario = ScenarioFile::load(&repository().join("scenarios/quick.toml")).unwrap();
    let now: Timestamp = "2026-11-23T10:15:00Z".parse().unwrap();
    ResultsFile::create(directory, &scenario, Selection::default(), closure(), now).unwrap()
}

fn on_disk(file: &ResultsFile) -> Value {
    serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap()
}

const VERDICTS: [Verdict; 8] = [
    Verdict::Ok,
    Verdict::Noisy,
    Verdict::Failed,
    Verdict::Splat,
    Verdict::Panic,
    Verdict::Hang,
    Verdict::Boot,
    Verdict::Infra,
];

#[test]
fn every_state_of_a_file_is_as_the_schema_says() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema();
    let check = |file: &ResultsFile| {
        let errors: Vec<_> = schema
            .iter_errors(&on_disk(file))
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
    };
    let mut file = create(directory.path());
    check(&file);
    for verdict in VERDICTS {
        file.put_cell(cell(Subject::MODULE, verdict, 60)).unwrap();
        check(&file);
        file.put_boot(boot(verdict)).unwrap();
        check(&file);
    }
}

#[test]
fn the_schema_refuses_what_is_not_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = create(directory.path());
    file.put_cell(cell(Subject::MODULE, Verdict::Ok, 60))
        .unwrap();
    let (schema, good) = (schema(), on_disk(&file));
    assert!(schema.is_valid(&good));
    for (pointer, value) in [
        ("/schema", json!(1)),
        ("/mode", json!("both")),
        ("/started", json!("yesterday")),
        ("/closure/commit", json!("main")),
        ("/cells/0/verdict", json!("fine")),
        ("/cells/0/metrics/0/unit", json!("seconds")),
        ("/cells/0/metrics/0/value", json!("1")),
        ("/cells/0/hook_cost/reply/histogram", json!("100 100 120")),
        ("/cells/0/traffic/payload", json!(15)),
        ("/cells/0/traffic/flows", json!(0)),
        ("/cells/0/delivery/sent", json!(-1)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!schema.is_valid(&bad), "{pointer}");
    }
    for pointer in [
        "",
        "/closure",
        "/closure/host",
        "/cells/0",
        "/cells/0/metrics/0",
    ] {
        let mut bad = good.clone();
        let object = bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        object.insert("extra".into(), json!(1));
        assert!(!schema.is_valid(&bad), "extra key at {pointer:?}");
    }
}

#[test]
fn the_name_tells_time_commit_and_scenario() {
    let directory = tempfile::tempdir().unwrap();
    let file = create(directory.path());
    let name = file.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(name, "20261123T101500Z-0123456789-quick.json");
    assert_eq!(
        ResultsFile::newest(directory.path(), "quick").unwrap(),
        file.path()
    );
    assert!(ResultsFile::newest(directory.path(), "other").is_err());
}

#[test]
fn a_file_is_read_back_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = create(directory.path());
    file.put_cell(cell(Subject::NONE, Verdict::Ok, 60)).unwrap();
    file.put_boot(boot(Verdict::Ok)).unwrap();
    let read = ResultsFile::open(file.path()).unwrap();
    assert_eq!(read.results(), file.results());
}

/// Editors check scenarios by it, so it must accept what the parser does.
#[test]
fn scenarios_are_as_their_schema_says() {
    let schema = serde_json::to_value(Document::Scenario.schema()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for entry in fs::read_dir(repository().join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let value: Value = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let errors: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        }
    }
    assert!(!schema.is_valid(&json!({"question": "?"})));
}

#[test]
fn a_file_of_another_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = create(directory.path());
    let mut value = on_disk(&file);
    value["schema"] = json!(3);
    fs::write(file.path(), value.to_string()).unwrap();
    let error = format!("{:#}", ResultsFile::open(file.path()).unwrap_err());
    assert!(error.contains("schema 3"), "{error}");
}

#[test]
fn the_path_over_none_is_known_as_soon_as_none_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = create(directory.path());
    file.put_cell(cell(Subject::NFT_DNAT, Verdict::Ok, 600))
        .unwrap();
    file.put_cell(cell(Subject::NONE, Verdict::Ok, 60)).unwrap();
    file.put_cell(cell(Subject::MODULE, Verdict::Ok, 90))
        .unwrap();
    let over = |index: usize| file.results().cells[index].metric(metric::PATH_OVER_NONE);
    assert_eq!([over(0), over(1), over(2)], [Some(90.0), None, Some(5.0)]);
}

#[test]
fn a_cell_that_is_measured_again_takes_the_old_one_s_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = create(directory.path());
    file.put_cell(cell(Subject::MODULE, Verdict::Infra, 60))
        .unwrap();
    file.put_cell(cell(Subject::MODULE, Verdict::Ok, 60))
        .unwrap();
    assert_eq!(file.results().cells.len(), 1);
    assert_eq!(file.results().cells[0].verdict, Verdict::Ok);
}
