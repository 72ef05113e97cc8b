// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Groups of upstreams.

use super::Label;

/// How one of several upstreams is selected for a new connection. One that is marked failed is
/// passed over as long as there is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Selection {
    /// In turns.
    RoundRobin = 0,
    /// The one with the lowest priority value; of several, the first.
    Failover = 1,
    /// At random.
    Random = 2,
    /// By the client's address: the same one as long as it works, on every machine. Others' clients stay where they are when one fails, comes or
    /// goes.
    SourceHash = 3,
}

impl Selection {
    /// From the number in the record.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::RoundRobin),
            1 => Some(Self::Failover),
            2 => Some(Self::Random),
            3 => Some(Self::SourceHash),
            _ => None,
        }
    }
}

/// Upstreams of which a new connection goes to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// What people call it.
    pub label: Label,
    /// To which.
    pub selection: Selection,
}
