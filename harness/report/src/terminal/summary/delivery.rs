// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the packets went, added up over a subject's cells.

use super::whole;
use mutexlab_draw::table::{Align, Style, Table};
use mutexlab_model::measured::Delivery;
use mutexlab_model::subject::Subject;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::record::Results;

/// The table, and whether it is as it should be.
pub fn text(results: &Results) -> String {
    let mut table = Table::new(&[
        ("packets", Align::Left),
        ("sent", Align::Right),
        ("at the redirected server", Align::Right),
        ("at the original", Align::Right),
        ("replies", Align::Right),
        ("from the original", Align::Right),
        ("damaged", Align::Right),
    ]);
    let (mut redirected, mut astray) = (Vec::new(), Vec::new());
    for subject in subjects(results) {
        let sum = delivered(results, subject);
        if sum.sent == 0 {
            continue;
        }
        let name = subject.name();
        let damaged = sum.bad_payload + sum.bad_checksum;
        // Which of the two servers packets should come to, cells know that passed.
        let redirects = sum.at_upstream > sum.at_original;
        let (there, elsewhere) = if redirects {
            (sum.at_upstream, sum.at_original)
        } else {
            (sum.at_original, sum.at_upstream)
        };
        // What an open loop loses or repeats is told elsewhere: a cell in which a packet came where it
        // should not is no pass.
        let complete = [there, sum.replies, sum.replies_from_original] == [sum.sent; 3];
        let mut cells = results.cells.iter();
        let told = cells.any(|cell| {
            cell.subject == *subject && cell.verdict == Verdict::Ok && cell.traffic.load.is_open()
        });
        let failed = results.cells.iter().any(|cell| {
            cell.subject == *subject
                && cell.verdict == Verdict::Failed
                && cell.delivery.is_some_and(|delivery| delivery.sent > 0)
        });
        if !(complete || told) || elsewhere + damaged != 0 || failed {
            astray.push(name);
        } else if complete && redirects {
            redirected.push(name);
        }
        let counts = [
            sum.sent,
            sum.at_upstream,
            sum.at_original,
            sum.replies,
            sum.replies_from_original,
            damaged,
        ];
        table.row(std::iter::once(name.into()).chain(counts.map(|count| whole(count).into())));
    }
    let mut text = table.to_string();
    if !redirected.is_empty() {
        text.push_str(&format!(
            "\n  With {}, every packet arrived at the redirected server and none at the original \
             address,\n  and every reply carried the original address.\n",
            redirected.join(" and ")
        ));
    }
    let redsocks = Subject::REDSOCKS;
    let by_socks = redsocks.name();
    if delivered(results, &redsocks).sent != 0 && !astray.contains(&by_socks) {
        text.push_str(&format!(
            "\n  With {by_socks}, every message arrived at the original address, from the SOCKS \
             server beside it.\n"
        ));
    }
    if !astray.is_empty() {
        let line = format!("With {}, packets went astray.", astray.join(" and "));
        text.push_str(&format!("\n  {}\n", Style::Bad.paint(&line)));
    }
    text
}

/// The subjects in the order in which they were first measured.
fn subjects(results: &Results) -> Vec<&Subject> {
    let mut subjects = Vec::new();
    for cell in &results.cells {
        if !subjects.contains(&&cell.subject) {
            subjects.push(&cell.subject);
        }
    }
    subjects
}

/// The packets of all cells of a subject.
fn delivered(results: &Results, subject: &Subject) -> Delivery {
    let cells = results.cells.iter().filter(|cell| cell.subject == *subject);
    let mut sum = Delivery::default();
    for delivery in cells.filter_map(|cell| cell.delivery) {
        sum.sent += delivery.sent;
        sum.at_upstream += delivery.at_upstream;
        sum.at_original += delivery.at_original;
        sum.replies += delivery.replies;
        sum.replies_from_original += delivery.replies_from_original;
        sum.bad_payload += delivery.bad_payload;
        sum.bad_checksum += delivery.bad_checksum;
    }
    sum
}
