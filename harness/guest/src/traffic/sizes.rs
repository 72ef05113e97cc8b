// SPDX-License-Identifier: MIT OR Apache-2.0

//! How large packets are, one after the other.

use super::payload;
use mutexlab_model::traffic::{Family, Mix, Payload, Protocol, Traffic};
use mutexlab_wire::frame;

/// Frames of the simple IMIX with their checksums, in the order of sending, again and again: 7 of 64
/// bytes, 4 of 570, 1 of 1518; in the notation of RFC 6985, `aaaaaaazzzzg` with z = 570.
const IMIX: [u16; 12] = [64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1518];
/// Ethernet's checksum, which the guest's links do not have.
const FRAME_CHECK: usize = 4;

/// Payloads of packets by their numbers, so that both ends know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    payload: Payload,
    headers: usize,
}

impl Sizes {
    /// Those of `traffic`.
    pub fn of(traffic: &Traffic) -> Self {
        Self::new(traffic.payload, traffic.family, traffic.protocol)
    }

    fn new(payload: Payload, family: Family, protocol: Protocol) -> Self {
        Self {
            payload,
            headers: frame::FRAME_MAX - frame::payload_max(family, protocol),
        }
    }

    /// Bytes of payload of the packet with this number. What is left of the shortest frames of a mix
    /// is at least what a label needs, which makes a frame of IPv6 or TCP longer than it should be.
    pub fn payload(&self, number: u32) -> usize {
        match self.payload {
            Payload::Bytes(bytes) => bytes.into(),
            Payload::Mix(Mix::Imix) => {
                let frame = usize::from(IMIX[number as usize % IMIX.len()]);
                (frame - FRAME_CHECK)
                    .saturating_sub(self.headers)
                    .max(payload::MIN)
            }
        }
    }

    /// The most of all packets.
    pub fn max(&self) -> usize {
        match self.payload {
            Payload::Bytes(bytes) => bytes.into(),
            Payload::Mix(Mix::Imix) => (0..IMIX.len() as u32)
                .map(|number| self.payload(number))
                .max()
                .unwrap_or(payload::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payload: Payload, family: Family, protocol: Protocol) -> Vec<usize> {
        let sizes = Sizes::new(payload, family, protocol);
        (0..24)
            .map(|number| sizes.headers + sizes.payload(number))
            .collect()
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let imix = Payload::Mix(Mix::Imix);
        for (family, protocol, small) in [
            (Family::V4, Protocol::Udp, 60),
            // Headers and a label: 14 + 20 + 20 + 16, 14 + 40 + 8 + 16, 14 + 40 + 20 + 16.
            (Family::V4, Protocol::Tcp, 70),
            (Family::V6, Protocol::Udp, 78),
            (Family::V6, Protocol::Tcp, 90),
        ] {
            let mut frames = frames(imix, family, protocol);
            let half = frames.split_off(12);
            assert_eq!(frames, half);
            assert_eq!(frames[..7], [small; 7]);
            assert_eq!(frames[7..], [566, 566, 566, 566, 1514]);
            let sizes = Sizes::new(imix, family, protocol);
            assert_eq!(sizes.max(), frame::payload_max(family, protocol));
        }
    }

    #[test]
    fn all_are_the_same_without_a_mix() {
        let frames = frames(Payload::Bytes(64), Family::V4, Protocol::Udp);
        assert_eq!(frames, [14 + 20 + 8 + 64; 24]);
    }
}
