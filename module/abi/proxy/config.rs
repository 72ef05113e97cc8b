// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A context's whole configuration: a header, then groups, upstreams and rules.

use super::super::bytes::{Reader, Writer};
use super::{
    Action, Family, Invalid, Rule, Upstream, MAGIC, MAX_GROUPS, MAX_MEMBERS, MAX_RULES,
    MAX_UPSTREAMS, VERSION,
};

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
    /// From the number in the record.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::RoundRobin),
            1 => Some(Self::Failover),
            2 => Some(Self::Random),
            _ => None,
        }
    }
}

/// Upstreams of which a new connection goes to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// To which.
    pub selection: Selection,
}

impl Group {
    /// Size in bytes: one, and three reserved ones that must be zero.
    pub const SIZE: usize = 4;

    /// Reads and checks one group.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let [selection, reserved @ ..]: [u8; Self::SIZE] = reader.array().ok_or(Invalid::Length)?;
        match Selection::from_number(selection) {
            Some(selection) if reserved == [0; 3] => Ok(Self { selection }),
            _ => Err(Invalid::Group),
        }
    }

    /// The group as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        [self.selection as u8, 0, 0, 0]
    }
}

/// Precedes groups, upstreams and rules in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigHeader {
    /// How many groups follow.
    pub groups: u16,
    /// How many upstreams follow the groups.
    pub upstreams: u16,
    /// How many rules follow the upstreams.
    pub rules: u16,
}

impl ConfigHeader {
    /// Size in bytes: twelve of scalars, and four reserved ones that must be zero.
    pub const SIZE: usize = 16;
    /// Of a configuration without anything, as a new context has it.
    pub const EMPTY: Self = Self {
        groups: 0,
        upstreams: 0,
        rules: 0,
    };

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32().ok_or(Invalid::Length)?;
        let version = reader.u16().ok_or(Invalid::Length)?;
        let groups = reader.u16().ok_or(Invalid::Length)?;
        let upstreams = reader.u16().ok_or(Invalid::Length)?;
        let rules = reader.u16().ok_or(Invalid::Length)?;
        let reserved: [u8; 4] = reader.array().ok_or(Invalid::Length)?;
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
        if usize::from(groups) > MAX_GROUPS {
            return Err(Invalid::TooManyGroups);
        }
        if reserved != [0; 4] {
            return Err(Invalid::Header);
        }
        Ok(Self {
            groups,
            upstreams,
            rules,
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&MAGIC.to_le_bytes());
        let _ = writer.put(&VERSION.to_le_bytes());
        let _ = writer.put(&self.groups.to_le_bytes());
        let _ = writer.put(&self.upstreams.to_le_bytes());
        let _ = writer.put(&self.rules.to_le_bytes());
        let _ = writer.put(&[0; 4]);
        out
    }
}

/// A configuration in its encoded form, all records of which were checked.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    groups: &'a [u8],
    upstreams: &'a [u8],
    rules: &'a [u8],
}

/// How many members of each IP version each group has.
struct Members([[u16; MAX_GROUPS]; 2]);

impl Members {
    // None if there cannot be such a group, in which case it has none.
    fn of(&mut self, group: u8, family: Family) -> Option<&mut u16> {
        self.0[usize::from(family == Family::V6)].get_mut(usize::from(group))
    }

    fn both(&mut self, group: u8) -> u16 {
        let [four, six] = [Family::V4, Family::V6].map(|family| self.of(group, family).copied());
        four.unwrap_or_default()
            .saturating_add(six.unwrap_or_default())
    }
}

impl<'a> Config<'a> {
    /// Size in bytes of a configuration of `groups` groups, `upstreams` upstreams and `rules` rules.
    pub const fn size(groups: usize, upstreams: usize, rules: usize) -> usize {
        ConfigHeader::SIZE + groups * Group::SIZE + upstreams * Upstream::SIZE + rules * Rule::SIZE
    }

    /// Checks a whole configuration.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Invalid> {
        let header = ConfigHeader::decode(bytes)?;
        let groups = usize::from(header.groups);
        let (upstreams, rules) = (header.upstreams.into(), header.rules.into());
        if bytes.len() != Self::size(groups, upstreams, rules) {
            return Err(Invalid::Length);
        }
        let records = bytes.get(ConfigHeader::SIZE..).unwrap_or_default();
        let split = |records: &'a [u8], length| {
            let split = records.split_at_checked(length);
            split.ok_or(Invalid::Length)
        };
        let (groups, records) = split(records, groups * Group::SIZE)?;
        let (upstreams, rules) = split(records, upstreams * Upstream::SIZE)?;
        let config = Self {
            groups,
            upstreams,
            rules,
        };
        for bytes in groups.chunks_exact(Group::SIZE) {
            Group::decode(bytes)?;
        }
        let mut members = Members([[0; MAX_GROUPS]; 2]);
        for bytes in upstreams.chunks_exact(Upstream::SIZE) {
            let upstream = Upstream::decode(bytes)?;
            let group = upstream.group;
            if u16::from(group) >= header.groups {
                return Err(Invalid::Upstream);
            }
            let count = members.of(group, upstream.family);
            let count = count.ok_or(Invalid::Upstream)?;
            *count = count.saturating_add(1);
            if usize::from(members.both(group)) > MAX_MEMBERS {
                return Err(Invalid::TooManyUpstreams);
            }
        }
        for bytes in rules.chunks_exact(Rule::SIZE) {
            let rule = Rule::decode(bytes)?;
            let there = members.of(rule.group, rule.family);
            if rule.action == Action::Redirect && there.is_none_or(|count| *count == 0) {
                return Err(Invalid::Rule);
            }
        }
        Ok(config)
    }

    /// The groups in their order.
    pub fn groups(&self) -> impl Iterator<Item = Group> + 'a {
        let records = self.groups.chunks_exact(Group::SIZE);
        records.filter_map(|bytes| Group::decode(bytes).ok())
    }

    /// The upstreams in their order.
    pub fn upstreams(&self) -> impl Iterator<Item = Upstream> + 'a {
        let records = self.upstreams.chunks_exact(Upstream::SIZE);
        records.filter_map(|bytes| Upstream::decode(bytes).ok())
    }

    /// The groups with their upstreams, of either IP version, in their order.
    pub fn members(
        &self,
    ) -> impl Iterator<Item = (Group, impl Iterator<Item = Upstream> + 'a)> + 'a {
        let config = *self;
        self.groups().enumerate().map(move |(number, group)| {
            let upstreams = config.upstreams();
            let members = upstreams.filter(move |upstream| usize::from(upstream.group) == number);
            (group, members)
        })
    }

    /// The rules in their order.
    pub fn rules(&self) -> impl Iterator<Item = Rule> + 'a {
        let records = self.rules.chunks_exact(Rule::SIZE);
        records.filter_map(|bytes| Rule::decode(bytes).ok())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::rule::tests::rule;
    use super::super::upstream::tests::upstream;
    use super::super::{Protocol, NAME_SIZE};
    use super::*;
    use proptest::prelude::*;

    fn encode(groups: &[Selection], upstreams: &[Upstream], rules: &[Rule]) -> Vec<u8> {
        let header = ConfigHeader {
            groups: groups.len() as u16,
            upstreams: upstreams.len() as u16,
            rules: rules.len() as u16,
        };
        let mut bytes = header.encode().to_vec();
        let groups = groups.iter().map(|&selection| Group { selection });
        bytes.extend(groups.flat_map(|group| group.encode()));
        bytes.extend(upstreams.iter().flat_map(Upstream::encode));
        bytes.extend(rules.iter().flat_map(Rule::encode));
        bytes
    }

    fn good() -> Vec<u8> {
        let second = Upstream {
            group: 1,
            ..upstream()
        };
        let rules = [rule(), Rule { group: 1, ..rule() }];
        let groups = [Selection::Failover, Selection::Random];
        encode(&groups, &[upstream(), second], &rules)
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

    pub(crate) fn any_upstream() -> impl Strategy<Value = Upstream> {
        let numbers = (any::<u8>(), any::<u16>(), 0_u8..5);
        (any_family(), numbers, any::<[u8; 16]>()).prop_map(
            |(family, (priority, port, group), [first, rest @ ..])| {
                let mut bytes = [first | 1; 16];
                bytes[1..].copy_from_slice(&rest);
                Upstream {
                    family,
                    priority,
                    port,
                    group,
                    address: address(family, bytes),
                }
            },
        )
    }

    pub(crate) fn any_selection() -> impl Strategy<Value = Selection> {
        prop_oneof![
            Just(Selection::RoundRobin),
            Just(Selection::Failover),
            Just(Selection::Random)
        ]
    }

    pub(crate) fn any_rule() -> impl Strategy<Value = Rule> {
        let protocol = prop_oneof![
            Just(None),
            Just(Some(Protocol::Tcp)),
            Just(Some(Protocol::Udp))
        ];
        let numbers = (
            1_u8..4,
            any::<[u8; 2]>(),
            prop::option::of(0_u8..5),
            any::<[u16; 2]>(),
        );
        let bytes = (any::<[[u8; 16]; 2]>(), "[a-z0-9.-]{3,15}|");
        (any_family(), protocol, numbers, bytes).prop_map(
            |(family, protocol, (hooks, prefixes, group, ports), (addresses, name))| {
                let mut interface = [0; NAME_SIZE];
                interface[..name.len()].copy_from_slice(name.as_bytes());
                Rule {
                    family,
                    protocol,
                    hooks,
                    action: match group {
                        None => Action::Bypass,
                        Some(_) => Action::Redirect,
                    },
                    destination_prefix: prefixes[0] % (family.bits() + 1),
                    source_prefix: prefixes[1] % (family.bits() + 1),
                    group: group.unwrap_or_default(),
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
            groups in prop::collection::vec(any_selection(), 0..5),
            upstreams in prop::collection::vec(any_upstream(), 0..20),
            rules in prop::collection::vec(any_rule(), 0..20),
        ) {
            let count = groups.len();
            let there = |one: &Upstream| usize::from(one.group) < count;
            let bytes = encode(&groups, &upstreams, &[]);
            let good = upstreams.iter().all(there);
            prop_assert_eq!(refused(&bytes), (!good).then_some(Invalid::Upstream));
            let upstreams: Vec<_> = upstreams.into_iter().filter(there).collect();
            let usable = |rule: &Rule| {
                let serves = |to: &Upstream| to.group == rule.group && to.family == rule.family;
                rule.action == Action::Bypass || upstreams.iter().any(serves)
            };
            let bytes = encode(&groups, &upstreams, &rules);
            let good = rules.iter().all(usable);
            prop_assert_eq!(refused(&bytes), (!good).then_some(Invalid::Rule));
            let rules: Vec<_> = rules.into_iter().filter(usable).collect();
            let bytes = encode(&groups, &upstreams, &rules);
            let config = Config::decode(&bytes).unwrap();
            let selections = config.groups().map(|group| group.selection);
            prop_assert_eq!(selections.collect::<Vec<_>>(), groups);
            for (number, (_, members)) in config.members().enumerate() {
                let own = |one: &&Upstream| usize::from(one.group) == number;
                let own: Vec<_> = upstreams.iter().filter(own).copied().collect();
                prop_assert_eq!(members.collect::<Vec<_>>(), own);
            }
            prop_assert_eq!(config.upstreams().collect::<Vec<_>>(), upstreams);
            prop_assert_eq!(config.rules().collect::<Vec<_>>(), rules);
        }

        // Every byte means something: changed, the configuration is another one or none.
        #[test]
        fn no_byte_is_overlooked(at in 0..Config::size(2, 2, 2), change in 1_u8..) {
            let (before, mut bytes) = (good(), good());
            bytes[at] ^= change;
            let Ok(config) = Config::decode(&bytes) else {
                return Ok(());
            };
            let rules: Vec<_> = config.rules().collect();
            let upstreams: Vec<_> = config.upstreams().collect();
            let groups: Vec<_> = config.groups().map(|group| group.selection).collect();
            prop_assert_eq!(encode(&groups, &upstreams, &rules), bytes.clone());
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
            (7, 2, Invalid::TooManyGroups),
            (9, 17, Invalid::TooManyUpstreams),
            (11, 17, Invalid::TooManyRules),
            (12, 1, Invalid::Header),
            (15, 1, Invalid::Header),
            (16, 3, Invalid::Group),
            (19, 1, Invalid::Group),
        ] {
            let mut bad = good();
            bad[offset] = value;
            assert_eq!(refused(&bad), Some(expected), "offset {offset}");
        }
    }

    #[test]
    fn a_rule_names_a_group_with_an_upstream_of_its_version() {
        let six = Upstream {
            family: Family::V6,
            group: 1,
            ..upstream()
        };
        let with = |group: u8, upstreams: &[Upstream]| {
            let rule = Rule { group, ..rule() };
            refused(&encode(&[Selection::Random; 3], upstreams, &[rule]))
        };
        assert_eq!(with(0, &[upstream(), six]), None);
        for group in [1, 2, 3, u8::MAX] {
            let refused = with(group, &[upstream(), six]);
            assert_eq!(refused, Some(Invalid::Rule), "group {group}");
        }
    }

    #[test]
    fn a_group_has_no_more_members_than_have_numbers() {
        let with = |count| {
            let upstreams = vec![upstream(); count];
            refused(&encode(&[Selection::Random], &upstreams, &[rule()]))
        };
        assert_eq!(with(MAX_MEMBERS), None);
        assert_eq!(with(MAX_MEMBERS + 1), Some(Invalid::TooManyUpstreams));
    }

    #[test]
    fn sizes_are_those_of_the_interface() {
        assert_eq!(Rule::SIZE, 64);
        assert_eq!(Config::size(MAX_GROUPS, MAX_UPSTREAMS, MAX_RULES), 361_488);
    }
}
