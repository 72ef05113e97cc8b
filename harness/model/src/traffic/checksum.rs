// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who vouches for the checksums of packets.

use super::axis::axis;

axis! {
    /// The checksum status (`skb->ip_summed`) with which the router receives packets.
    #[derive(Default)]
    pub enum Checksum {
        /// Complete, and nobody has looked at it (CHECKSUM_NONE), as from a device without receive checksums.
        #[default]
        None,
        /// Left to the device that sends it (CHECKSUM_PARTIAL), as sockets send over veth, and as virtio-net
        /// delivers what sockets of the host and of other guests send.
        Partial,
        /// Complete and verified (CHECKSUM_UNNECESSARY), as from a device with receive checksums.
        Unnecessary,
    }
}

impl Checksum {
    /// The name in ids and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Unnecessary => "unnecessary",
        }
    }
}
