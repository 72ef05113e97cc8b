// SPDX-License-Identifier: GPL-2.0

//! Bob Jenkins' lookup3, as in the kernel (include/linux/jhash.h), with what seeds it.

const JHASH_INITVAL: u32 = 0xdead_beef;

/// What makes the hashes of one table differ from those of others, so that nobody can choose
/// tuples that all fall into one chain. Where addresses have more than 32 bits, it has a word for each
/// of their `HALVES`.
#[derive(Clone, Copy, Debug)]
pub struct Seed<const HALVES: usize> {
    /// Goes into every hash: what `jhash_3words` makes of the seed, once and for all.
    pub(super) word: u32,
    /// What the halves of addresses are disguised with before they are folded.
    pub(super) halves: [u64; HALVES],
}

impl<const HALVES: usize> From<u32> for Seed<HALVES> {
    /// From 32 random bits. The other words follow from them by SplitMix64 (Steele, Lea and
    /// Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    fn from(word: u32) -> Self {
        let mut state = u64::from(word);
        let halves = [(); HALVES].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        });
        Self {
            word: initial(word),
            halves,
        }
    }
}

/// Folds an IPv6 address, disguised by secret words, to 32 bits: both halves of a full product
/// depend on every bit of both factors. jhash of all its words would take 60 instructions more.
#[inline(always)]
pub(super) const fn fold(high: u64, low: u64) -> u32 {
    let product = high as u128 * low as u128;
    let mixed = product as u64 ^ (product >> 64) as u64;
    (mixed ^ mixed >> 32) as u32
}

const fn initial(initval: u32) -> u32 {
    initval.wrapping_add(JHASH_INITVAL).wrapping_add(3 << 2)
}

/// `jhash_3words(a, b, c, initval)` of the kernel, for `start` of [`initial`].
#[inline(always)]
pub(super) const fn jhash_3words(a: u32, b: u32, c: u32, start: u32) -> u32 {
    let (mut a, mut b, mut c) = (
        a.wrapping_add(start),
        b.wrapping_add(start),
        c.wrapping_add(start),
    );
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_kernel() {
        // Computed with the C of include/linux/jhash.h: jhash2 of three words is the same.
        assert_eq!(jhash_3words(1, 2, 3, Seed::<0>::from(0).word), 0xa461_58f5);
    }

    #[test]
    fn seeds_differ_in_every_word() {
        let (one, two) = (Seed::<4>::from(1), Seed::<4>::from(2));
        assert!(one.halves.iter().zip(two.halves).all(|(a, b)| *a != b));
        assert_ne!(
            jhash_3words(1, 2, 3, one.word),
            jhash_3words(1, 2, 3, two.word)
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics")]
    fn folding_spreads_neighbours() {
        // 64 ki addresses of one /112 into as many chains: with a uniform hash about 36.8 % of the
        // chains stay empty (1/e).
        let seed = Seed::<2>::from(3);
        let [k, l] = seed.halves;
        let mut used = vec![false; 1 << 16];
        for host in 0..1_u64 << 16 {
            let folded = fold(0x2001_0db8 ^ k, host.to_be() ^ l);
            used[usize::from(jhash_3words(folded, 0, 0, seed.word) as u16)] = true;
        }
        let empty = used.iter().filter(|&&used| !used).count();
        assert!((23_000..25_300).contains(&empty), "{empty} of 65536 empty");
    }
}
