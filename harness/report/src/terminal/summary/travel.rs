// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long packets took from end to end, and how many a second got there.

use super::{ablation, missing, traffic_fields, traffics, value, Group};
use mutexlab_draw::table::{number, Align, Field, Style, Table};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::record::CellRecord;
use mutexlab_results::travel::{
    B2B_CORRECTED, B2B_DEVIATION, B2B_LOSSY, B2B_MAX, B2B_MEAN, B2B_MIN, B2B_TESTS, DUPLICATES,
    GENERATOR_BOUND, GENERATOR_LIMIT, GENERATOR_SHARE, LATENCY, LATENCY_FORWARD, LATENESS, LOSS,
    NDR, PDR, REORDERED, THROUGHPUT_GBIT, THROUGHPUT_PPS,
};

/// What is shown of the latency.
const STATISTICS: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];
/// What befell packets; a column of it is shown if it befell any.
const FATES: [(&str, &str); 3] = [
    (LOSS, "lost"),
    (REORDERED, "reordered"),
    (DUPLICATES, "repeated"),
];

/// Whether this is asked for: times by open loops, rates by packets of several sizes.
pub fn is_asked_for(group: &Group<'_>) -> bool {
    let sizes = |cell: &&CellRecord| cell.traffic.payload;
    let first = group.first().map(sizes);
    group.iter().any(|cell| is_open(cell))
        || group.iter().map(sizes).any(|size| Some(size) != first)
}

fn is_open(cell: &CellRecord) -> bool {
    cell.traffic.load.is_open()
}

/// The table, and what is to be said about it.
pub fn text(group: &Group<'_>) -> String {
    let open = group.iter().any(|cell| is_open(cell));
    let mut head = vec![
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("subject", Align::Left),
    ];
    head.extend(STATISTICS.map(|name| (name, Align::Right)));
    let fates: Vec<_> = FATES
        .into_iter()
        .filter(|&(name, _)| group.iter().any(|cell| cell.metric(name) > Some(0.0)))
        .collect();
    if open {
        head.push(("one way p50", Align::Right));
        head.push(("late p99.9", Align::Right));
        head.extend(fates.iter().map(|&(_, name)| (name, Align::Right)));
    }
    head.extend([("packets/s", Align::Right), ("Gbit/s", Align::Right)]);
    let searched = group.iter().any(|cell| found(cell).is_some());
    if searched {
        head.push(("found rate", Align::Right));
    }
    if open {
        head.push(("of the generator's", Align::Right));
    }
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
            if cell.verdict != Verdict::Ok {
                fields.push(Field::styled(cell.verdict.name(), Style::Bad));
                table.row(fields);
                continue;
            }
            let show = |name: &str| value(Some(cell), name);
            fields.extend(STATISTICS.map(|statistic| show(&format!("{LATENCY}.{statistic}"))));
            if open {
                fields.push(show(&format!("{LATENCY_FORWARD}.p50")));
                fields.push(show(&format!("{LATENESS}.p99.9")));
                fields.extend(fates.iter().map(|&(name, _)| fate(cell, name)));
            }
            fields.push(show(THROUGHPUT_PPS));
            fields.push(gigabits(cell));
            if searched {
                fields.push(found(cell).map_or_else(missing, |rate| number(rate).into()));
            }
            if open {
                fields.push(share(cell));
            }
            table.row(fields);
        }
    }
    let mut text = table.to_string();
    if !open {
        return text;
    }
    for line in group.iter().filter_map(|cell| bursts(cell)) {
        text.push_str(&format!("  {line}\n"));
    }
    for cell in group.iter().filter(|cell| is_bounded(cell)) {
        let limit = cell.metric(GENERATOR_LIMIT).unwrap_or_default();
        let line = format!(
            "{}: bounded by the generator, which by itself does {} packets a second",
            cell.id,
            number(limit)
        );
        text.push_str(&format!("  {} {line}\n", Style::Bad.paint("warning:")));
    }
    text
}

/// What a search of the longest burst found, if there was one.
fn bursts(cell: &CellRecord) -> Option<String> {
    let of = |name: &str| cell.metric(name);
    let (tests, lossy) = (of(B2B_TESTS)?, of(B2B_LOSSY)?);
    let Some(mean) = of(B2B_MEAN) else {
        let why = if tests == 0.0 {
            "the rate without loss is no less than that of bursts, or there is none".to_owned()
        } else {
            format!(
                "only {} of {} searches ended by a loss, the others since no longer burst was sent in time, \
                 or none was to be tried",
                number(lossy),
                number(tests)
            )
        };
        return Some(format!("{}: no back-to-back frames: {why}", cell.id));
    };
    let part = |name: &str| number(of(name).unwrap_or(f64::NAN));
    Some(format!(
        "{}: back-to-back frames {} ({} to {}, standard deviation {}, {} searches), corrected buffer time \
         {} ns",
        cell.id,
        number(mean),
        part(B2B_MIN),
        part(B2B_MAX),
        part(B2B_DEVIATION),
        number(tests),
        part(B2B_CORRECTED),
    ))
}

/// The rate that a search found.
fn found(cell: &CellRecord) -> Option<f64> {
    cell.metric(NDR).or_else(|| cell.metric(PDR))
}

fn fate(cell: &CellRecord, name: &str) -> Field {
    match cell.metric(name) {
        None => missing(),
        Some(packets) if packets > 0.0 => Field::styled(number(packets), Style::Bad),
        Some(_) => "0".into(),
    }
}

fn gigabits(cell: &CellRecord) -> Field {
    let rate = cell.metric(THROUGHPUT_GBIT);
    rate.map_or_else(missing, |rate| format!("{rate:.4}").into())
}

/// The rate in percent of what the generator does by itself.
fn share(cell: &CellRecord) -> Field {
    let Some(share) = cell.metric(GENERATOR_SHARE) else {
        return missing();
    };
    let style = if is_bounded(cell) {
        Style::Bad
    } else {
        Style::Plain
    };
    Field::styled(format!("{} %", number(share.round())), style)
}

fn is_bounded(cell: &CellRecord) -> bool {
    cell.metric(GENERATOR_SHARE) >= Some(GENERATOR_BOUND)
}
