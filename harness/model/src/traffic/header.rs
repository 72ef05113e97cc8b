// SPDX-License-Identifier: MIT OR Apache-2.0

//! What headers packets have.

use super::axis::axis;

axis! {
    /// IP version.
    pub enum Family {
        /// IPv4.
        V4,
        /// IPv6.
        V6,
    }
}

impl Family {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

axis! {
    /// Transport protocol.
    pub enum Protocol {
        /// TCP.
        Tcp,
        /// UDP.
        Udp,
    }
}

impl Protocol {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
