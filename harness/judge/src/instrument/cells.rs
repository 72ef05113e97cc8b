// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cells that the self check has beside those of its scenario.

use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Load, Protocol, Way};
use mutexlab_protocol::{Deed, GuestCell, Mischief};
use mutexlab_scenario::plan::Plan;

/// Numbers of instructions that are put into the path.
pub const BALLASTS: [u16; 4] = [0, 1, 10, 100];

/// Packets of a cell whose server misbehaves, and how many a second: one at a time is on its way,
/// unless it is delayed. The last of them is treated well, as there is nothing to overtake it.
pub const PACKETS: u32 = 1_005;
const RATE: u32 = 10_000;
/// Each so-and-so-manyth answer is treated badly.
pub const EVERY: u32 = 10;
/// How much later a delayed answer is sent, in nanoseconds.
pub const DELAY: u64 = 1_000_000;

/// What the server does, by the end of the cell's name.
pub const DEEDS: [(&str, Option<Deed>); 6] = [
    ("+nothing", None),
    ("+drop", Some(Deed::Drop)),
    ("+delay", Some(Deed::Delay(DELAY))),
    ("+duplicate", Some(Deed::Duplicate)),
    ("+reorder", Some(Deed::Reorder)),
    ("+corrupt", Some(Deed::Corrupt)),
];

/// Ends the name of a cell whose path has so many instructions more.
pub fn ballast_suffix(ballast: u16) -> String {
    format!("+{ballast}")
}

/// Adds them to the first boots: known work to the first, mischief to the second.
pub fn add(plan: &mut Plan) {
    if let Some(boot) = plan.boots.first_mut() {
        let bases: Vec<GuestCell> = boot
            .cells
            .iter()
            .filter(|cell| [Subject::NONE, Subject::MODULE].contains(&cell.subject))
            .cloned()
            .collect();
        for base in bases {
            boot.cells.extend(BALLASTS.map(|ballast| GuestCell {
                id: base.id.clone() + &ballast_suffix(ballast),
                ballast: Some(ballast),
                ..base.clone()
            }));
        }
    }
    if let Some(boot) = plan.boots.get_mut(1) {
        let base = boot.cells.iter().find(|cell| {
            let traffic = &cell.traffic;
            cell.subject == Subject::MODULE
                && (traffic.way, traffic.protocol) == (Way::Forward, Protocol::Udp)
        });
        if let Some(base) = base.cloned() {
            boot.cells.extend(DEEDS.map(|(suffix, deed)| {
                let mut cell = base.clone();
                cell.id += suffix;
                cell.traffic.load = Load::Open {
                    rate: RATE,
                    packets: PACKETS,
                    churn: 0,
                };
                cell.mischief = deed.map(|deed| Mischief { deed, every: EVERY });
                cell
            }));
        }
    }
}
