// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Servers to which connections are redirected.

use super::Family;

/// A server to which connections can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// IP version of the address.
    pub family: Family,
    /// With [`Selection::Failover`](super::Selection::Failover), lower ones are preferred.
    pub priority: u8,
    /// Port; 0 keeps the destination's.
    pub port: u16,
    /// The place of its group among the configuration's.
    pub group: u8,
    /// Address; not zero.
    pub address: [u8; 16],
}
