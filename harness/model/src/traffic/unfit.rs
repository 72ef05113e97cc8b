// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is wrong with traffic that there cannot be.

use std::fmt;

/// Why there can be no such traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What of it is at fault.
    pub part: Part,
    /// Why.
    pub why: String,
}

/// A part of what traffic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How much a packet carries.
    Payload,
    /// How many flows there are.
    Flows,
    /// How many packets are sent at once.
    Burst,
    /// When packets are sent.
    Load,
    /// What is known of their checksums.
    Checksum,
    /// What they share.
    Cloned,
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl std::error::Error for Unfit {}
