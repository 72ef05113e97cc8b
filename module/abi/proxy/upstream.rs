// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Servers to which connections are redirected.

use core::num::NonZeroU8;

use super::Family;

/// A server to which connections can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// IP version of the address.
    pub family: Family,
    /// With [`Selection::Failover`](super::Selection::Failover), lower ones are preferred.
    pub priority: u8,
    /// How many of its group's new connections it gets, in proportion to the others' weights; nothing to [`Selection::Failover`](super::Selection::Failover).
    pub weight: NonZeroU8,
    /// Port; 0 keeps the destination's.
    pub port: u16,
    /// The place of its group among the configuration's.
    pub group: u8,
    /// Address; not zero.
    pub address: [u8; 16],
}
