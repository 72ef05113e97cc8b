// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every cell of a run, with its verdict, delivery and main numbers.

use maud::{html, Markup};

use super::cell::Cell;
use super::headlines;
use super::run::{Knob, Run};
use mutexlab_draw::chart::number;

/// Where a cell's packets went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Sent by clients.
    pub sent: u64,
    /// Arrived at a server, whichever.
    pub arrived: u64,
    /// Answers that came back.
    pub replies: u64,
    /// With a wrong payload or checksum.
    pub damaged: u64,
}

impl Delivery {
    /// Of a cell; none if that was not heard.
    pub fn of(cell: &Cell) -> Option<Self> {
        let count = |name: &str| cell.delivery.get(name).copied().unwrap_or(0);
        (!cell.delivery.is_empty()).then(|| Self {
            sent: count("sent"),
            arrived: count("at_upstream") + count("at_original"),
            replies: count("replies"),
            damaged: count("bad_payload") + count("bad_checksum"),
        })
    }

    /// Whether every packet arrived, unharmed, and was answered.
    pub fn is_whole(&self) -> bool {
        self.arrived == self.sent && self.replies == self.sent && self.damaged == 0
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            arrived: self.arrived + other.arrived,
            replies: self.replies + other.replies,
            damaged: self.damaged + other.damaged,
        }
    }
}

/// A count with thousands apart.
pub fn whole(count: u64) -> String {
    // Packets are fewer than 2^53 by far.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    number::plain(count as f64)
}

/// The table of all cells.
pub fn table(run: &Run, knobs: &[Knob]) -> Markup {
    let metrics = headlines::of(run);
    html! {
        table {
            thead { tr {
                th scope="col" class="words" { "traffic" }
                th scope="col" class="words" { "subject" }
                th scope="col" { "CPUs" }
                th scope="col" { "verdict" }
                @for name in &metrics { th scope="col" { (name) } }
                th scope="col" { "sent" } th scope="col" { "arrived" }
                th scope="col" { "answered" } th scope="col" { "damaged" }
            } }
            tbody {
                @for cell in &run.cells {
                    tr {
                        th scope="row" { (cell.traffic.label()) }
                        td class="words" { (run.variant(knobs, cell)) }
                        td { (cell.cpus) }
                        td class={ "verdict " (if cell.is_ok() { "ok" } else { "bad" }) } { (cell.verdict()) }
                        @for name in &metrics {
                            td { @match cell.value(name) {
                                Some(value) => (number::plain(value)),
                                None => "–",
                            } }
                        }
                        @match Delivery::of(cell) {
                            Some(delivery) => {
                                @for count in [delivery.sent, delivery.arrived, delivery.replies, delivery.damaged] {
                                    td { (whole(count)) }
                                }
                            },
                            None => td colspan="4" { "not heard" },
                        }
                    }
                }
            }
        }
    }
}
