// SPDX-License-Identifier: GPL-2.0

//! Bob Jenkins' lookup3 over 32-bit words, as the kernel's `jhash2` (include/linux/jhash.h).

use super::abi::proxy::Family;
use super::tuple::Tuple;

const JHASH_INITVAL: u32 = 0xdead_beef;

#[inline(always)]
const fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

#[inline(always)]
const fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// `jhash2(words, N, seed)`; the loops unroll, since `N` is known.
#[inline(always)]
pub fn jhash2<const N: usize>(words: &[u32; N], seed: u32) -> u32 {
    let start = JHASH_INITVAL
        .wrapping_add((N as u32) << 2)
        .wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest: &[u32] = words;
    while let [x, y, z, tail @ ..] = rest {
        if tail.is_empty() {
            break;
        }
        state[0] = state[0].wrapping_add(*x);
        state[1] = state[1].wrapping_add(*y);
        state[2] = state[2].wrapping_add(*z);
        state = mix(state);
        rest = tail;
    }
    if rest.is_empty() {
        return state[2];
    }
    for (lane, word) in state.iter_mut().zip(rest) {
        *lane = lane.wrapping_add(*word);
    }
    finish(state)
}

/// The hash of a tuple. IPv4 hashes three words: the kind adds nothing that the equality test
/// does not see, and goes into the seed instead.
#[inline(always)]
pub fn tuple_hash(tuple: &Tuple, seed: u32) -> u32 {
    let [ports, kind, source, destination] = tuple.head();
    let seed = seed ^ kind;
    match tuple.family() {
        Family::V4 => jhash2(&[source, destination, ports], seed),
        Family::V6 => {
            let &[a, b, c, d, e, f] = tuple.tail();
            jhash2(&[source, a, b, c, destination, d, e, f, ports], seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_kernel() {
        // Computed with the C of include/linux/jhash.h.
        assert_eq!(jhash2(&[0_u32; 0], 0), 0xdead_beef);
        assert_eq!(jhash2(&[1, 2, 3], 0), KERNEL_3);
        assert_eq!(jhash2(&[1, 2, 3, 4], 7), KERNEL_4);
        assert_eq!(jhash2(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 0xffff_ffff), KERNEL_9);
    }

    const KERNEL_3: u32 = 0xa461_58f5;
    const KERNEL_4: u32 = 0xbcb6_2b19;
    const KERNEL_9: u32 = 0xa933_bafd;
}
