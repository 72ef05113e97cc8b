// SPDX-License-Identifier: MIT OR Apache-2.0

//! A plan's kernel under other names.

use mutexlab_protocol::GuestCell;

use super::{Plan, PlannedBoot};

impl Plan {
    /// The boots of `kernel` on each of those called `names` instead, one after the other, so that what drifts does
    /// so for all of them. Names of boots and cells begin with the kernel's.
    #[must_use]
    pub fn on(&self, kernel: &str, names: &[&str]) -> Self {
        let rename = |id: &str, name: &str| {
            let rest = id.strip_prefix(kernel);
            rest.map_or_else(|| id.to_owned(), |rest| format!("{name}{rest}"))
        };
        let boots = self.boots.iter().filter(|boot| boot.kernel == kernel);
        let boots = boots.flat_map(|boot| {
            names.iter().map(|name| PlannedBoot {
                id: rename(&boot.id, name),
                kernel: (*name).to_owned(),
                cells: boot
                    .cells
                    .iter()
                    .map(|cell| GuestCell {
                        id: rename(&cell.id, name),
                        ..cell.clone()
                    })
                    .collect(),
                ..boot.clone()
            })
        });
        Self {
            boots: boots.collect(),
        }
    }
}
