// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results as a person reads them.

mod ablation;
mod baselines;
mod delivery;
#[cfg(test)]
mod tests;
mod travel;

use std::collections::{BTreeMap, BTreeSet};

use mutexlab_draw::table::{number, Align, Field, Style, Table};
use mutexlab_model::mode::Mode;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Load;
use mutexlab_model::traffic::{Ends, Traffic};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::{
    FIRST_PACKET, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE, PERCENTILES,
};
use mutexlab_results::record::{CellRecord, Results};
use mutexlab_results::stability;

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
        for variants in ablation::variants(&group) {
            let Some(table) = ablation::table(&group, &variants) else {
                continue;
            };
            say(&Style::Dim.paint(&format!(
                "  What the parameters of {} change, in instructions a packet (hook.mean).",
                variants.subject
            )));
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
            _ => 0,
        };
        let part = if let (Some(flows), true) = (traffic.flows_per_cpu(), part.ends_with("percpu"))
        {
            let plural = if flows == 1 { "" } else { "s" };
            format!("{} flow{plural} a CPU", whole(flows.into()))
        } else if part.ends_with("flows") {
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

/// Subjects side by side; the module with its first parameters, which are all unless the
/// scenario varies them. After what this project compares come the user's own.
fn costs(group: &Group<'_>) -> Table {
    let many = group
        .iter()
        .any(|cell| cell.traffic.flows != 1 && cell.traffic.spread.is_none());
    let is_there = |subject: &Subject| group.iter().any(|cell| cell.subject == *subject);
    let first_of = |subjects: &[Subject]| {
        let mut there = subjects.iter().filter(|subject| is_there(subject));
        there.next().unwrap_or(&subjects[0]).clone()
    };
    let theirs_are = [Subject::NFT_DNAT, Subject::NFT_DNAT_DIRECT];
    let ours_are = [
        Subject::MODULE,
        Subject::MODULE_DIRECT,
        Subject::MODULE_UNMATCHED,
    ];
    let (their_subject, our_subject) = (first_of(&theirs_are), first_of(&ours_are));
    let mut own: Vec<Subject> = Vec::new();
    for cell in group.iter() {
        let known = cell.subject == Subject::NONE
            || theirs_are.contains(&cell.subject)
            || ours_are.contains(&cell.subject);
        if !known && !own.contains(&cell.subject) {
            own.push(cell.subject.clone());
        }
    }
    // Whoever measures something of their own need not look at columns of nothing.
    let compared = own.is_empty() || is_there(&their_subject) || is_there(&our_subject);
    let mut columns = vec![Subject::NONE];
    if compared {
        columns.extend([their_subject.clone(), our_subject.clone()]);
    }
    columns.extend(own);
    let both = format!("{our_subject} / {their_subject}");
    let mut head = vec![("way", Align::Left), ("traffic", Align::Left)];
    head.extend(columns.iter().map(|subject| (subject.name(), Align::Right)));
    if compared {
        head.push((both.as_str(), Align::Right));
    }
    let many = many && compared;
    if many {
        head.push(("module / its 1 flow", Align::Right));
    }
    let mut table = Table::new(&head);
    let find = |subject: &Subject, traffic: Traffic| {
        group
            .iter()
            .find(|cell| cell.subject == *subject && cell.traffic == traffic)
            .copied()
    };
    for traffic in traffics(group) {
        let find_here = |subject| find(subject, traffic);
        let (ours, theirs) = (find_here(&our_subject), find_here(&their_subject));
        let mut fields = traffic_fields(&traffic).to_vec();
        fields.extend(
            columns
                .iter()
                .map(|subject| value(find_here(subject), HOOK_MEAN)),
        );
        if compared {
            fields.push(ratio(ours, theirs).map_or_else(missing, |ratio| {
                let style = if ratio < 1.0 { Style::Good } else { Style::Bad };
                Field::styled(format!("{ratio:.2}"), style)
            }));
        }
        if many {
            let single = find(
                &our_subject,
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
        let redirected = |cell: &CellRecord| cell.delivery.is_some_and(|sum| sum.at_upstream > 0);
        for cell in cells.filter(|cell| redirected(cell)) {
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
        let retried = results
            .boots
            .iter()
            .any(|other| other.retry_of.as_ref() == Some(&boot.id));
        // Its cells have a boot of their own, and their own verdict.
        if retried {
            continue;
        }
        let reason = boot.reason.as_deref().unwrap_or("no reason given");
        befallen
            .entry((&boot.id, boot.verdict, reason))
            .or_default()
            .push(&boot.id);
    }
    let second_tries = results.boots.iter().filter_map(|boot| {
        let first = results
            .boots
            .iter()
            .find(|other| Some(&other.id) == boot.retry_of.as_ref())?;
        Some(format!(
            "  {} is the second try of {}, which ended as {}: {}\n    console: {}",
            boot.id,
            first.id,
            first.verdict,
            first
                .reason
                .as_deref()
                .unwrap_or("its cells did, and not the boot"),
            first.console_log,
        ))
    });
    befallen
        .into_iter()
        .map(describe)
        .chain(second_tries)
        .collect()
}
