// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a rule asks of a connection beyond where it goes: who began it, what its packets are marked with, and which sets its addresses,
//! ports and interface are in.

use super::NAME_SIZE;

/// What a condition is about. All but the first four fields are those of the connection's first packet and of the socket that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Field {
    /// The address that the first packet comes from.
    Source = 0,
    /// The address that it goes to.
    Destination = 1,
    /// The port that it comes from.
    SourcePort = 2,
    /// The port that it goes to.
    DestinationPort = 3,
    /// The interface through which it comes in; of the machine's own, through which it would go out.
    Interface = 4,
    /// Its mark (`SO_MARK`, `meta mark`).
    Mark = 5,
    /// Its differentiated services code point, RFC 2474: 0 to 63.
    Dscp = 6,
    /// The user of the socket (`sk_uid`), as the user namespace of the network namespace numbers it.
    User = 7,
    /// The group of who opened the socket, numbered likewise.
    Group = 8,
    /// A control group of version 2 that the socket is in, or one below it: its inode number in cgroup2's file system.
    ControlGroup = 9,
    /// The process that connects, or one that it descends from: the inode number of its pidfd, which no other process ever has.
    Process = 10,
    /// The name of the process that connects (`/proc/PID/comm`).
    Program = 11,
}

/// What numbers or names of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ValueKind {
    /// Addresses, of either IP version.
    Addresses = 0,
    /// Numbers.
    Numbers = 1,
    /// Names of up to 15 bytes.
    Names = 2,
}

impl ValueKind {
    /// From its number in a message.
    pub fn from_number(number: u32) -> Option<Self> {
        let mut all = [Self::Addresses, Self::Numbers, Self::Names].into_iter();
        all.find(|kind| *kind as u32 == number)
    }
}

impl Field {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Source,
        Self::Destination,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Interface,
        Self::Mark,
        Self::Dscp,
        Self::User,
        Self::Group,
        Self::ControlGroup,
        Self::Process,
        Self::Program,
    ];

    /// From its number in a message.
    pub fn from_number(number: u32) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|field| *field as u32 == number)
    }

    /// What its values are.
    pub const fn kind(self) -> ValueKind {
        match self {
            Self::Source | Self::Destination => ValueKind::Addresses,
            Self::Interface | Self::Program => ValueKind::Names,
            _ => ValueKind::Numbers,
        }
    }

    /// The greatest number it can have; zero if its values are no numbers.
    pub const fn greatest(self) -> u64 {
        match self {
            Self::SourcePort | Self::DestinationPort => u16::MAX as u64,
            Self::Dscp => 63,
            Self::Mark | Self::User | Self::Group => u32::MAX as u64,
            Self::ControlGroup | Self::Process => u64::MAX,
            Self::Source | Self::Destination | Self::Interface | Self::Program => 0,
        }
    }

    /// Whether only connections of the machine's own have it.
    pub const fn is_local(self) -> bool {
        matches!(
            self,
            Self::User | Self::Group | Self::ControlGroup | Self::Process | Self::Program
        )
    }
}

/// Values of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// The numbers from the first to the last.
    Range {
        /// The first.
        first: u64,
        /// The last, not less than the first.
        last: u64,
    },
    /// One name, filled up with zeros.
    Name([u8; NAME_SIZE]),
    /// What is in a set of the context's, by its number.
    Set(u16),
}

/// A rule's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub field: Field,
    /// Whether the field must be of another value than these. What is not known, such as the user of a connection that is
    /// forwarded, is neither of these values nor of others.
    pub not: bool,
    /// Of a mark: the bits that count. All of another field.
    pub mask: u32,
    /// The values.
    pub values: Values,
}

/// The most conditions that a rule can have.
pub const MAX_CONDITIONS: usize = 8;

/// A rule's conditions, all of which must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions([Option<Condition>; MAX_CONDITIONS]);

impl Conditions {
    /// None, which always hold.
    pub const NONE: Self = Self([None; MAX_CONDITIONS]);

    /// Adds one; `false` if there is no room.
    #[must_use]
    pub fn push(&mut self, condition: Condition) -> bool {
        let free = self.0.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(condition)).is_some()
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Condition> + '_ {
        self.0.iter().map_while(|place| *place)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (number, field) in (0..).zip(Field::ALL) {
            assert_eq!(field as u32, number);
            assert_eq!(Field::from_number(number), Some(field));
        }
        assert_eq!(Field::from_number(Field::ALL.len() as u32), None);
        for number in 0..3 {
            assert_eq!(ValueKind::from_number(number).unwrap() as u32, number);
        }
        assert_eq!(ValueKind::from_number(3), None);
    }

    #[test]
    fn a_rule_takes_so_many_and_no_more() {
        let one = |last| Condition {
            field: Field::User,
            not: false,
            mask: u32::MAX,
            values: Values::Range { first: 0, last },
        };
        let mut all = Conditions::NONE;
        assert!(all.is_empty());
        for last in 0..MAX_CONDITIONS as u64 {
            assert!(all.push(one(last)));
        }
        assert!(!all.push(one(99)));
        assert!(all.iter().eq((0..MAX_CONDITIONS as u64).map(one)));
    }
}
