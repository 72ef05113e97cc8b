// SPDX-License-Identifier: GPL-2.0

//! Finds the rules that match a connection by one search in each field, however many rules there are: the bit vectors of Lakshman and
//! Stiliadis ("High-Speed Policy-based Packet Forwarding Using Efficient Multi-dimensional Range Matching", SIGCOMM 1998).
//!
//! A field's values are cut into pieces, a new one where the range of some rule begins or has ended, so that all values of a piece are
//! in the ranges of the same rules. A bit vector for each piece says which: bit n is rule n's. The vectors of a
//! connection's values, and-ed, are the rules that match it, in their order.

use super::super::abi::proxy::{Protocol, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use super::super::allocate::Allocate;
use super::super::range::{Number, Range};
use super::super::sort::sort_by_key;
use super::super::tuple::{Address, Tuple};
use super::{Compiled, Name};

/// Rules in one word of a bit vector.
const WORD: usize = u64::BITS as usize;

/// Where the range of a rule begins, or the values behind it do.
#[derive(Clone, Copy)]
struct Edge<K> {
    at: K,
    rule: usize,
}

/// The pieces of one field.
struct Field<K, M: Allocate> {
    /// The first value of each piece, in order.
    starts: M::Vec<K>,
    /// The bit vector of each piece, one behind the other.
    vectors: M::Vec<u64>,
    words: usize,
}

impl<K: Number, M: Allocate> Field<K, M> {
    /// For rules with these ranges, in their order; `None` if each takes all values.
    fn new<I: Iterator<Item = Range<K>>>(
        ranges: impl Fn() -> I,
        words: usize,
    ) -> Result<Option<Self>, M::Error> {
        if ranges().all(|range| range == Range::ALL) {
            return Ok(None);
        }
        let of_rule = |(rule, range): (usize, Range<K>)| {
            let edges = core::iter::once(range.first).chain(range.last.next());
            edges.map(move |at| Edge { at, rule })
        };
        let edges = || ranges().enumerate().flat_map(of_rule);
        let mut sorted = M::collect(edges())?;
        sort_by_key(&mut sorted, |edge| edge.at);
        let from_first = sorted.first().is_some_and(|edge| edge.at == K::MIN);
        let cuts = || sorted.chunk_by(|one, next| one.at == next.at);
        let pieces = cuts().count().wrapping_add(usize::from(!from_first));
        let mut starts = M::repeated(K::MIN, pieces)?;
        let mut vectors = M::repeated(0, pieces.wrapping_mul(words))?;
        let mut current = M::repeated(0_u64, words)?;
        // Before the first edge there is a piece of no rule.
        let skipped = usize::from(!from_first);
        let places = starts
            .iter_mut()
            .zip(vectors.chunks_mut(words.max(1)))
            .skip(skipped);
        for (edges, (start, vector)) in cuts().zip(places) {
            for edge in edges {
                *start = edge.at;
                if let Some(word) = current.get_mut(edge.rule / WORD) {
                    *word ^= bit(edge.rule);
                }
            }
            for (to, from) in vector.iter_mut().zip(current.iter()) {
                *to = *from;
            }
        }
        Ok(Some(Self {
            starts,
            vectors,
            words,
        }))
    }

    /// The rules that take this value.
    fn rules(&self, value: K) -> &[u64] {
        // The first piece begins with the least value.
        let piece = self
            .starts
            .partition_point(|&start| start <= value)
            .wrapping_sub(1);
        let begin = piece.wrapping_mul(self.words);
        let vector = self.vectors.get(begin..begin.wrapping_add(self.words));
        vector.unwrap_or_default()
    }
}

fn bit(rule: usize) -> u64 {
    1_u64.wrapping_shl(rule as u32)
}

/// The fields of rules of one IP version.
pub struct Index<A: Address, M: Allocate> {
    /// A bit vector for each hook and protocol.
    kinds: M::Vec<u64>,
    destinations: Option<Field<A::Number, M>>,
    sources: Option<Field<A::Number, M>>,
    ports: Option<Field<u16, M>>,
    /// Of names, as numbers whose first byte is the name's first letter.
    interfaces: Option<Field<u128, M>>,
    words: usize,
}

/// Hooks and protocols.
const KINDS: [(u8, Protocol); 4] = [
    (HOOK_PRE_ROUTING, Protocol::Tcp),
    (HOOK_PRE_ROUTING, Protocol::Udp),
    (HOOK_LOCAL_OUT, Protocol::Tcp),
    (HOOK_LOCAL_OUT, Protocol::Udp),
];

impl<A: Address, M: Allocate> Index<A, M> {
    /// For these rules.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(rules: &[Compiled<A>]) -> Result<Self, M::Error> {
        let words = rules.len().div_ceil(WORD);
        let mut kinds = M::repeated(0_u64, words.wrapping_mul(KINDS.len()))?;
        for ((hook, protocol), vector) in KINDS.into_iter().zip(kinds.chunks_mut(words.max(1))) {
            for (rules, word) in rules.chunks(WORD).zip(vector) {
                for (number, _) in (0..)
                    .zip(rules)
                    .filter(|(_, rule)| rule.is_for(hook, protocol))
                {
                    *word |= bit(number);
                }
            }
        }
        Ok(Self {
            kinds,
            destinations: Field::new(|| rules.iter().map(|rule| rule.destination.range()), words)?,
            sources: Field::new(|| rules.iter().map(|rule| rule.source.range()), words)?,
            ports: Field::new(|| rules.iter().map(Compiled::ports), words)?,
            interfaces: Field::new(|| rules.iter().map(Compiled::interfaces), words)?,
            words,
        })
    }

    /// The first rule that matches and is `accepted`, which is asked for its number. `interface` is asked at most once.
    #[inline(never)]
    pub fn find<T>(
        &self,
        hook: u8,
        tuple: &Tuple<A>,
        interface: impl FnOnce() -> Name,
        mut accepted: impl FnMut(usize) -> Option<T>,
    ) -> Option<T> {
        let kind = KINDS
            .iter()
            .position(|&kind| kind == (hook, tuple.protocol))?;
        let begin = kind.wrapping_mul(self.words);
        let kind = self.kinds.get(begin..begin.wrapping_add(self.words))?;
        // Of a field that no rule restricts, one is taken twice.
        fn of<K: Number, M: Allocate>(field: Option<&Field<K, M>>, value: K) -> Option<&[u64]> {
            field.map(|field| field.rules(value))
        }
        let destinations = of(self.destinations.as_ref(), tuple.destination().number());
        let sources = of(self.sources.as_ref(), tuple.source().number());
        let port = u16::from_be(tuple.ports.destination());
        let ports = of(self.ports.as_ref(), port);
        let interfaces = self.interfaces.as_ref();
        let interfaces = interfaces.map(|field| field.rules(u128::from_be_bytes(interface())));
        let words = kind
            .iter()
            .zip(destinations.unwrap_or(kind))
            .zip(sources.unwrap_or(kind))
            .zip(ports.unwrap_or(kind))
            .zip(interfaces.unwrap_or(kind))
            .map(|((((kind, destination), source), port), interface)| {
                kind & destination & source & port & interface
            });
        for (word, mut left) in words.enumerate() {
            while left != 0 {
                let number = word
                    .wrapping_mul(WORD)
                    .wrapping_add(left.trailing_zeros() as usize);
                if let Some(found) = accepted(number) {
                    return Some(found);
                }
                left &= left.wrapping_sub(1);
            }
        }
        None
    }
}
