// SPDX-License-Identifier: MIT OR Apache-2.0

//! An analysis as text.

use std::fmt::Write;

use mutexlab_lens_recording::recording::Costs;
use mutexlab_lens_recording::settings::{Cache, Caches};

use super::analysis::{Analysis, Function, Object};
use super::cycles::WEIGHTS;
use super::functions::{rows, View};
use super::names::short;
use mutexlab_draw::table::{decimals, Align, Table};

/// Functions and objects that a table shows, unless all are wanted.
pub const SHOWN: usize = 25;

/// All of it: what a packet costs, the functions, the objects. So many rows of each table.
pub fn text(analysis: &Analysis, most: usize) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}, commit {}\n", analysis.cell, analysis.commit);
    let _ = writeln!(text, "{}\n", summary(analysis));
    let _ = writeln!(
        text,
        "In the spans of packets, for each packet:\n\n{}",
        costs_table(analysis)
    );
    for (view, heading) in [
        (
            View::Spans,
            "Functions in the spans of packets, for each packet",
        ),
        (View::Window, "All functions, for each packet"),
    ] {
        let _ = writeln!(text, "{heading}:\n\n{}", functions(analysis, view, most));
    }
    let used = analysis.objects.iter().filter(|object| object.used > 0);
    let transferred = analysis.transferred();
    let _ = writeln!(
        text,
        "Lines of memory in the spans of packets, for each packet:\n\n{}",
        objects(analysis, used, most)
    );
    if !transferred.is_empty() {
        let _ = writeln!(
            text,
            "Of these, lines that come from other CPUs or have to be given up by them:\n\n{}",
            objects(analysis, transferred.into_iter(), most)
        );
    }
    text.push_str(&notes(analysis));
    text
}

/// What was looked at, in a sentence.
pub fn summary(analysis: &Analysis) -> String {
    let window: u64 = analysis.instructions.iter().sum();
    let mut text =
        format!(
        "{} packets, {} instructions each in their spans and {} in the whole window, on {} CPU{}",
        decimals(super::analysis::to_float(analysis.packets), 0),
        decimals(analysis.per_packet(analysis.span().instructions), 2),
        decimals(analysis.per_packet(window), 2),
        analysis.instructions.len(),
        if analysis.instructions.len() == 1 { "" } else { "s" },
    );
    if analysis.torn > 0 {
        let _ = write!(
            text,
            "; of {} packets not all of the way was seen",
            analysis.torn
        );
    }
    text + "."
}

/// What is to be known to read the tables.
pub fn notes(analysis: &Analysis) -> String {
    let Caches { l1i, l1d, l2, last } = analysis.caches;
    format!(
        "Instructions are counted. Misses and transfers are those of a model: L1I {}, L1D {}, L2 {}, last level {}; \
         docs/lens.md says how. Cycles are an estimate to rank by: {} an instruction, {} an access that L2 answers, {} the \
         last level, {} memory, {} another CPU's cache.\n",
        cache(l1i),
        cache(l1d),
        cache(l2),
        cache(last),
        WEIGHTS.instruction,
        WEIGHTS.l2,
        WEIGHTS.last,
        WEIGHTS.memory,
        WEIGHTS.transfer,
    )
}

fn cache(cache: Cache) -> String {
    let kib = cache.size >> 10;
    let size = match kib {
        1024.. if kib.is_multiple_of(1024) => format!("{} MiB", kib >> 10),
        _ => format!("{kib} KiB"),
    };
    match u64::from(cache.ways) * Caches::LINE == cache.size {
        true => format!("{size}, fully associative"),
        false => format!("{size} of {} ways", cache.ways),
    }
}

/// A line for each thing that is counted.
pub fn costs_table(analysis: &Analysis) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("a packet", Align::Right)]);
    for (name, count) in counts(analysis) {
        table.row([name.into(), decimals(analysis.per_packet(count), 2).into()]);
    }
    table
}

/// What spans cost in all, by what it is called.
pub fn counts(analysis: &Analysis) -> Vec<(&'static str, u64)> {
    let span = analysis.span();
    let of_ours = |count: fn(&Object) -> u64| analysis.ours().map(count).sum::<u64>();
    vec![
        ("instructions", span.instructions),
        ("reads", span.reads),
        ("writes", span.writes),
        ("L1I misses", span.l1i_misses),
        ("L1D misses", span.l1d_misses),
        ("L2 misses", span.l2_misses),
        ("last-level misses", span.last_misses),
        ("lines from other CPUs", span.transfers),
        ("copies made invalid", span.invalidations),
        ("cycles, estimated", WEIGHTS.cycles(&span)),
        (
            "lines used",
            analysis.objects.iter().map(|object| object.used).sum(),
        ),
        ("of these mutex_proxy's", of_ours(|object| object.used)),
        ("and written", of_ours(|object| object.written)),
        (
            "and shared with another CPU",
            of_ours(|object| object.shared_written),
        ),
        (
            "its last-level misses",
            of_ours(|object| object.span.last_misses),
        ),
    ]
}

/// A function as a table names it.
pub fn function_name(function: &Function) -> String {
    match &function.module {
        Some(module) => format!("{} [{module}]", short(&function.name)),
        None => function.name.clone(),
    }
}

/// The columns of costs of both kinds of tables.
pub const COSTS: [&str; 5] = ["L1D miss", "L2 miss", "last miss", "transfers", "cycles"];

/// The fields below [`COSTS`]; nothing is an empty field.
pub fn cost_fields(analysis: &Analysis, costs: &Costs) -> [String; 5] {
    [
        costs.l1d_misses,
        costs.l2_misses,
        costs.last_misses,
        costs.transfers,
        WEIGHTS.cycles(costs),
    ]
    .map(|count| field(analysis, count))
}

/// A number for each packet; empty for nothing.
pub fn field(analysis: &Analysis, count: u64) -> String {
    match count {
        0 => String::new(),
        _ => decimals(analysis.per_packet(count), 2),
    }
}

fn functions(analysis: &Analysis, view: View, most: usize) -> Table {
    let mut head = vec![
        ("function", Align::Left),
        ("own", Align::Right),
        ("with callees", Align::Right),
    ];
    head.extend(COSTS.map(|name| (name, Align::Right)));
    let mut table = Table::new(&head);
    let rows = rows(analysis, view);
    let shown = rows.iter().filter(|row| row.own != Costs::default());
    for row in shown.clone().take(most) {
        let mut fields = vec![
            function_name(row.function),
            field(analysis, row.own.instructions),
            field(analysis, row.inclusive),
        ];
        fields.extend(cost_fields(analysis, &row.own));
        table.row(fields.into_iter().map(Into::into));
    }
    let others = shown.skip(most).map(|row| &row.own);
    let number = others.clone().count();
    if number > 0 {
        let own = super::analysis::sum(others);
        let mut fields = vec![
            format!("{number} others"),
            field(analysis, own.instructions),
            String::new(),
        ];
        fields.extend(cost_fields(analysis, &own));
        table.row(fields.into_iter().map(Into::into));
    }
    table
}

fn objects<'a>(
    analysis: &Analysis,
    shown: impl Iterator<Item = &'a Object> + Clone,
    most: usize,
) -> Table {
    let mut head = vec![
        ("object", Align::Left),
        ("lines used", Align::Right),
        ("written", Align::Right),
        ("shared", Align::Right),
        ("lines in all", Align::Right),
    ];
    head.extend(COSTS.map(|name| (name, Align::Right)));
    let mut table = Table::new(&head);
    let number = shown.clone().count();
    for object in shown.take(most) {
        let mut fields = vec![
            object_name(object),
            field(analysis, object.used),
            field(analysis, object.written),
            field(analysis, object.shared_written),
            object.lines.to_string(),
        ];
        fields.extend(cost_fields(analysis, &object.span));
        table.row(fields.into_iter().map(Into::into));
    }
    if number > most {
        table.row([format!("{} others", number - most).into()]);
    }
    table
}

/// An object as a table names it.
pub fn object_name(object: &Object) -> String {
    let mark = if object.identity.ours { "* " } else { "" };
    format!("{mark}{}", object.identity.name)
}
