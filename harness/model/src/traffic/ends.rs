// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where packets come from and go to.

use super::axis::axis;

axis! {
    /// Where the client is.
    pub enum Way {
        /// In the client's namespace: its packets pass through the router.
        Forward,
        /// On the router itself.
        Local,
    }
}

impl Way {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Local => "local",
        }
    }
}

axis! {
    /// Who makes the packets at both ends.
    #[derive(Default)]
    pub enum Ends {
        /// The agent, with pnet, and every packet is checked.
        #[default]
        Wire,
        /// The kernel's sockets, as for any program; a proxy in user space understands no others.
        Stack,
    }
}
