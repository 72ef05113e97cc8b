// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results as a person reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::guest::protocol::{Delivery, Subject, Traffic};
use crate::plan;
use crate::results::metrics::{HOOK_MEAN, PATH_MEAN, PERCENTILES};
use crate::results::record::{CellRecord, Results};
use crate::table::{number, Align, Field, Style, Table};
use crate::verdict::Verdict;

/// Cells that are shown together: one kernel, one number of CPUs, one repetition.
type Group<'a> = Vec<&'a CellRecord>;

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
        say(&heading(results, &group));
        say("");
        say(&costs(&group).to_string());
        say(&Style::Dim.paint(
            "  Percentiles of the same packets, client to server › server to client; path is all that \
             happens\n  from one packet to the next, generator and receivers included.",
        ));
        say("");
        say(&percentiles(&group).to_string());
    }
    say(&delivery(results));
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

fn heading(results: &Results, group: &Group<'_>) -> String {
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
        "Instructions a packet spends in netfilter's hooks, mean of both directions (Linux {release}, {} {cpus}, boot {})",
        cell.cpus, cell.repetition
    )
}

/// Traffic and payload, in the order of the plan.
fn traffics(group: &Group<'_>) -> Vec<Traffic> {
    let mut seen = BTreeSet::new();
    group
        .iter()
        .map(|cell| cell.traffic)
        .filter(|traffic| seen.insert(plan::traffic_name(traffic)))
        .collect()
}

fn traffic_fields(traffic: &Traffic) -> [Field; 3] {
    [
        plan::way_name(traffic.way).into(),
        format!(
            "{} {}",
            plan::family_name(traffic.family),
            plan::protocol_name(traffic.protocol)
        )
        .into(),
        traffic.payload.to_string().into(),
    ]
}

/// Our subjects side by side; the module with its first parameters, which are all unless the
/// scenario varies them.
fn costs(group: &Group<'_>) -> Table {
    let mut table = Table::new(&[
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("bytes", Align::Right),
        ("none", Align::Right),
        ("nft-dnat", Align::Right),
        ("module", Align::Right),
        ("module / nft-dnat", Align::Right),
    ]);
    for traffic in traffics(group) {
        let find = |subject| {
            group
                .iter()
                .find(|cell| cell.subject == subject && cell.traffic == traffic)
                .copied()
        };
        let (ours, theirs) = (find(Subject::Module), find(Subject::NftDnat));
        let mut fields = traffic_fields(&traffic).to_vec();
        fields.extend([find(Subject::None), theirs, ours].map(|cell| value(cell, HOOK_MEAN)));
        fields.push(ratio(ours, theirs));
        table.row(fields);
    }
    table
}

/// A metric, or why there is none.
fn value(cell: Option<&CellRecord>, name: &str) -> Field {
    match cell {
        None => Field::styled("–", Style::Dim),
        Some(cell) if cell.verdict != Verdict::Ok => Field::styled(cell.verdict.name(), Style::Bad),
        Some(cell) => cell
            .metric(name)
            .map_or("–".into(), |value| number(value).into()),
    }
}

fn ratio(ours: Option<&CellRecord>, theirs: Option<&CellRecord>) -> Field {
    let mean = |cell: Option<&CellRecord>| cell?.metric(HOOK_MEAN);
    match (mean(ours), mean(theirs)) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => {
            let style = if ours < theirs {
                Style::Good
            } else {
                Style::Bad
            };
            Field::styled(format!("{:.2}", ours / theirs), style)
        }
        _ => Field::styled("–", Style::Dim),
    }
}

fn percentiles(group: &Group<'_>) -> Table {
    let mut head = vec![
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("bytes", Align::Right),
        ("subject", Align::Left),
    ];
    head.extend(PERCENTILES.map(|(name, _)| (name, Align::Right)));
    head.extend([
        ("max", Align::Right),
        ("mean", Align::Right),
        ("path", Align::Right),
    ]);
    let mut table = Table::new(&head);
    for traffic in traffics(group) {
        for cell in group.iter().filter(|cell| cell.traffic == traffic) {
            let mut fields = traffic_fields(&traffic).to_vec();
            fields.push(plan::variant(cell.subject, &cell.parameters).into());
            if cell.verdict == Verdict::Ok {
                let statistics = PERCENTILES
                    .iter()
                    .map(|(name, _)| *name)
                    .chain(["max", "mean"]);
                fields.extend(statistics.map(|name| both_directions(cell, name)));
                fields.push(value(Some(cell), PATH_MEAN));
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
    format!("{} › {}", of("original"), of("reply")).into()
}

/// Where the packets went, added up over the cells that redirect.
fn delivery(results: &Results) -> String {
    let mut text = String::new();
    for (subject, redirects) in [
        (Subject::None, false),
        (Subject::NftDnat, true),
        (Subject::Module, true),
    ] {
        let cells: Vec<_> = results
            .cells
            .iter()
            .filter(|cell| cell.subject == subject)
            .collect();
        let sum = |field: fn(&Delivery) -> u64| -> u64 {
            cells
                .iter()
                .filter_map(|cell| cell.delivery.as_ref())
                .map(field)
                .sum()
        };
        let sent = sum(|delivery| delivery.sent);
        if sent == 0 {
            continue;
        }
        let (upstream, original) = (sum(|d| d.at_upstream), sum(|d| d.at_original));
        let (replies, from_original) = (sum(|d| d.replies), sum(|d| d.replies_from_original));
        let damaged = sum(|d| d.bad_payload + d.bad_checksum);
        let (expected, other) = if redirects {
            (upstream, original)
        } else {
            (original, upstream)
        };
        let well = expected == sent
            && other == 0
            && from_original == sent
            && replies == sent
            && damaged == 0;
        let line = format!(
            "  {:<9} {} sent: {} arrived at the redirected server, {} at the original address; {} \
             replies, {} from the original address; {} damaged",
            plan::subject_name(subject),
            whole(sent),
            whole(upstream),
            whole(original),
            whole(replies),
            whole(from_original),
            whole(damaged),
        );
        let style = if well { Style::Plain } else { Style::Bad };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", style.paint(&line));
    }
    text
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
