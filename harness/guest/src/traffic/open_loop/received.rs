// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comes in while a loop is open.

use mutexlab_model::measured::Delivery;
use mutexlab_wire::frame::Malformed;

/// What came, if anything.
pub enum Received {
    /// No frame was there.
    Nothing,
    /// A packet of the stream.
    Packet {
        /// Its number.
        number: u32,
        /// When it came.
        time: u64,
        /// Bytes of its frame.
        bytes: usize,
    },
    /// Anything else, or a packet that was damaged.
    Other,
}

impl Received {
    pub fn malformed(malformed: Malformed, delivery: &mut Delivery) -> Self {
        match malformed {
            Malformed::Checksum(_) => delivery.bad_checksum += 1,
            _ => delivery.bad_payload += 1,
        }
        Self::Other
    }
}
