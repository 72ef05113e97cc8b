// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which new connections are redirected, and which are left alone.

use super::super::bytes::{Reader, Writer};
use super::{Family, Invalid, Protocol, NAME_SIZE};

/// New connections of packets passing through (PRE_ROUTING).
pub const HOOK_PRE_ROUTING: u8 = 1 << 0;
/// New connections of the machine's own (LOCAL_OUT).
pub const HOOK_LOCAL_OUT: u8 = 1 << 1;

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// It goes to an upstream of the rule's group.
    Redirect = 1,
    /// It is left alone, and no further rule is asked.
    Bypass = 2,
}

impl Action {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Redirect),
            2 => Some(Self::Bypass),
            _ => None,
        }
    }
}

/// A rule for new connections. It matches those for which all of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// IP version.
    pub family: Family,
    /// Transport protocol; `None`, encoded as 0, is any.
    pub protocol: Option<Protocol>,
    /// Set of [`HOOK_PRE_ROUTING`] and [`HOOK_LOCAL_OUT`]; not empty.
    pub hooks: u8,
    /// What becomes of the connection.
    pub action: Action,
    /// Length of the prefix of `destination` that is compared, in bits.
    pub destination_prefix: u8,
    /// Length of the prefix of `source` that is compared, in bits.
    pub source_prefix: u8,
    /// The group of which an upstream is selected, by its place among the configuration's. Upstreams
    /// of the other IP version are never selected. Zero if nothing is redirected.
    pub group: u8,
    /// First destination port.
    pub port_first: u16,
    /// Last destination port, inclusive.
    pub port_last: u16,
    /// Destination address or network.
    pub destination: [u8; 16],
    /// Source address or network.
    pub source: [u8; 16],
    /// Name of the interface through which packets come in (PRE_ROUTING) or would go out
    /// (LOCAL_OUT), filled up with zeros; all zero is any.
    pub interface: [u8; NAME_SIZE],
}

impl Rule {
    /// Size in bytes: eleven of scalars, five reserved ones that must be zero, two addresses and
    /// a name.
    pub const SIZE: usize = 16 + 2 * 16 + NAME_SIZE;

    /// Reads and checks one rule, as far as it can be without the upstreams.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let rule = Self::read(&mut reader).ok_or(Invalid::Length)?;
        rule.filter(Self::is_valid).ok_or(Invalid::Rule)
    }

    // The outer `None` is a short buffer, the inner one a field without a meaning.
    fn read(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let family = Family::from_number(reader.u8()?);
        let protocol = match reader.u8()? {
            0 => Some(None),
            number => Protocol::from_number(number).map(Some),
        };
        let hooks = reader.u8()?;
        let action = Action::from_number(reader.u8()?);
        let destination_prefix = reader.u8()?;
        let source_prefix = reader.u8()?;
        let group = reader.u8()?;
        let gap = reader.u8()?;
        let port_first = reader.u16()?;
        let port_last = reader.u16()?;
        let reserved: [u8; 4] = reader.array()?;
        let destination = reader.array()?;
        let source = reader.array()?;
        let interface = reader.array()?;
        let (Some(family), Some(protocol), Some(action), 0, [0, 0, 0, 0]) =
            (family, protocol, action, gap, reserved)
        else {
            return Some(None);
        };
        Some(Some(Self {
            family,
            protocol,
            hooks,
            action,
            destination_prefix,
            source_prefix,
            group,
            port_first,
            port_last,
            destination,
            source,
            interface,
        }))
    }

    fn is_valid(&self) -> bool {
        self.hooks != 0
            && self.hooks & !(HOOK_PRE_ROUTING | HOOK_LOCAL_OUT) == 0
            && (self.action == Action::Redirect || self.group == 0)
            && self.destination_prefix <= self.family.bits()
            && self.source_prefix <= self.family.bits()
            && self.port_first <= self.port_last
            && self.family.has(&self.destination)
            && self.family.has(&self.source)
            && is_name(&self.interface)
    }

    /// The rule as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&[
            self.family as u8,
            self.protocol.map_or(0, |protocol| protocol as u8),
            self.hooks,
            self.action as u8,
            self.destination_prefix,
            self.source_prefix,
            self.group,
            0,
        ]);
        let _ = writer.put(&self.port_first.to_le_bytes());
        let _ = writer.put(&self.port_last.to_le_bytes());
        let _ = writer.put(&[0; 4]);
        let _ = writer.put(&self.destination);
        let _ = writer.put(&self.source);
        let _ = writer.put(&self.interface);
        out
    }
}

/// Whether a device can have the name, or it is empty: dev_valid_name() of net/core/dev.c.
pub fn is_name(bytes: &[u8; NAME_SIZE]) -> bool {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let name = parts.next().unwrap_or_default();
    // Without a zero there is no rest.
    let ends = parts
        .next()
        .is_some_and(|rest| rest.iter().all(|&byte| byte == 0));
    // isspace() of lib/ctype.c, which includes Latin-1's no-break space.
    let separates = |byte: &u8| matches!(byte, b'/' | b':' | b'\t'..=b'\r' | b' ' | 0xa0);
    ends && name != b"." && name != b".." && !name.iter().any(separates)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rule of IPv4.
    pub fn rule() -> Rule {
        let mut interface = [0; NAME_SIZE];
        interface[..4].copy_from_slice(b"eth0");
        Rule {
            family: Family::V4,
            protocol: Some(Protocol::Udp),
            hooks: HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
            action: Action::Redirect,
            destination_prefix: 24,
            source_prefix: 8,
            group: 0,
            port_first: 53,
            port_last: 54,
            destination: [192, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            source: [10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            interface,
        }
    }

    #[test]
    fn survives_encoding() {
        let any = Rule {
            protocol: None,
            action: Action::Bypass,
            interface: [0; NAME_SIZE],
            ..rule()
        };
        for rule in [rule(), any] {
            assert_eq!(Rule::decode(&rule.encode()), Ok(rule));
        }
    }

    #[test]
    fn fields_without_meaning_are_refused() {
        let good = rule().encode();
        for (what, offset, value) in [
            ("family", 0, 5),
            ("protocol", 1, 1),
            ("no hook", 2, 0),
            ("unknown hook", 2, 4),
            ("no action", 3, 0),
            ("unknown action", 3, 3),
            ("destination's prefix", 4, 33),
            ("source's prefix", 5, 33),
            ("reserved", 7, 1),
            ("last port before the first", 10, 52),
            ("reserved", 12, 1),
            ("reserved", 15, 1),
            ("tail of the destination", 20, 1),
            ("tail of the source", 47, 1),
            ("name with a slash", 49, b'/'),
            ("bytes after the name", 63, b'x'),
        ] {
            let mut bad = good;
            bad[offset] = value;
            assert_eq!(Rule::decode(&bad), Err(Invalid::Rule), "{what}");
        }
        let bypass = Rule {
            action: Action::Bypass,
            group: 1,
            ..rule()
        };
        assert_eq!(Rule::decode(&bypass.encode()), Err(Invalid::Rule));
    }

    #[test]
    fn names_are_those_of_devices() {
        let is = |name: &[u8]| {
            let mut bytes = [0; NAME_SIZE];
            bytes[..name.len()].copy_from_slice(name);
            is_name(&bytes)
        };
        for good in [
            &b""[..],
            b"lo",
            b"eth0.100",
            b"fifteen-letters",
            b"...",
            b"\xc3\xa9",
        ] {
            assert!(is(good), "{good:?}");
        }
        for bad in [
            &b"."[..],
            b"..",
            b"a b",
            b"a:b",
            b"a/b",
            b"a\n",
            b"a\0b",
            b"sixteen-letters!",
        ] {
            assert!(!is(bad), "{bad:?}");
        }
    }
}
