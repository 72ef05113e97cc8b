// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cells that the self check has beside those of its scenario.

use crate::guest::protocol::{GuestCell, Subject};
use crate::plan::Plan;

/// Numbers of instructions that are put into the path.
pub const BALLASTS: [u16; 4] = [0, 1, 10, 100];

/// Ends the name of a cell whose path has so many instructions more.
pub fn ballast_suffix(ballast: u16) -> String {
    format!("+{ballast}")
}

/// Adds them to the first boot.
pub fn add(plan: &mut Plan) {
    let Some(boot) = plan.boots.first_mut() else {
        return;
    };
    let bases: Vec<GuestCell> = boot
        .cells
        .iter()
        .filter(|cell| matches!(cell.subject, Subject::None | Subject::Module))
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
