// SPDX-License-Identifier: GPL-2.0

//! The keyed hash that spreads tuples over buckets.
//!
//! A 64-bit word of the tuple, disguised by a secret one, is multiplied by another such word, and the
//! halves of the full product are folded together (`fold`). What comes out is folded once more, by a
//! third secret word. Three instructions a fold. One fold is not enough: of sequential ports or addresses
//! its bits are two arithmetic progressions. Of 82,500 tables (1,500 keys, 11 patterns of tuples, 2^4 to 2^13
//! buckets) 12 in a hundred were far from uniform, with up to 128 of 4,096 tuples in one of 4,096 buckets or more,
//! where jhash had 11. After the second, tests
//! below cannot tell it from a uniform hash, for any number of buckets, by its highest bits or its lowest.
//!
//! # What it is worth against an attacker
//!
//! It is keyed, but no cryptographic function: nobody has shown that a key cannot be computed from enough
//! hashes or collisions, and for a product of two words it would be no surprise. What it rests on is that
//! an attacker sees neither. The key is drawn for each table by the kernel's generator (187 bits for IPv4,
//! 379 for IPv6: of the last two words five are set) and never leaves the kernel, and no hash does. Without the key no pair of tuples is
//! known to collide more often than others. What is left to observe is time: a packet that is looked
//! up behind others in its bucket takes a few instructions a link longer. Who may read how long buckets are (`/proc/net/mutex_proxy/hash`, for root only) can tell
//! collisions, and should be trusted.
//!
//! hsiphash, what the kernel has for whoever fears more, takes 5 rounds of 14 operations for IPv4 and 8 for
//! IPv6: 92 and 149 instructions, written in Rust and compiled by rustc 1.95, where this takes 8 and 22 (and jhash, of
//! addresses of IPv6 that were folded, 31 and 49).
//!
//! `hash_seed` pins the key, for measurements that repeat: it then is worth nothing against anybody.

/// What makes the hashes of one table differ from those of others, so that nobody can choose tuples
/// that all fall into one bucket.
///
/// # Invariants
///
/// A factor of zero makes a fold zero whatever the other is, and one of all bits makes it all bits. Of
/// the last two words the highest bit is set and the next is not: the last is neither, nor near to
/// them, and nor is what the one before disguises, whatever the ports, which are 32 bits. The last is
/// odd. So only addresses could make such a factor, those that are the key's own words, or their
/// complements: whoever does not know the key hits them once in 2^63 tries.
#[derive(Clone, Copy)]
pub struct Seed<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> core::fmt::Debug for Seed<WORDS> {
    // Not the words: what is logged is no secret any more.
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        to.write_str("Seed")
    }
}

/// A key that can be drawn, or pinned by a number: then its words follow from that by SplitMix64
/// (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
pub trait Secret: From<u32> {
    /// From words of which `random` gives each.
    fn draw(random: impl FnMut() -> u64) -> Self;
}

impl<const WORDS: usize> Secret for Seed<WORDS> {
    fn draw(mut random: impl FnMut() -> u64) -> Self {
        let mut words = [(); WORDS].map(|()| random());
        // INVARIANT: that is done here, and nowhere else are words made.
        if let [.., ports, last] = &mut words[..] {
            *ports = *ports & !(1 << 62) | 1 << 63;
            *last = *last & !(1 << 62) | 1 << 63 | 1;
        }
        Self(words)
    }
}

impl<const WORDS: usize> From<u32> for Seed<WORDS> {
    fn from(number: u32) -> Self {
        let mut state = u64::from(number);
        Self::draw(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        })
    }
}

/// Folds the full product of two words: both of its halves depend on every bit of both factors.
#[inline(always)]
const fn fold(one: u64, other: u64) -> u64 {
    let product = one as u128 * other as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A hash of 64 bits and 32.
#[inline(always)]
pub(super) const fn hash_3_words(pair: u64, ports: u32, seed: &Seed<3>) -> u32 {
    let [k, l, last] = seed.0;
    fold(fold(pair ^ k, ports as u64 ^ l), last) as u32
}

/// A hash of four times 64 bits and 32.
#[inline(always)]
pub(super) const fn hash_9_words([a, b, c, d]: [u64; 4], ports: u32, seed: &Seed<6>) -> u32 {
    let [k, l, m, n, o, last] = seed.0;
    let pair = fold(a ^ k, b ^ l) ^ fold(c ^ m, d ^ n);
    fold(fold(pair, ports as u64 ^ o), last) as u32
}

#[cfg(test)]
mod tests {
    use super::super::abi::proxy::Protocol;
    use super::super::tuple::{Address, Ports, Tuple, V4, V6};
    use super::*;

    #[test]
    fn the_parts_of_a_key_that_must_not_be_weak_are_not() {
        let Seed([first, ports, last]) = Seed::<3>::draw(|| 0);
        assert_eq!([first, ports, last], [0, 1 << 63, 1 << 63 | 1]);
        for word in [0, 1, 1 << 62, u64::MAX] {
            let Seed([.., ports, last]) = Seed::<6>::draw(|| word);
            for factor in [ports & !0xffff_ffff, ports | 0xffff_ffff, last] {
                assert!(
                    (1 << 63..3 << 62).contains(&factor),
                    "{factor:x} of {word:x}"
                );
            }
            assert_eq!(last & 1, 1);
        }
    }

    #[test]
    fn every_word_of_a_key_counts() {
        let mut drawn = 0_u64;
        let mut key = || {
            drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            drawn
        };
        let (three, six) = (Seed::<3>::draw(&mut key), Seed::<6>::draw(&mut key));
        for word in 0..3 {
            let mut other = three;
            other.0[word] ^= 2;
            assert_ne!(hash_3_words(1, 2, &other), hash_3_words(1, 2, &three));
        }
        for word in 0..6 {
            let (mut other, pair) = (six, [1, 2, 3, 4]);
            other.0[word] ^= 2;
            assert_ne!(hash_9_words(pair, 5, &other), hash_9_words(pair, 5, &six));
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Seed::<3>::from(1)), "Seed");
    }

    // What one client may do, or many, or a scan: tuples that differ in few bits, and regularly.
    fn structured<A: Address>(host: impl Fn(u32) -> A) -> Vec<(&'static str, Vec<Tuple<A>>)> {
        const MANY: u32 = 4096;
        let tuple = |source: u32, destination: u32, from: u32, to: u32| {
            let [from, to] = [from, to].map(|port| (port as u16).to_be());
            let (source, destination) = (host(source), host(destination));
            Tuple::new(Protocol::Tcp, source, destination, Ports::new(from, to))
        };
        let (c, s) = (0xc612_0001_u32, 0xcb00_7101_u32);
        let of = |tuple: &dyn Fn(u32) -> Tuple<A>| (0..MANY).map(tuple).collect();
        vec![
            ("source ports", of(&|n| tuple(c, s, 32_768 + n, 443))),
            ("every 16th", of(&|n| tuple(c, s, n * 16, 443))),
            ("destination ports", of(&|n| tuple(c, s, 40_000, 1 + n))),
            ("clients", of(&|n| tuple(c + n, s, 40_000, 443))),
            ("networks", of(&|n| tuple(c + (n << 8), s, 40_000, 443))),
            ("far networks", of(&|n| tuple(c ^ n << 20, s, 40_000, 443))),
            ("servers", of(&|n| tuple(c, s + n, 40_000, 443))),
            ("both", of(&|n| tuple(c + n, s + n, 40_000, 443))),
            (
                "clients and ports",
                of(&|n| tuple(c + n / 64, s, 40_000 + n % 64, 443)),
            ),
            (
                "ports with clients",
                of(&|n| tuple(c + n, s, 1024 + n, 443)),
            ),
            ("a scan", of(&|n| tuple(c, s + n % 64, 40_000, 1 + n / 64))),
            ("same ports", of(&|n| tuple(c, s, n * 2, n * 2))),
            (
                "two bits",
                of(&|n| tuple(c ^ 1 << (n % 32), s ^ 1 << (n / 32 % 32), n / 1024, 443)),
            ),
        ]
    }

    // How far from uniform: by how many standard deviations chi-square is above what it is expected
    // to be of as many buckets.
    fn excess(hashes: &[u32], bucket: impl Fn(u32) -> usize, bits: u32) -> f64 {
        let mut counts = vec![0_u32; 1 << bits];
        for &hash in hashes {
            counts[bucket(hash)] += 1;
        }
        let (mean, freedom) = (
            hashes.len() as f64 / counts.len() as f64,
            (counts.len() - 1) as f64,
        );
        let square = |&count: &u32| (f64::from(count) - mean).powi(2) / mean;
        let chi: f64 = counts.iter().map(square).sum();
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    fn is_uniform<A: Address>(host: impl Fn(u32) -> A) {
        // Pinned small numbers, and keys that were drawn.
        let mut drawn = 99_u64;
        let mut random = || {
            drawn = drawn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            drawn ^ drawn >> 29
        };
        let pinned = (0..100).map(A::Seed::from);
        let keys: Vec<A::Seed> = pinned
            .chain((0..100).map(|_| A::Seed::draw(&mut random)))
            .collect();
        let mut worst = (f64::MIN, String::new());
        for (name, tuples) in structured(&host) {
            for (number, key) in keys.iter().enumerate() {
                let hashes: Vec<u32> = tuples.iter().map(|tuple| tuple.hash(key)).collect();
                for bits in [1, 4, 8, 12] {
                    let low = excess(&hashes, |hash| hash as usize & ((1 << bits) - 1), bits);
                    let high = excess(&hashes, |hash| (hash >> (32 - bits)) as usize, bits);
                    for (end, excess) in [("low", low), ("high", high)] {
                        if excess > worst.0 {
                            worst = (excess, format!("{name}, key {number}, {bits} {end} bits"));
                        }
                    }
                }
            }
        }
        // Of two buckets, where the tail is longest, that is 4.6 standard deviations: of 5,200 such looks
        // at a uniform hash, 0.03 are beyond.
        assert!(worst.0 < 14.0, "{worst:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics")]
    fn structured_tuples_spread_as_at_random_v4() {
        is_uniform(|host| V4(host.to_be()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics")]
    fn structured_tuples_spread_as_at_random_v6() {
        // Hosts of one network, and networks of one provider.
        is_uniform(|host| {
            V6([
                0x2001_0db8_u64.rotate_left(32).to_be(),
                u64::from(host).to_be(),
            ])
        });
        is_uniform(|host| {
            V6([
                (0x2001_0db8_u64 << 32 | u64::from(host)).to_be(),
                1_u64.to_be(),
            ])
        });
    }

    // How often each of 32 bits changes when a bit of the tuple does: in half of the cases.
    fn avalanche<A: Address>(bits: usize, flip: impl Fn(&mut Tuple<A>, usize)) {
        const SAMPLES: u32 = 2000;
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state ^ state >> 31
        };
        for bit in 0..bits {
            let mut changed = [0_u32; 32];
            for _ in 0..SAMPLES {
                let key = A::Seed::draw(&mut random);
                let mut address = || {
                    let (a, b) = (random().to_ne_bytes(), random().to_ne_bytes());
                    let mut bytes = [0; 16];
                    bytes[..8].copy_from_slice(&a);
                    bytes[8..].copy_from_slice(&b);
                    A::from_bytes(bytes)
                };
                let (source, destination) = (address(), address());
                let ports = Ports(random() as u32);
                let tuple = Tuple::new(Protocol::Udp, source, destination, ports);
                let mut other = tuple;
                flip(&mut other, bit);
                let difference = tuple.hash(&key) ^ other.hash(&key);
                for (place, count) in changed.iter_mut().enumerate() {
                    *count += difference >> place & 1;
                }
            }
            // Six standard deviations are 134.
            for (place, &count) in changed.iter().enumerate() {
                let off = count.abs_diff(SAMPLES / 2);
                assert!(off < 140, "{bit} → {place}: {count} of {SAMPLES}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics")]
    fn every_bit_changes_half_of_the_hash() {
        avalanche::<V4>(96, |tuple, bit| match bit {
            0..64 => tuple.addresses ^= 1 << bit,
            _ => tuple.ports.0 ^= 1 << (bit - 64),
        });
        avalanche::<V6>(288, |tuple, bit| match bit {
            0..256 => tuple.addresses[bit / 64] ^= 1 << (bit % 64),
            _ => tuple.ports.0 ^= 1 << (bit - 256),
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics")]
    fn a_pair_of_tuples_collides_as_often_as_any_other() {
        // Over many keys, pairs that differ as an attacker would choose: in one bit, in the same bits of two
        // words, by words exchanged. Of 2^10 buckets, by either end of the hash.
        const KEYS: u32 = 40_000;
        let one = Tuple::new(
            Protocol::Tcp,
            V4(0x0101_12c6),
            V4(0x0171_00cb),
            Ports::new(1, 2),
        );
        let mut others = vec![one.reverse(), one.from_port(3)];
        for bit in [0, 7, 31, 32, 63] {
            let addresses = one.addresses ^ 1 << bit;
            others.push(Tuple { addresses, ..one });
            let ports = Ports(one.ports.0 ^ 1 << (bit % 32));
            others.push(Tuple {
                addresses,
                ports,
                ..one
            });
        }
        let mut drawn = 3_u64;
        let mut random = || {
            drawn = drawn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            drawn ^ drawn >> 30
        };
        let keys: Vec<Seed<3>> = (0..KEYS).map(|_| Secret::draw(&mut random)).collect();
        for other in others {
            let mut same = [0_u32; 2];
            for key in &keys {
                let difference = one.hash(key) ^ other.hash(key);
                same[0] += u32::from(difference & 1023 == 0);
                same[1] += u32::from(difference >> 22 == 0);
            }
            // 39 are expected; six standard deviations more are 76.
            assert!(same.iter().all(|&same| same < 80), "{other:?}: {same:?}");
        }
    }
}
