// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results as a run would have written them, made up and always the same: for tests.

use serde_json::{json, Value};

use super::history::{Commit, History};
use super::run::{self, Run};
use mutexlab_model::histogram::Histogram;
use mutexlab_results::record::SCHEMA;

/// Commits, the oldest first.
pub const COMMITS: [&str; 4] = [
    "1111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222",
    "3333333333333333333333333333333333333333",
    "4444444444444444444444444444444444444444",
];

/// What a made-up cell costs.
struct Cost {
    original: u64,
    reply: u64,
    first_packet: f64,
    memory: Option<f64>,
}

/// A file of a scenario, without cells.
fn file(scenario: &str, question: &str, text: &str, commit: usize) -> Value {
    let day = commit + 1;
    json!({
        "schema": SCHEMA,
        "scenario": scenario,
        "question": question,
        "mode": "virtual",
        "started": format!("2026-01-{day:02}T12:00:00Z"),
        "filter": null,
        "closure": {
            "commit": COMMITS[commit],
            "dirty": false,
            "harness_sha256": "a".repeat(64),
            "kernels": {"7.3": {"release": "7.3.4-mutexlab", "modules": {"mutex_proxy": "b".repeat(64)}}},
            "virtme_ng": "virtme-ng 1.42",
            "qemu": {"version": "QEMU emulator version 7.2 <&>"},
            "host": {"kernel": "6.1", "cpus": 2},
            "scenario_text": text,
        },
        "boots": [{"id": "7.3/1cpu/boot1", "verdict": "ok", "reason": null, "console_log": "log"}],
        "cells": [],
    })
}

fn cell(cpus: u32, variant: &str, traffic: &str, cost: &Cost) -> Value {
    let mut words = variant.split(',');
    let subject = words.next().unwrap_or_default();
    let parameters: serde_json::Map<String, Value> = words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let spread = |base: u64| {
        let tail = [(0, 900), (40, 90), (200, 9), (900, 1)];
        Histogram::from_pairs(tail.map(|(more, count)| (base + more, count)))
    };
    let mut metrics = Vec::new();
    let mut add = |name: &str, unit: &str, better: &str, kind: &str, value: f64| {
        metrics.push(
            json!({"name": name, "unit": unit, "better": better, "kind": kind, "value": value}),
        );
    };
    let instructions = "instructions/packet";
    for (direction, base) in [("original", cost.original), ("reply", cost.reply)] {
        let histogram = spread(base);
        for (name, part) in [("p50", 50_000), ("p99", 99_000)] {
            let value = histogram.percentile(part).unwrap_or(0);
            let name = format!("hook.{direction}.{name}");
            add(&name, instructions, "lower", "exact", to_float(value));
        }
    }
    let mean = (to_float(cost.original) + to_float(cost.reply)) / 2.0;
    add("hook.mean", instructions, "lower", "exact", mean);
    add(
        "hook.first_packet",
        instructions,
        "lower",
        "exact",
        cost.first_packet,
    );
    add(
        "path.mean",
        instructions,
        "lower",
        "sampled",
        12_000.0 + mean,
    );
    add(
        "throughput.pps",
        "packets/s",
        "higher",
        "sampled",
        1e9 / (12_000.0 + mean) * f64::from(cpus),
    );
    if let Some(memory) = cost.memory {
        add("memory_per_flow", "bytes/flow", "lower", "exact", memory);
    }
    json!({
        "id": format!("7.3/{cpus}cpu/{variant}/{traffic}"),
        "boot": "7.3/1cpu/boot1",
        "kernel": "7.3",
        "cpus": cpus,
        "repetition": 1,
        "subject": subject,
        "parameters": parameters,
        "verdict": "ok",
        "reason": null,
        "delivery": {"sent": 1059, "at_upstream": 1059, "at_original": 0, "replies": 1059,
                     "replies_from_original": 1059, "bad_payload": 0, "bad_checksum": 0},
        "metrics": metrics,
        "hook_cost": {"original": {"histogram": spread(cost.original)},
                      "reply": {"histogram": spread(cost.reply)}},
        "counters": {},
    })
}

fn push(file: &mut Value, cell: Value) {
    if let Some(cells) = file["cells"].as_array_mut() {
        cells.push(cell);
    }
}

/// What subjects cost beside each other, at a commit: the module gets cheaper.
pub fn quick(commit: usize) -> Value {
    let mut file = file("quick", "What does a redirected packet cost?", "", commit);
    let cheaper = u64::try_from(commit).unwrap_or(0) * 7;
    for (number, traffic) in ["forward-v4-udp-64", "forward-v4-tcp-64", "local-v6-udp-64"]
        .into_iter()
        .enumerate()
    {
        let more = u64::try_from(number).unwrap_or(0) * 20;
        for (subject, base) in [("none", 0), ("nft-dnat", 1400), ("module", 200 - cheaper)] {
            let base = if base == 0 { 0 } else { base + more };
            let cost = Cost {
                original: base,
                reply: base + 6,
                first_packet: to_float(base * 9),
                memory: None,
            };
            push(&mut file, cell(1, subject, traffic, &cost));
        }
    }
    file
}

/// Three knobs alone and in pairs, of which two share what they save.
pub fn ablation() -> Value {
    let text = "[parameters]\nperf_enable_rcu = [1, 0]\nperf_enable_zero_copy = [1, 0]\n\
                perf_enable_pool = [1, 0]\n";
    let mut file = file("ablation", "What does each optimization save?", text, 3);
    for traffic in ["forward-v4-udp-64", "forward-v4-tcp-1400"] {
        let cost = Cost {
            original: 1400,
            reply: 1410,
            first_packet: 4000.0,
            memory: None,
        };
        push(&mut file, cell(1, "nft-dnat", traffic, &cost));
        for off in 0..8_u64 {
            if off.count_ones() > 2 {
                continue;
            }
            let bit = |number: u64| off >> number & 1;
            let (pool, rcu, copy) = (bit(0), bit(1), bit(2));
            let base = 180 + 60 * rcu + 9_400 * copy - 15 * rcu * copy;
            let cost = Cost {
                original: base,
                reply: base + 4,
                first_packet: to_float(1600 + 700 * pool),
                memory: None,
            };
            let variant = format!(
                "module,perf_enable_pool={},perf_enable_rcu={},perf_enable_zero_copy={}",
                1 - pool,
                1 - rcu,
                1 - copy
            );
            push(&mut file, cell(1, &variant, traffic, &cost));
        }
    }
    file
}

/// From one flow to a million.
pub fn flows() -> Value {
    let mut file = file("flows", "What does the number of flows cost?", "", 3);
    for (number, flows) in [1_u64, 1_000, 100_000, 1_000_000].into_iter().enumerate() {
        let more = u64::try_from(number).unwrap_or(0);
        for (subject, base) in [("none", 0), ("nft-dnat", 1400), ("module", 180)] {
            let many = (flows > 1).then_some(());
            let cost = Cost {
                original: base * (10 + more) / 10,
                reply: base * (11 + more) / 10,
                first_packet: to_float(base * 9),
                memory: many.map(|()| to_float(base) / 2.0),
            };
            let variant = match (subject, many) {
                ("module", Some(())) => format!("module,hash_seed=1,max_flows={}", flows + 1001),
                _ => subject.to_owned(),
            };
            let traffic = if flows == 1 {
                "forward-v4-udp-64".to_owned()
            } else {
                format!("forward-v4-udp-64-{flows}flows")
            };
            push(&mut file, cell(1, &variant, &traffic, &cost));
        }
    }
    file
}

/// Packets at fixed times, with latencies and losses.
pub fn latency() -> Value {
    let mut file = file("latency", "How long do packets take?", "", 3);
    for rate in [1_000, 10_000, 50_000] {
        for (subject, base) in [("none", 0), ("module", 180)] {
            let cost = Cost {
                original: base,
                reply: base,
                first_packet: to_float(base),
                memory: None,
            };
            let traffic = format!("forward-v4-udp-64-{rate}pps");
            let mut cell = cell(1, subject, &traffic, &cost);
            let latency = Histogram::from_pairs([(9_000 + base, 900), (rate + 20_000, 100)]);
            let percentile = |part| latency.percentile(part).map(to_float);
            let metrics = [
                ("latency.mean", "lower", latency.mean()),
                ("latency.p50", "lower", percentile(50_000)),
                ("latency.p99", "lower", percentile(99_000)),
                ("latency.p99.9", "lower", percentile(99_900)),
                ("loss", "lower", Some(0.0)),
                ("generator.limit", "neither", Some(80_000.0)),
            ];
            for (name, better, value) in metrics {
                let metric = json!({"name": name, "unit": "ns", "better": better, "kind": "sampled",
                                    "value": value});
                if let Some(metrics) = cell["metrics"].as_array_mut() {
                    // The path is of closed loops only.
                    metrics.retain(|metric| metric["name"] != "path.mean");
                    metrics.push(metric);
                }
            }
            cell["latency"] = serde_json::to_value(&latency).unwrap_or_default();
            push(&mut file, cell);
        }
    }
    file
}

/// From one CPU to 16.
pub fn scaling() -> Value {
    let mut file = file("scaling", "What do more CPUs give?", "", 2);
    for cpus in [1, 2, 4, 8, 16] {
        for (subject, base) in [("nft-dnat", 1400), ("module", 180)] {
            let cost = Cost {
                original: base,
                reply: base,
                first_packet: 100.0,
                memory: None,
            };
            push(&mut file, cell(cpus, subject, "forward-v4-udp-64", &cost));
        }
    }
    file
}

#[expect(clippy::cast_precision_loss, reason = "made-up numbers are small")]
fn to_float(number: u64) -> f64 {
    number as f64
}

/// The run of such a file.
pub fn run(file: &Value) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("made-up.json");
    std::fs::write(&path, file.to_string()).expect("a file");
    let mut contents = run::read(&path, "made-up.json").expect("results");
    assert_eq!(contents.unread, Vec::<String>::new());
    contents.runs.remove(0)
}

/// The history of [`COMMITS`].
pub fn history() -> History {
    let commits = COMMITS.iter().enumerate().map(|(index, hash)| Commit {
        hash: (*hash).to_owned(),
        day: format!("2026-01-0{}", index + 1),
        subject: format!("Change <{index}> & more"),
    });
    History {
        commits: commits.collect(),
    }
}
