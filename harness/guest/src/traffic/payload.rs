// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets carry: a label that says which packet it is, and a pattern that follows from it,
//! so that any byte that changes on the way is noticed.

use mutexlab_model::random::Random;

/// The shortest payload: flow, sequence and seed.
pub const MIN: usize = 16;

/// Fixed, so that every run sends the same bytes.
const SEED: u64 = 0x5f3a_91c2_e07b_d846;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client.
    Request,
    /// The server, to a request of the same label.
    Answer,
}

/// Which packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Number of the flow.
    pub flow: u32,
    /// Number of the round trip within the flow.
    pub sequence: u32,
}

impl Label {
    /// Reads the label off a payload; None if it is too short to have one.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (flow, rest) = payload.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Self {
            flow: u32::from_be_bytes(*flow),
            sequence: u32::from_be_bytes(*sequence),
        })
    }

    /// What sizes go by: neighbours are of another size in each flow, and from packet to packet.
    pub fn number(self) -> u32 {
        self.flow.wrapping_add(self.sequence)
    }
}

/// Fills a payload.
pub fn fill(payload: &mut [u8], kind: Kind, label: Label) {
    let mut words = words(kind, label);
    let (whole, rest) = payload.as_chunks_mut();
    for chunk in whole {
        *chunk = words.next().unwrap_or_default();
    }
    let word = words.next().unwrap_or_default();
    rest.copy_from_slice(&word[..rest.len()]);
}

/// Whether a payload is byte for byte what [`fill`] made.
pub fn is_intact(payload: &[u8], kind: Kind, label: Label) -> bool {
    let mut words = words(kind, label);
    let (whole, rest) = payload.as_chunks();
    whole.iter().all(|chunk| Some(*chunk) == words.next())
        && (words.next()).is_some_and(|word| rest == &word[..rest.len()])
}

// The label, the seed, and then random numbers seeded with both, for ever.
fn words(kind: Kind, label: Label) -> impl Iterator<Item = [u8; 8]> {
    let seed = match kind {
        Kind::Request => SEED,
        Kind::Answer => !SEED,
    };
    let label = u64::from(label.flow) << 32 | u64::from(label.sequence);
    let mut pattern = Random::new(seed ^ label);
    [label, seed]
        .into_iter()
        .chain(std::iter::repeat_with(move || pattern.next()))
        .map(u64::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(length: usize, kind: Kind, label: Label) -> Vec<u8> {
        let mut payload = vec![0; length];
        fill(&mut payload, kind, label);
        payload
    }

    proptest! {
        #[test]
        fn label_survives(flow: u32, sequence: u32, length in MIN..1500) {
            let label = Label { flow, sequence };
            let payload = filled(length, Kind::Request, label);
            prop_assert_eq!(Label::of(&payload), Some(label));
            prop_assert!(is_intact(&payload, Kind::Request, label));
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            length in MIN..200_usize,
            bit: prop::sample::Index,
            sequence: u32,
        ) {
            let label = Label { flow: 1, sequence };
            let mut payload = filled(length, Kind::Answer, label);
            let bit = bit.index(8 * length);
            payload[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_intact(&payload, Kind::Answer, label));
        }
    }

    #[test]
    fn packets_differ_in_every_part() {
        let of = |kind, flow, sequence| filled(MIN + 8, kind, Label { flow, sequence });
        let base = of(Kind::Request, 1, 1);
        for other in [
            of(Kind::Answer, 1, 1),
            of(Kind::Request, 2, 1),
            of(Kind::Request, 1, 2),
        ] {
            assert_ne!(base, other);
            assert_ne!(base[MIN..], other[MIN..], "the pattern follows the label");
        }
    }

    #[test]
    fn too_short_has_no_label() {
        assert_eq!(Label::of(&[0; 7]), None);
    }
}
