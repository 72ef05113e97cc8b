// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which new connections are redirected, and which are left alone.

use super::{Conditions, Family, Label, Protocol, NAME_SIZE};

/// New connections of packets passing through (PRE_ROUTING).
pub const HOOK_PRE_ROUTING: u8 = 1 << 0;
/// New connections of the machine's own (LOCAL_OUT).
pub const HOOK_LOCAL_OUT: u8 = 1 << 1;

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// It goes to an upstream of the rule's group.
    Redirect = 0,
    /// It goes where it goes, and no further rule is asked.
    Direct = 1,
    /// Its packets are dropped.
    Drop = 2,
    /// Its packets are dropped, and their sender is told: by a TCP reset (RFC 9293), or that the port is unreachable (RFC 792, RFC 4443).
    Reject = 3,
}

impl Action {
    /// From its number in a message.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Redirect),
            1 => Some(Self::Direct),
            2 => Some(Self::Drop),
            3 => Some(Self::Reject),
            _ => None,
        }
    }
}

/// A rule for new connections. It matches those for which all of it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What people call it.
    pub label: Label,
    /// IP version.
    pub family: Family,
    /// Transport protocol; `None` is any.
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
    /// What else must hold.
    pub conditions: Conditions,
}

impl Rule {
    /// For all connections of an IP version, which go where they go.
    pub const fn any(family: Family) -> Self {
        Self {
            label: Label::NONE,
            family,
            protocol: None,
            hooks: HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
            action: Action::Direct,
            destination_prefix: 0,
            source_prefix: 0,
            group: 0,
            port_first: 0,
            port_last: u16::MAX,
            destination: [0; 16],
            source: [0; 16],
            interface: [0; NAME_SIZE],
            conditions: Conditions::NONE,
        }
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
mod tests {
    use super::*;

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
