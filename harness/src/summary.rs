// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results as a person reads them.

mod ablation;
mod baselines;
mod delivery;
mod travel;

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::protocol::{Ends, Subject, Traffic};
use crate::results::metrics::{
    FIRST_PACKET, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE, PERCENTILES,
};
use crate::results::record::{CellRecord, Results};
use crate::results::stability;
use crate::scenario::Mode;
use crate::table::{number, Align, Field, Style, Table};
use crate::traffic::Load;
use crate::verdict::Verdict;

/// Cells that are shown together: one kernel, one number of CPUs, one repetition.
type Group<'a> = Vec<&'a CellRecord>;

/// What is told of cells on the wire.
const fn hooks(mode: Mode) -> &'static str {
    match mode {
        Mode::Virtual => {
            "Instructions a packet spends in netfilter's hooks, mean of both directions"
        }
        Mode::Wall => "Nanoseconds a packet spends in netfilter's hooks, mean of both directions",
    }
}

/// The tables of a run, and what is to be said about them.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    say("");
    say(&Style::Bold.paint(&results.question));
    for group in groups(results) {
        say("");
        let (group, sockets): (Group<'_>, Group<'_>) = group
            .into_iter()
            .partition(|cell| cell.traffic.ends == Ends::Wire);
        if !sockets.is_empty() {
            say(&heading(results, &sockets, baselines::TITLE));
            say("");
            say(&baselines::table(&sockets).to_string());
        }
        if group.is_empty() {
            continue;
        }
        say(&heading(results, &group, hooks(results.mode)));
        say("");
        say(&costs(&group).to_string());
        if let Some(table) = ablation::table(&group) {
            say(&Style::Dim.paint(
                "  What the module's parameters change, in instructions a packet (hook.mean).",
            ));
            say("");
            say(&table.to_string());
        }
        say(&Style::Dim.paint(
            "  Percentiles of the same packets, client to server›server to client; path is all that \
             happens\n  from one packet to the next, generator and receivers included.",
        ));
        say("");
        say(&percentiles(&group).to_string());
        if travel::is_asked_for(&group) {
            say(&Style::Dim.paint(
                "  From end to end, in nanoseconds of the guest's clock: there and back, in an open loop \
                 from when\n  a packet should have been sent; and packets answered a second.",
            ));
            say("");
            say(&travel::text(&group));
        }
        if group.iter().any(|cell| cell.traffic.flows != 1) {
            say(&Style::Dim.paint(
                "  What a flow costs: instructions of its first packet in the hooks, and bytes of the \
                 kernel's memory.",
            ));
            say("");
            say(&first_packets(&group).to_string());
        }
    }
    say(&delivery::text(results));
    for line in stability::advice(results) {
        say(&format!("  {} {line}", Style::Bad.paint("warning:")));
    }
    for line in complaints(results) {
        say(&line);
    }
    text
}

/// Cells that are no pass.
fn bad_cells(results: &Results) -> impl Iterator<Item = &CellRecord> {
    results
        .cells
        .iter()
        .filter(|cell| cell.verdict != Verdict::Ok)
}

fn groups(results: &Results) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
    for cell in &results.cells {
        let key = (&cell.kernel, cell.cpus, cell.repetition);
        groups.entry(key).or_default().push(cell);
    }
    groups.into_values().collect()
}

fn heading(results: &Results, group: &Group<'_>, what: &str) -> String {
    let Some(cell) = group.first() else {
        return String::new();
    };
    let release = results
        .closure
        .kernels
        .get(&cell.kernel)
        .map_or(cell.kernel.as_str(), |kernel| &kernel.release);
    let cpus = if cell.cpus == 1 { "CPU" } else { "CPUs" };
    format!(
        "{what} (Linux {release}, {} {cpus}, boot {})",
        cell.cpus, cell.repetition
    )
}

/// Traffic and payload, in the order of the plan.
fn traffics(group: &[&CellRecord]) -> Vec<Traffic> {
    let mut seen = BTreeSet::new();
    group
        .iter()
        .map(|cell| cell.traffic)
        .filter(|traffic| seen.insert(traffic.name()))
        .collect()
}

fn traffic_fields(traffic: &Traffic) -> [Field; 2] {
    let mut text = format!(
        "{} {} {}",
        traffic.family.name(),
        traffic.protocol.name(),
        traffic.payload
    );
    for part in traffic.unusual() {
        let rate = match traffic.load {
            Load::Open { rate, .. } => rate,
            Load::Closed { .. } | Load::Search(_) | Load::Bulk { .. } => 0,
        };
        let part = if part.ends_with("flows") {
            format!("{} flows", whole(traffic.flows.into()))
        } else if part.ends_with("pps") {
            format!("{} a second", whole(rate.into()))
        } else {
            part
        };
        text.push_str(&format!(", {part}"));
    }
    [traffic.way.name().into(), text.into()]
}

/// Our subjects side by side; the module with its first parameters, which are all unless the
/// scenario varies them.
fn costs(group: &Group<'_>) -> Table {
    let many = group.iter().any(|cell| cell.traffic.flows != 1);
    let mut head = vec![
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("none", Align::Right),
        ("nft-dnat", Align::Right),
        ("module", Align::Right),
        ("module / nft-dnat", Align::Right),
    ];
    if many {
        head.push(("module / its 1 flow", Align::Right));
    }
    let mut table = Table::new(&head);
    let find = |subject, traffic: Traffic| {
        group
            .iter()
            .find(|cell| cell.subject == subject && cell.traffic == traffic)
            .copied()
    };
    for traffic in traffics(group) {
        let find_here = |subject| find(subject, traffic);
        let (ours, theirs) = (find_here(Subject::Module), find_here(Subject::NftDnat));
        let mut fields = traffic_fields(&traffic).to_vec();
        fields.extend([find_here(Subject::None), theirs, ours].map(|cell| value(cell, HOOK_MEAN)));
        fields.push(ratio(ours, theirs).map_or_else(missing, |ratio| {
            let style = if ratio < 1.0 { Style::Good } else { Style::Bad };
            Field::styled(format!("{ratio:.2}"), style)
        }));
        if many {
            let single = find(
                Subject::Module,
                Traffic {
                    flows: 1,
                    ..traffic
                },
            );
            let ratio = ratio(ours, single);
            fields.push(ratio.map_or_else(missing, |ratio| format!("{ratio:.2}").into()));
        }
        table.row(fields);
    }
    table
}

/// What flows cost apart from their ordinary packets.
fn first_packets(group: &Group<'_>) -> Table {
    let mut table = Table::new(&[
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("subject", Align::Left),
        ("first packet", Align::Right),
        ("memory", Align::Right),
    ]);
    for traffic in traffics(group) {
        let mut name = traffic_fields(&traffic);
        let cells = group.iter().filter(|cell| cell.traffic == traffic);
        for cell in cells.filter(|cell| cell.subject.redirects()) {
            let mut fields = name.to_vec();
            // Once for all subjects.
            name = ["".into(), "".into()];
            fields.push(cell.subject.name().into());
            fields.extend([FIRST_PACKET, MEMORY_PER_FLOW].map(|name| value(Some(cell), name)));
            table.row(fields);
        }
    }
    table
}

fn missing() -> Field {
    Field::styled("–", Style::Dim)
}

/// A metric, or why there is none.
fn value(cell: Option<&CellRecord>, name: &str) -> Field {
    match cell {
        None => missing(),
        Some(cell) if cell.verdict != Verdict::Ok => Field::styled(cell.verdict.name(), Style::Bad),
        Some(cell) => cell
            .metric(name)
            .map_or("–".into(), |value| number(value).into()),
    }
}

fn ratio(ours: Option<&CellRecord>, theirs: Option<&CellRecord>) -> Option<f64> {
    let mean = |cell: Option<&CellRecord>| {
        cell.filter(|cell| cell.verdict == Verdict::Ok)?
            .metric(HOOK_MEAN)
    };
    let theirs = mean(theirs).filter(|&mean| mean > 0.0)?;
    Some(mean(ours)? / theirs)
}

fn percentiles(group: &Group<'_>) -> Table {
    let mut head = vec![
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("subject", Align::Left),
    ];
    head.extend(PERCENTILES.map(|(name, _)| (name, Align::Right)));
    head.extend([
        ("max", Align::Right),
        ("path", Align::Right),
        ("over none", Align::Right),
    ]);
    let mut table = Table::new(&head);
    let variants = ablation::variants(group);
    for traffic in traffics(group) {
        let mut name = traffic_fields(&traffic);
        let cells = group
            .iter()
            .filter(|cell| cell.traffic == traffic && ablation::is_shown(&variants, cell));
        for cell in cells {
            let mut fields = name.to_vec();
            // Once for all subjects.
            name = ["".into(), "".into()];
            fields.push(cell.variant().into());
            if cell.verdict == Verdict::Ok {
                let names = PERCENTILES.map(|(name, _)| name);
                let statistics = names.iter().copied().chain(["max"]);
                fields.extend(statistics.map(|name| both_directions(cell, name)));
                fields.extend([PATH_MEAN, PATH_OVER_NONE].map(|name| value(Some(cell), name)));
            } else {
                fields.push(Field::styled(cell.verdict.name(), Style::Bad));
            }
            table.row(fields);
        }
    }
    table
}

fn both_directions(cell: &CellRecord, statistic: &str) -> Field {
    let of = |direction: &str| {
        cell.metric(&format!("hook.{direction}.{statistic}"))
            .map_or("–".to_owned(), number)
    };
    format!("{}›{}", of("original"), of("reply")).into()
}

fn whole(count: u64) -> String {
    // Packets are fewer than 2^53 by far.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    number(count as f64)
}

/// What went wrong, once for all cells that it befell.
fn complaints(results: &Results) -> Vec<String> {
    let mut befallen: BTreeMap<(&str, Verdict, &str), Vec<&str>> = BTreeMap::new();
    for cell in bad_cells(results) {
        let reason = cell.reason.as_deref().unwrap_or("no reason given");
        befallen
            .entry((&cell.boot, cell.verdict, reason))
            .or_default()
            .push(&cell.id);
    }
    let describe = |((boot, verdict, reason), cells): ((&str, Verdict, &str), Vec<&str>)| {
        let record = results.boots.iter().find(|record| record.id == boot);
        format!(
            "  {} {}\n    {reason}\n    console: {}",
            Style::Bad.paint(verdict.name()),
            cells.join(", "),
            record.map_or("none", |record| &record.console_log),
        )
    };
    let boots = results
        .boots
        .iter()
        .filter(|boot| boot.verdict != Verdict::Ok);
    for boot in boots {
        let reason = boot.reason.as_deref().unwrap_or("no reason given");
        befallen
            .entry((&boot.id, boot.verdict, reason))
            .or_default()
            .push(&boot.id);
    }
    befallen.into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::{Delivery, Family, Load, Payload, Popularity, Protocol, Way};
    use crate::qemu::Accelerator;
    use crate::results::closure::{Closure, Host, QemuClosure};
    use crate::results::cpu;
    use crate::results::metrics::{Better, Kind, Metric, Unit};
    use crate::results::record::SCHEMA;

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
                way: Way::Forward,
                family: Family::V4,
                protocol: Protocol::Udp,
                payload: Payload::Bytes(64),
                flows: 1,
                load: Load::Closed {
                    round_trips: 10,
                    burst: 1,
                },
                ends: Ends::Wire,
                popularity: Popularity::Uniform,
                warm_up: 0,
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
            closure: Closure {
                commit: String::new(),
                dirty: false,
                harness: None,
                harness_sha256: String::new(),
                kernels: BTreeMap::new(),
                virtme_ng: String::new(),
                nft: String::new(),
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
            cell(Subject::None, 0.0, straight),
            cell(Subject::NftDnat, 1500.0, redirected()),
            cell(Subject::Module, 300.0, redirected()),
        ]));
        let expected = ["forward", "v4", "udp", "64", "0", "1,500", "300", "0.20"];
        assert_eq!(line(&text, "forward"), expected);
        assert!(text.contains("With nft-dnat and module, every packet arrived"));
        assert!(!text.contains("astray"));
    }

    #[test]
    fn many_flows_stand_beside_one() {
        let module = cell(Subject::Module, 200.0, redirected());
        let mut many = cell(Subject::Module, 230.0, redirected());
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
        let mut tproxy = between(Subject::Tproxy, 50_000.0);
        tproxy.metrics.push(Metric {
            name: cpu::PROXY.to_owned(),
            unit: Unit::Percent,
            value: 61.2,
            ..tproxy.metrics[0].clone()
        });
        let text = text(&results(vec![
            between(Subject::None, 10_000.0),
            tproxy,
            between(Subject::Module, 10_500.0),
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
            ..cell(Subject::Module, mean, redirected())
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
    fn what_went_wrong_takes_the_number_s_place_and_is_told_once() {
        let bad = |subject| CellRecord {
            verdict: Verdict::Splat,
            reason: Some("warning: at a.c:1".into()),
            ..cell(subject, 1.0, Delivery::default())
        };
        let cells = vec![bad(Subject::Module), bad(Subject::NftDnat)];
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
        let text = text(&results(vec![cell(Subject::Module, 1.0, delivery)]));
        assert!(text.contains("With module, packets went astray."));
        assert!(!text.contains("every packet arrived"));
    }
}
