// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A context's whole configuration: a header, then upstreams, then rules.

use super::super::bytes::{Reader, Writer};
use super::{Invalid, Rule, Upstream, MAGIC, MAX_RULES, MAX_UPSTREAMS, VERSION};

/// How one of several upstreams is selected for a new connection. One that is marked failed is
/// passed over as long as there is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Selection {
    /// In turns.
    RoundRobin = 0,
    /// The one with the lowest priority value; of several, the first.
    Failover = 1,
    /// At random.
    Random = 2,
}

impl Selection {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::RoundRobin),
            1 => Some(Self::Failover),
            2 => Some(Self::Random),
            _ => None,
        }
    }
}

/// Precedes upstreams and rules in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigHeader {
    /// How many upstreams follow.
    pub upstreams: u8,
    /// How many rules follow the upstreams.
    pub rules: u16,
    /// How upstreams are selected.
    pub selection: Selection,
}

impl ConfigHeader {
    /// Size in bytes: ten of scalars, and six reserved ones that must be zero.
    pub const SIZE: usize = 16;
    /// Of a configuration without upstreams and rules, as a new context has it.
    pub const EMPTY: Self = Self {
        upstreams: 0,
        rules: 0,
        selection: Selection::RoundRobin,
    };

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32().ok_or(Invalid::Length)?;
        let version = reader.u16().ok_or(Invalid::Length)?;
        let rules = reader.u16().ok_or(Invalid::Length)?;
        let upstreams = reader.u8().ok_or(Invalid::Length)?;
        let selection = reader.u8().ok_or(Invalid::Length)?;
        let reserved: [u8; 6] = reader.array().ok_or(Invalid::Length)?;
        if magic != MAGIC {
            return Err(Invalid::Magic);
        }
        if version != VERSION {
            return Err(Invalid::Version);
        }
        if usize::from(rules) > MAX_RULES {
            return Err(Invalid::TooManyRules);
        }
        if usize::from(upstreams) > MAX_UPSTREAMS {
            return Err(Invalid::TooManyUpstreams);
        }
        if reserved != [0; 6] {
            return Err(Invalid::Header);
        }
        Ok(Self {
            upstreams,
            rules,
            selection: Selection::from_number(selection).ok_or(Invalid::Header)?,
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&MAGIC.to_le_bytes());
        let _ = writer.put(&VERSION.to_le_bytes());
        let _ = writer.put(&self.rules.to_le_bytes());
        let _ = writer.put(&[self.upstreams, self.selection as u8]);
        let _ = writer.put(&[0; 6]);
        out
    }
}

/// A configuration in its encoded form, all records of which were checked.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// How upstreams are selected.
    pub selection: Selection,
    upstreams: &'a [u8],
    rules: &'a [u8],
}

impl<'a> Config<'a> {
    /// Size in bytes of a configuration of `upstreams` upstreams and `rules` rules.
    pub const fn size(upstreams: usize, rules: usize) -> usize {
        ConfigHeader::SIZE + upstreams * Upstream::SIZE + rules * Rule::SIZE
    }

    /// Checks a whole configuration.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Invalid> {
        let header = ConfigHeader::decode(bytes)?;
        let (upstreams, rules) = (header.upstreams.into(), header.rules.into());
        if bytes.len() != Self::size(upstreams, rules) {
            return Err(Invalid::Length);
        }
        let records = bytes.get(ConfigHeader::SIZE..).unwrap_or_default();
        let (upstreams, rules) = records
            .split_at_checked(upstreams * Upstream::SIZE)
            .ok_or(Invalid::Length)?;
        let config = Self {
            selection: header.selection,
            upstreams,
            rules,
        };
        for bytes in upstreams.chunks_exact(Upstream::SIZE) {
            Upstream::decode(bytes)?;
        }
        for bytes in rules.chunks_exact(Rule::SIZE) {
            config.check(&Rule::decode(bytes)?)?;
        }
        Ok(config)
    }

    // A rule may name only upstreams that exist, and must name one of its IP version if it redirects.
    fn check(&self, rule: &Rule) -> Result<(), Invalid> {
        let count = self.upstreams().count() as u32;
        let unknown = u16::from(rule.upstreams) >> count;
        let usable = rule.upstreams == 0 || self.upstreams_of(rule).next().is_some();
        if unknown == 0 && usable {
            Ok(())
        } else {
            Err(Invalid::Rule)
        }
    }

    /// The upstreams in their order.
    pub fn upstreams(&self) -> impl Iterator<Item = Upstream> + 'a {
        let records = self.upstreams.chunks_exact(Upstream::SIZE);
        records.filter_map(|bytes| Upstream::decode(bytes).ok())
    }

    /// The rules in their order.
    pub fn rules(&self) -> impl Iterator<Item = Rule> + 'a {
        let records = self.rules.chunks_exact(Rule::SIZE);
        records.filter_map(|bytes| Rule::decode(bytes).ok())
    }

    /// The upstreams of which one is selected for connections that `rule` redirects.
    pub fn upstreams_of(&self, rule: &Rule) -> impl Iterator<Item = Upstream> + 'a {
        let (set, family) = (rule.upstreams, rule.family);
        self.upstreams()
            .enumerate()
            .filter(move |(at, upstream)| upstream.family == family && set >> at & 1 != 0)
            .map(|(_, upstream)| upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::tests::rule;
    use super::super::upstream::tests::upstream;
    use super::super::{Action, Family, Protocol, NAME_SIZE};
    use super::*;
    use proptest::prelude::*;

    fn encode(selection: Selection, upstreams: &[Upstream], rules: &[Rule]) -> Vec<u8> {
        let header = ConfigHeader {
            upstreams: upstreams.len() as u8,
            rules: rules.len() as u16,
            selection,
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend(upstreams.iter().flat_map(Upstream::encode));
        bytes.extend(rules.iter().flat_map(Rule::encode));
        bytes
    }

    fn good() -> Vec<u8> {
        let rules = [
            rule(),
            Rule {
                upstreams: 2,
                ..rule()
            },
        ];
        encode(Selection::Failover, &[upstream(); 2], &rules)
    }

    fn refused(bytes: &[u8]) -> Option<Invalid> {
        Config::decode(bytes).err()
    }

    fn any_family() -> impl Strategy<Value = Family> {
        prop_oneof![Just(Family::V4), Just(Family::V6)]
    }

    fn address(family: Family, bytes: [u8; 16]) -> [u8; 16] {
        let length = usize::from(family.bits() / 8);
        core::array::from_fn(|at| if at < length { bytes[at] } else { 0 })
    }

    fn any_upstream() -> impl Strategy<Value = Upstream> {
        (any_family(), any::<u8>(), any::<u16>(), any::<[u8; 16]>()).prop_map(
            |(family, priority, port, [first, rest @ ..])| {
                let mut bytes = [first | 1; 16];
                bytes[1..].copy_from_slice(&rest);
                Upstream {
                    family,
                    priority,
                    port,
                    address: address(family, bytes),
                }
            },
        )
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let protocol = prop_oneof![
            Just(None),
            Just(Some(Protocol::Tcp)),
            Just(Some(Protocol::Udp))
        ];
        let numbers = (1_u8..4, any::<[u8; 2]>(), any::<u8>(), any::<[u16; 2]>());
        let bytes = (any::<[[u8; 16]; 2]>(), "[a-z0-9.-]{3,15}|");
        (any_family(), protocol, numbers, bytes).prop_map(
            |(family, protocol, (hooks, prefixes, upstreams, ports), (addresses, name))| {
                let mut interface = [0; NAME_SIZE];
                interface[..name.len()].copy_from_slice(name.as_bytes());
                Rule {
                    family,
                    protocol,
                    hooks,
                    action: if upstreams == 0 {
                        Action::Bypass
                    } else {
                        Action::Redirect
                    },
                    destination_prefix: prefixes[0] % (family.bits() + 1),
                    source_prefix: prefixes[1] % (family.bits() + 1),
                    upstreams,
                    port_first: ports[0].min(ports[1]),
                    port_last: ports[0].max(ports[1]),
                    destination: address(family, addresses[0]),
                    source: address(family, addresses[1]),
                    interface,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn survives_encoding(
            upstreams in prop::collection::vec(any_upstream(), 0..=MAX_UPSTREAMS),
            rules in prop::collection::vec(any_rule(), 0..=MAX_RULES),
            selection in prop_oneof![
                Just(Selection::RoundRobin), Just(Selection::Failover), Just(Selection::Random)
            ],
        ) {
            let usable = |rule: &Rule| {
                let mut named = upstreams.iter().enumerate().filter(|(at, _)| rule.upstreams >> at & 1 != 0);
                usize::from(rule.upstreams) < 1 << upstreams.len()
                    && (rule.action == Action::Bypass || named.any(|(_, to)| to.family == rule.family))
            };
            let bytes = encode(selection, &upstreams, &rules);
            let good = rules.iter().all(usable);
            prop_assert_eq!(refused(&bytes), (!good).then_some(Invalid::Rule));
            let rules: Vec<_> = rules.into_iter().filter(usable).collect();
            let bytes = encode(selection, &upstreams, &rules);
            let config = Config::decode(&bytes).unwrap();
            prop_assert_eq!(config.selection, selection);
            prop_assert_eq!(config.upstreams().collect::<Vec<_>>(), upstreams);
            prop_assert_eq!(config.rules().collect::<Vec<_>>(), rules);
        }

        // Every byte means something: changed, the configuration is another one or none.
        #[test]
        fn no_byte_is_overlooked(at in 0..Config::size(2, 2), change in 1_u8..) {
            let (before, mut bytes) = (good(), good());
            bytes[at] ^= change;
            let Ok(config) = Config::decode(&bytes) else {
                return Ok(());
            };
            let rules: Vec<_> = config.rules().collect();
            let upstreams: Vec<_> = config.upstreams().collect();
            prop_assert_eq!(encode(config.selection, &upstreams, &rules), bytes.clone());
            prop_assert_ne!(bytes, before);
        }

        #[test]
        fn any_bytes_are_read(mut bytes in prop::collection::vec(any::<u8>(), 0..500), valid: bool) {
            if valid && bytes.len() >= ConfigHeader::SIZE {
                bytes[..6].copy_from_slice(&ConfigHeader::EMPTY.encode()[..6]);
            }
            let _ = Config::decode(&bytes);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let bytes = good();
        for length in 0..bytes.len() {
            assert_eq!(
                refused(&bytes[..length]),
                Some(Invalid::Length),
                "length {length}"
            );
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(refused(&longer), Some(Invalid::Length));
    }

    #[test]
    fn headers_without_meaning_are_refused() {
        for (offset, value, expected) in [
            (0, 0, Invalid::Magic),
            (4, 1, Invalid::Version),
            (6, 65, Invalid::TooManyRules),
            (8, 9, Invalid::TooManyUpstreams),
            (9, 3, Invalid::Header),
            (10, 1, Invalid::Header),
            (15, 1, Invalid::Header),
        ] {
            let mut bad = good();
            bad[offset] = value;
            assert_eq!(refused(&bad), Some(expected), "offset {offset}");
        }
    }

    #[test]
    fn a_rule_names_upstreams_that_there_are() {
        let six = Upstream {
            family: Family::V6,
            ..upstream()
        };
        let with = |set: u8, upstreams: &[Upstream]| {
            let rule = Rule {
                upstreams: set,
                ..rule()
            };
            refused(&encode(Selection::Random, upstreams, &[rule]))
        };
        assert_eq!(with(0b01, &[upstream(), six]), None);
        assert_eq!(with(0b11, &[upstream(), six]), None);
        assert_eq!(with(0b10, &[upstream(), six]), Some(Invalid::Rule));
        assert_eq!(with(0b101, &[upstream(), six]), Some(Invalid::Rule));
        assert_eq!(with(0xff, &[upstream(); MAX_UPSTREAMS]), None);
        assert_eq!(with(1, &[]), Some(Invalid::Rule));
    }

    #[test]
    fn sizes_are_those_of_the_interface() {
        assert_eq!(Rule::SIZE, 64);
        assert_eq!(Config::size(MAX_UPSTREAMS, MAX_RULES), 4304);
    }
}
