// SPDX-License-Identifier: GPL-2.0

//! Internet checksums (RFC 1071), changed incrementally (RFC 1624).

/// A ones' complement sum of 16-bit words in network byte order, not yet folded.
///
/// The byte order does not matter as long as every word has the same (RFC 1071, section 2.B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds a 32-bit word, which is two 16-bit words.
    #[inline]
    #[must_use]
    pub const fn add(self, word: u32) -> Self {
        // At most 2^32 additions of 32 bits fit, far more than a packet has words.
        Self(self.0 + word as u64)
    }

    /// The sum of all words of both.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The sum as 16 bits.
    #[inline]
    pub const fn fold(self) -> u16 {
        // Each half is added to the other, so the carry of the lower one is added to the upper one, too.
        let halves = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        (halves.wrapping_add(halves.rotate_left(16)) >> 16) as u16
    }

    /// Sum of bytes as they lie in a packet; an odd last byte is padded with zero.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            if let &[a, b] = word {
                sum = sum.add(u32::from(u16::from_ne_bytes([a, b])));
            }
        }
        if let &[last] = words.remainder() {
            sum = sum.add(u32::from(u16::from_ne_bytes([last, 0])));
        }
        sum
    }
}

/// How replacing some words changes a sum: the sum of the new words less the sum of the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delta(u16);

impl Delta {
    /// The change from `old` to `new`.
    pub const fn between(old: Sum, new: Sum) -> Self {
        // A zero in ones' complement, and more than any sum of a packet's words.
        const ZERO: u64 = 0xffff << 32;
        Self(Sum(new.0.wrapping_add(ZERO).wrapping_sub(old.0)).fold())
    }

    /// The change back.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self.0 {
            // As `between` says that nothing changes.
            0xffff => self,
            sum => Self(!sum),
        }
    }

    /// Both changes.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(fold(self.0 as u32 + other.0 as u32))
    }

    /// The checksum of a header in which the words behind this change were replaced.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u32 + self.0 as u32)
    }

    /// A plain sum, as CHECKSUM_PARTIAL leaves it in the header, after the change.
    #[inline(always)]
    pub const fn apply_to_sum(self, sum: u16) -> u16 {
        fold(sum as u32 + self.0 as u32)
    }

    /// A 32-bit sum, as CHECKSUM_COMPLETE keeps it in the buffer, less the change.
    #[inline]
    pub const fn subtract_from(self, sum: u32) -> u32 {
        let less = sum as u64 + (!self.0) as u64;
        ((less & 0xffff_ffff) + (less >> 32)) as u32
    }
}

// `sum` is one of two 16-bit numbers, at most 0x1fffe: adding its carry gives no other.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    (sum.wrapping_add(sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // RFC 1071, the definition, word by word.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum = words.iter().map(|&word| u64::from(word)).sum::<u64>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn there_and_back_is_nothing(old in prop::collection::vec(any::<u32>(), 0..10), new in any::<u64>()) {
            let old = old.into_iter().fold(Sum::default(), Sum::add);
            let new = Sum::default().add(new as u32).add((new >> 32) as u32);
            let there = Delta::between(old, new);
            prop_assert_eq!(there.reverse(), Delta::between(new, old));
            prop_assert_eq!(there.and(there.reverse()).0, 0xffff);
            // What is added, by the definition of a difference.
            prop_assert_eq!(
                (u64::from(old.fold()) + u64::from(there.0)) % 0xffff,
                u64::from(new.fold()) % 0xffff
            );
        }

        #[test]
        fn incremental_equals_full(
            mut words in prop::collection::vec(any::<u16>(), 4..40),
            new in any::<[u32; 2]>(),
        ) {
            let before = checksum(&words);
            let old = words[..4].iter().fold(Sum::default(), |sum, &word| sum.add(word.into()));
            words[0] = (new[0] >> 16) as u16;
            words[1] = new[0] as u16;
            words[2] = (new[1] >> 16) as u16;
            words[3] = new[1] as u16;
            let delta = Delta::between(old, Sum::default().add(new[0]).add(new[1]));
            // Zero and 0xffff are the same number, and a header is never all zero.
            let (got, want) = (delta.apply(before), checksum(&words));
            prop_assert!(got == want || got ^ want == 0xffff && (got == 0 || want == 0));
            let complete = u32::from(!before);
            let off = Sum::default().add(delta.subtract_from(delta.apply_to_sum(!before).into())).fold();
            prop_assert_eq!(off % 0xffff, complete as u16 % 0xffff);
        }

        #[test]
        fn bytes_sum_like_words(words in prop::collection::vec(any::<u16>(), 0..40)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert_eq!(!Sum::of(&bytes).fold(), checksum(&words));
        }
    }

    #[test]
    fn example_of_rfc_1624() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000.
        let delta = Delta::between(Sum::default().add(0x5555), Sum::default().add(0x3285));
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn odd_byte_is_padded() {
        assert_eq!(Sum::of(&[1, 2, 3]).fold(), Sum::of(&[1, 2, 3, 0]).fold());
    }
}
