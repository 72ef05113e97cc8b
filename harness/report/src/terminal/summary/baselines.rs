// SPDX-License-Identifier: MIT OR Apache-2.0

//! All subjects side by side, by what they cost the whole machine between two sockets.

use super::{missing, traffic_fields, traffics, value};
use mutexlab_draw::table::{number, Align, Field, Table};
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::cpu::{BUSY, PROXY};
use mutexlab_results::metric::{BULK_PER_KIB, PATH_MEAN};
use mutexlab_results::record::CellRecord;
use mutexlab_results::travel::THROUGHPUT_GBIT;

/// What the table tells.
pub const TITLE: &str =
    "Instructions of the whole machine for a message between two sockets, or for 1 KiB of a stream";

/// The table of `cells`, which are all between sockets.
pub fn table(cells: &[&CellRecord]) -> Table {
    let mut subjects: Vec<&Subject> = Vec::new();
    for cell in cells {
        if !subjects.contains(&&cell.subject) {
            subjects.push(&cell.subject);
        }
    }
    let mut head = vec![
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("", Align::Left),
    ];
    head.extend(
        subjects
            .iter()
            .map(|subject| (subject.name(), Align::Right)),
    );
    let mut table = Table::new(&head);
    for traffic in traffics(cells) {
        let mut name = traffic_fields(&traffic);
        for line in Line::ALL {
            let row = Row::of(cells, traffic);
            let fields: Vec<Option<Field>> = subjects
                .iter()
                .map(|subject| line.field(&row, subject))
                .collect();
            if fields.iter().all(Option::is_none) {
                continue;
            }
            let start = [name[0].clone(), name[1].clone(), line.name().into()];
            // Once for all lines.
            name = ["".into(), "".into()];
            let fields = fields
                .into_iter()
                .map(|field| field.unwrap_or_else(missing));
            table.row(start.into_iter().chain(fields));
        }
    }
    table
}

/// A line of the table for each traffic.
#[derive(Clone, Copy)]
enum Line {
    Whole,
    OverNone,
    OfModule,
    Throughput,
    Busy,
    Proxy,
}

impl Line {
    const ALL: [Self; 6] = [
        Self::Whole,
        Self::OverNone,
        Self::OfModule,
        Self::Throughput,
        Self::Busy,
        Self::Proxy,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Whole => "all",
            Self::OverNone => "over none",
            Self::OfModule => "all / module's",
            Self::Throughput => "Gbit/s",
            Self::Busy => "% busy",
            Self::Proxy => "% in the proxy",
        }
    }

    /// What it says of a subject; `None` if that is nothing.
    fn field(self, row: &Row<'_>, subject: &Subject) -> Option<Field> {
        let cell = row.cell(subject)?;
        if cell.verdict != Verdict::Ok {
            // Once is enough.
            return matches!(self, Self::Whole).then(|| value(Some(cell), PATH_MEAN));
        }
        let number = |value: f64| Field::from(number(value));
        match self {
            Self::Whole => whole(cell).map(number),
            Self::OverNone if *subject == Subject::NONE => None,
            Self::OverNone => Some(number(whole(cell)? - row.whole(&Subject::NONE)?)),
            Self::OfModule => {
                let ratio = whole(cell)? / row.whole(&Subject::MODULE)?;
                Some(format!("{ratio:.2}").into())
            }
            // Messages wait for each other: theirs says nothing new.
            Self::Throughput if cell.metric(BULK_PER_KIB).is_none() => None,
            Self::Throughput => Some(format!("{:.2}", cell.metric(THROUGHPUT_GBIT)?).into()),
            Self::Busy => Some(format!("{:.0}", cell.metric(BUSY)?).into()),
            Self::Proxy => Some(format!("{:.0}", cell.metric(PROXY)?).into()),
        }
    }
}

/// The cells of one traffic.
struct Row<'a>(Vec<&'a CellRecord>);

impl<'a> Row<'a> {
    fn of(cells: &[&'a CellRecord], traffic: Traffic) -> Self {
        let cells = cells.iter().filter(|cell| cell.traffic == traffic);
        Self(cells.copied().collect())
    }

    /// The subject's cell; the module's with its first parameters.
    fn cell(&self, subject: &Subject) -> Option<&'a CellRecord> {
        self.0.iter().copied().find(|cell| cell.subject == *subject)
    }

    fn whole(&self, subject: &Subject) -> Option<f64> {
        self.cell(subject).and_then(whole)
    }
}

/// What a message takes, or a part of a stream.
fn whole(cell: &CellRecord) -> Option<f64> {
    cell.metric(PATH_MEAN).or_else(|| cell.metric(BULK_PER_KIB))
}
