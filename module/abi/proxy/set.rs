// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sets of addresses, numbers or names, which conditions of rules name.

use super::condition::ValueKind;
use super::Label;

/// A set; what is in it comes in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// What people call it.
    pub label: Label,
    /// What is in it.
    pub kind: ValueKind,
}

/// One of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Addresses of IPv4 from the first to the last, as numbers whose first byte is the address's first.
    V4([u32; 2]),
    /// Addresses of IPv6, likewise.
    V6([u128; 2]),
    /// Numbers from the first to the last.
    Number([u64; 2]),
    /// A name, filled up with zeros.
    Name([u8; super::NAME_SIZE]),
}
