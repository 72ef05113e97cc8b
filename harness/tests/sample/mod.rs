// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results that nobody measured, of any plan.

use std::path::Path;
use std::sync::LazyLock;

use mutexlab_host::paths::repository_above;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::facts::Facts;
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{Delivery, FirstPacket, HookCost, PathCost};
use mutexlab_model::mode::Mode;
use mutexlab_model::verdict::Verdict;
use mutexlab_protocol::measurement::Measurement;
use mutexlab_protocol::GuestCell;
use mutexlab_results::closure::{Closure, KernelClosure};
use mutexlab_results::derive;
use mutexlab_results::metric::Clock;
use mutexlab_results::metrics;
use mutexlab_results::record::{BootRecord, CellRecord, Directions, Results, SCHEMA};
use mutexlab_scenario::plan::{Plan, PlannedBoot};
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// What measuring `plan` might have given.
pub fn results(scenario: &ScenarioFile, plan: &Plan) -> Results {
    let mut cells = Vec::new();
    let mut boots = Vec::new();
    for boot in &plan.boots {
        boots.push(BootRecord {
            id: boot.id.clone(),
            verdict: Verdict::Ok,
            reason: None,
            reports: Vec::new(),
            seconds: 4.5,
            qemu: vec!["qemu-system-x86_64".into()],
            console_log: "results/logs/x/y.console.log".into(),
            retry_of: None,
        });
        for cell in &boot.cells {
            cells.push(record(scenario.scenario.mode, boot, cell));
        }
    }
    derive::path_over_none(&mut cells, scenario.scenario.mode);
    Results {
        schema: SCHEMA,
        scenario: scenario.name.clone(),
        question: scenario.scenario.question.clone(),
        mode: scenario.scenario.mode,
        started: "2026-11-23T10:00:00Z".into(),
        filter: None,
        shard: None,
        lens: scenario.scenario.lens,
        closure: closure(scenario),
        boots,
        cells,
    }
}

/// What an agent might have measured, with costs about `base`.
pub fn measurement(base: u64) -> Measurement {
    let cost = HookCost {
        overhead: 112,
        packets: 1_000,
        // Tails of several buckets, as connection tracking gives them.
        histogram: Histogram::from_pairs(
            (0..12).map(|tail| (base + tail * tail, 1 + (995 >> tail))),
        ),
        sum: base * 1_000,
        min: base,
        max: base + 121,
        by_hook: [
            ("pre_routing".to_owned(), 50.5),
            ("post_routing".to_owned(), 3.25),
        ]
        .into(),
        ..HookCost::default()
    };
    Measurement {
        delivery: Delivery::default(),
        original: cost.clone(),
        reply: cost,
        first_packet: Some(FirstPacket {
            median: 6_000 + base,
            p10: 5_900 + base,
        }),
        flow_memory: None,
        router: None,
        path: PathCost {
            ticks: (12_000 + base) * 2_000,
            nanoseconds: (12_000 + base) * 2_000,
            packets: 2_000,
            bytes: 212_000,
        },
        round_trip: Some(Histogram::from_pairs([(24_000 + 2 * base, 1_000)])),
        open: None,
        bulk: None,
        proxy_time: None,
        cores: Vec::new(),
        received: Vec::new(),
        buckets: None,
        counters: [("packets_original".to_owned(), 1_000)].into(),
        memory_map: None,
    }
}

fn record(mode: Mode, boot: &PlannedBoot, cell: &GuestCell) -> CellRecord {
    // Another number in each cell, and in wall mode in each boot.
    let sum = cell.id.bytes().map(u64::from).sum::<u64>() % 3_000;
    let measurement = measurement(match mode {
        Mode::Virtual => sum,
        Mode::Wall => sum + u64::from(boot.repetition) * 7 % 5,
    });
    let clock = Clock {
        mode,
        khz: 1_000_000,
    };
    CellRecord {
        id: cell.id.clone(),
        boot: boot.id.clone(),
        kernel: boot.kernel.clone(),
        cpus: boot.cpus,
        repetition: boot.repetition,
        subject: cell.subject.clone(),
        parameters: cell.parameters.clone(),
        traffic: cell.traffic,
        verdict: Verdict::Ok,
        reason: None,
        delivery: Some(measurement.delivery),
        metrics: metrics::of(&measurement, &facts(cell), &cell.traffic, clock),
        hook_cost: Some(Directions {
            original: measurement.original.clone(),
            reply: measurement.reply.clone(),
        }),
        latency: measurement.latency().cloned(),
        counters: measurement.counters,
    }
}

/// What the repository knows of a cell's subject.
fn facts(cell: &GuestCell) -> Facts {
    static SHIPPED: LazyLock<Subjects> = LazyLock::new(|| {
        let repository = repository_above(Path::new(env!("CARGO_MANIFEST_DIR")));
        Subjects::shipped(&repository.expect("this is in it")).expect("they are well")
    });
    SHIPPED.facts(&cell.subject).expect("it is one of these")
}

fn closure(scenario: &ScenarioFile) -> Closure {
    let mut closure: Closure =
        serde_json::from_str(include_str!("closure.json")).expect("the sample is a closure");
    let like = closure
        .kernels
        .values()
        .next()
        .expect("the sample has a kernel")
        .clone();
    closure.kernels = scenario
        .scenario
        .kernels
        .iter()
        .map(|name| {
            let release = format!("{name}.4");
            (
                name.clone(),
                KernelClosure {
                    release,
                    ..like.clone()
                },
            )
        })
        .collect();
    if scenario.scenario.mode == Mode::Wall {
        closure.qemu.accelerator = Accelerator::Kvm;
    }
    closure.scenario_text.clone_from(&scenario.text);
    closure
}
