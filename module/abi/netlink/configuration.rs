// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Groups of upstreams, and rules, as attributes: see `mutex_proxy.yaml`.

use core::ffi::CStr;
use core::num::NonZeroU8;

use super::super::proxy::rule::is_name;
use super::super::proxy::{
    Action, Conditions, Family, Group, Label, Protocol, Rule, Selection, Upstream, HOOK_LOCAL_OUT,
    HOOK_PRE_ROUTING, NAME_SIZE,
};
use super::attribute::{Attribute, Attributes, NoRoom, Writer};
use super::condition::{read_condition, write_condition};
use super::message::{kind, UNKNOWN};
use super::refusal::Refusal;

/// Types of the attributes of a group.
mod group {
    pub(super) const SELECTION: u16 = 1;
    pub(super) const UPSTREAM: u16 = 2;
    pub(super) const LABEL: u16 = 3;
}

/// Types of the attributes of an upstream.
mod upstream {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const PRIORITY: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
}

/// Types of the attributes of a rule.
pub(super) mod rule {
    pub(in super::super) const IP_VERSION: u16 = 1;
    pub(in super::super) const PROTOCOL: u16 = 2;
    pub(in super::super) const DIRECTIONS: u16 = 3;
    pub(in super::super) const SOURCE: u16 = 4;
    pub(in super::super) const DESTINATION: u16 = 5;
    pub(in super::super) const DESTINATION_PORTS: u16 = 6;
    pub(in super::super) const INTERFACE: u16 = 7;
    pub(in super::super) const ACTION: u16 = 8;
    pub(in super::super) const GROUP: u16 = 9;
    pub(in super::super) const LABEL: u16 = 10;
    pub(in super::super) const CONDITION: u16 = 11;
}

/// Types of the attributes of a network.
mod network {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PREFIX_LENGTH: u16 = 2;
}

/// Types of the attributes of a range of ports.
mod ports {
    pub(super) const FIRST: u16 = 1;
    pub(super) const LAST: u16 = 2;
}

// A number that has to be small.
pub(super) fn small<T: TryFrom<u32>>(
    attribute: &Attribute<'_>,
    message: &'static CStr,
) -> Result<T, Refusal> {
    let number = attribute.u32()?;
    T::try_from(number).map_err(|_| Refusal::of(attribute, message))
}

// An address, by its length.
pub(super) fn address(attribute: &Attribute<'_>) -> Result<(Family, [u8; 16]), Refusal> {
    let bytes = attribute.bytes()?;
    let mut address = [0; 16];
    let family = match bytes.len() {
        4 => Family::V4,
        16 => Family::V6,
        _ => return Err(Refusal::of(attribute, c"an address has 4 bytes, or 16")),
    };
    for (to, from) in address.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok((family, address))
}

pub(super) fn put_address(
    writer: &mut Writer<'_>,
    kind: u16,
    family: Family,
    address: &[u8; 16],
) -> Result<(), NoRoom> {
    let length = usize::from(family.bits() / 8);
    writer.bytes(kind, address.get(..length).unwrap_or(address))
}

pub(super) fn read_label(attribute: &Attribute<'_>) -> Result<Label, Refusal> {
    let message = c"a label is at most 31 bytes of UTF-8 without control characters";
    Label::new(attribute.string()?).ok_or(Refusal::of(attribute, message))
}

pub(super) fn put_label(writer: &mut Writer<'_>, kind: u16, label: &Label) -> Result<(), NoRoom> {
    match label.as_str() {
        "" => Ok(()),
        text => writer.string(kind, text.as_bytes()),
    }
}

// A name that is not empty, filled up with zeros.
pub(super) fn padded_name(
    attribute: &Attribute<'_>,
    message: &'static CStr,
) -> Result<[u8; NAME_SIZE], Refusal> {
    let name = attribute.string()?;
    let mut padded = [0; NAME_SIZE];
    for (to, from) in padded.iter_mut().zip(name) {
        *to = *from;
    }
    match (1..NAME_SIZE).contains(&name.len()) {
        true => Ok(padded),
        false => Err(Refusal::of(attribute, message)),
    }
}

/// Reads a group, and hands on each of its upstreams; `group` is its number.
///
/// # Errors
/// If an attribute is malformed or unknown, or has a value without a meaning.
pub fn read_group<E: From<Refusal>>(
    attribute: &Attribute<'_>,
    number: u8,
    mut upstreams: impl FnMut(Upstream) -> Result<(), E>,
) -> Result<Group, E> {
    let (mut selection, mut label) = (Selection::RoundRobin, Label::NONE);
    for inner in attribute.nested().map_err(Refusal::from)? {
        let inner = inner.map_err(Refusal::from)?;
        match inner.kind {
            group::SELECTION => {
                let number = small(&inner, UNKNOWN_SELECTION)?;
                let unknown = Refusal::of(&inner, UNKNOWN_SELECTION);
                selection = Selection::from_number(number).ok_or(unknown)?;
            }
            group::UPSTREAM => upstreams(read_upstream(&inner, number)?)?,
            group::LABEL => label = read_label(&inner)?,
            _ => return Err(Refusal::of(&inner, UNKNOWN).into()),
        }
    }
    Ok(Group { label, selection })
}

const UNKNOWN_SELECTION: &CStr =
    c"no such selection: round-robin (0), failover (1), random (2), source-hash (3)";

pub(super) fn read_upstream(attribute: &Attribute<'_>, group: u8) -> Result<Upstream, Refusal> {
    let (mut place, mut port, mut priority, mut weight) = (None, 0, 0, NonZeroU8::MIN);
    for inner in attribute.nested()? {
        let inner = inner?;
        match inner.kind {
            upstream::ADDRESS => {
                let (family, bytes) = address(&inner)?;
                if bytes == [0; 16] {
                    let message = c"an upstream cannot be at the unspecified address";
                    return Err(Refusal::of(&inner, message));
                }
                place = Some((family, bytes));
            }
            upstream::PORT => port = small(&inner, c"a port is at most 65535")?,
            upstream::PRIORITY => priority = small(&inner, c"a priority is at most 255")?,
            upstream::WEIGHT => {
                let message = c"a weight is from 1 to 255";
                let number = NonZeroU8::new(small(&inner, message)?);
                weight = number.ok_or(Refusal::of(&inner, message))?;
            }
            _ => return Err(Refusal::of(&inner, UNKNOWN)),
        }
    }
    let (family, address) = place.ok_or(Refusal::of(attribute, c"an upstream needs an address"))?;
    Ok(Upstream {
        family,
        priority,
        weight,
        port,
        group,
        address,
    })
}

/// Writes a group with its upstreams.
///
/// # Errors
/// If there is no room.
pub fn write_group(
    writer: &mut Writer<'_>,
    kind: u16,
    group: &Group,
    upstreams: impl Iterator<Item = Upstream>,
) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        put_label(writer, group::LABEL, &group.label)?;
        writer.u32(group::SELECTION, group.selection as u32)?;
        let mut upstreams = upstreams;
        upstreams.try_for_each(|one| put_upstream(writer, group::UPSTREAM, &one))
    })
}

fn put_upstream(writer: &mut Writer<'_>, kind: u16, one: &Upstream) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        put_address(writer, upstream::ADDRESS, one.family, &one.address)?;
        writer.u32(upstream::PORT, one.port.into())?;
        writer.u32(upstream::PRIORITY, one.priority.into())?;
        match one.weight {
            NonZeroU8::MIN => Ok(()),
            weight => writer.u32(upstream::WEIGHT, weight.get().into()),
        }
    })
}

// An upstream in a message of its own.
pub(super) fn write_upstream(writer: &mut Writer<'_>, upstream: &Upstream) -> Result<(), NoRoom> {
    writer.u32(kind::UPSTREAM_GROUP, upstream.group.into())?;
    put_upstream(writer, kind::UPSTREAM, upstream)
}

/// An upstream as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldUpstream {
    /// The upstream, with the number of its group.
    pub upstream: Upstream,
    /// How many new connections went there, since its context has these upstreams.
    pub connections: u64,
}

impl ToldUpstream {
    /// Writes it as a message of its own.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.u64(kind::CONNECTIONS, self.connections)?;
        write_upstream(writer, &self.upstream)
    }

    /// Reads it; other attributes are of a later version, and passed over.
    ///
    /// # Errors
    /// If an attribute is malformed or missing, or has a value without a meaning.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let (mut group, mut told, mut connections) = (0, None, 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::UPSTREAM_GROUP => group = small(&attribute, TOO_MANY)?,
                kind::CONNECTIONS => connections = attribute.uint()?,
                kind::UPSTREAM => told = Some(read_upstream(&attribute, 0)?),
                _ => {}
            }
        }
        let missing = Refusal {
            offset: 0,
            message: c"an upstream is needed",
        };
        let told = told.ok_or(missing)?;
        Ok(Self {
            upstream: Upstream { group, ..told },
            connections,
        })
    }
}

const TOO_MANY: &CStr = c"a group's number is at most 255";

/// Reads a rule. That its group is there is not its own matter.
///
/// # Errors
/// If an attribute is malformed, unknown or missing, has a value without a meaning, or contradicts another.
pub fn read_rule(attribute: &Attribute<'_>) -> Result<Rule, Refusal> {
    let mut read = Reading::default();
    for inner in attribute.nested()? {
        read.take(&inner?)?;
    }
    read.finish(attribute)
}

/// A rule as far as it was read.
#[derive(Default)]
pub(super) struct Reading {
    label: Label,
    pub(super) family: Option<Family>,
    pub(super) protocol: Option<Protocol>,
    directions: Option<u8>,
    pub(super) source: ([u8; 16], u8),
    pub(super) destination: ([u8; 16], u8),
    pub(super) ports: Option<(u16, u16)>,
    interface: [u8; NAME_SIZE],
    action: Option<Action>,
    group: Option<u8>,
    conditions: Conditions,
}

impl Reading {
    fn take(&mut self, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        self.take_as(attribute.kind, attribute)
    }

    /// Takes an attribute as a rule's of type `kind`.
    pub(super) fn take_as(&mut self, kind: u16, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        let refused = |message| Refusal::of(attribute, message);
        match kind {
            rule::IP_VERSION => {
                let message = c"an IP version is 4 or 6";
                let family = Family::from_number(small(attribute, message)?);
                self.be_of(family.ok_or(refused(message))?, attribute)?;
            }
            rule::PROTOCOL => {
                let message = c"a protocol is 6 (TCP) or 17 (UDP)";
                let protocol = Protocol::from_number(small(attribute, message)?);
                self.protocol = Some(protocol.ok_or(refused(message))?);
            }
            rule::DIRECTIONS => {
                let message = c"directions are a sum of forwarded (1) and local (2)";
                self.directions = match small(attribute, message)? {
                    all @ 1..=3_u8 => Some(all),
                    _ => return Err(refused(message)),
                };
            }
            rule::SOURCE => self.source = self.network(attribute)?,
            rule::DESTINATION => self.destination = self.network(attribute)?,
            rule::DESTINATION_PORTS => self.ports = Some(read_ports(attribute)?),
            rule::INTERFACE => {
                let message = c"no interface can have this name";
                let name = padded_name(attribute, message)?;
                if !is_name(&name) {
                    return Err(refused(message));
                }
                self.interface = name;
            }
            rule::ACTION => {
                let message = c"no such action: redirect (0), direct (1), drop (2), reject (3)";
                let action = Action::from_number(attribute.u32()?);
                self.action = Some(action.ok_or(refused(message))?);
            }
            rule::LABEL => self.label = read_label(attribute)?,
            rule::GROUP => self.group = Some(small(attribute, TOO_MANY)?),
            rule::CONDITION => {
                if !self.conditions.push(read_condition(attribute)?) {
                    return Err(refused(c"a rule has 8 conditions at most"));
                }
            }
            _ => return Err(refused(UNKNOWN)),
        }
        Ok(())
    }

    // The IP version, unless another attribute has said another.
    fn be_of(&mut self, family: Family, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        if *self.family.get_or_insert(family) == family {
            return Ok(());
        }
        let message = c"an attribute before says another IP version";
        Err(Refusal::of(attribute, message))
    }

    fn network(&mut self, attribute: &Attribute<'_>) -> Result<([u8; 16], u8), Refusal> {
        let (mut place, mut length) = (None, None);
        for inner in attribute.nested()? {
            let inner = inner?;
            match inner.kind {
                network::ADDRESS => {
                    let (family, bytes) = address(&inner)?;
                    self.be_of(family, &inner)?;
                    place = Some((family, bytes));
                }
                network::PREFIX_LENGTH => length = Some((inner, small(&inner, TOO_LONG)?)),
                _ => return Err(Refusal::of(&inner, UNKNOWN)),
            }
        }
        let (family, bytes) = place.ok_or(Refusal::of(attribute, c"a network needs an address"))?;
        match length {
            None => Ok((bytes, family.bits())),
            Some((_, length)) if length <= family.bits() => Ok((bytes, length)),
            Some((inner, _)) => Err(Refusal::of(&inner, TOO_LONG)),
        }
    }

    fn finish(self, attribute: &Attribute<'_>) -> Result<Rule, Refusal> {
        let missing = |message| Refusal::of(attribute, message);
        let action = self.action.ok_or(missing(c"a rule needs an action"))?;
        let group = match (action, self.group) {
            (Action::Redirect, Some(group)) => group,
            (Action::Redirect, None) => {
                return Err(missing(c"a rule that redirects needs a group"));
            }
            (_, None) => 0,
            (_, Some(_)) => return Err(missing(c"only a rule that redirects has a group")),
        };
        let (port_first, port_last) = self.ports.unwrap_or((0, u16::MAX));
        Ok(Rule {
            label: self.label,
            family: self
                .family
                .ok_or(missing(c"a rule needs an IP version, or an address"))?,
            protocol: self.protocol,
            hooks: self.directions.unwrap_or(HOOK_PRE_ROUTING | HOOK_LOCAL_OUT),
            action,
            destination_prefix: self.destination.1,
            source_prefix: self.source.1,
            group,
            port_first,
            port_last,
            destination: self.destination.0,
            source: self.source.0,
            interface: self.interface,
            conditions: self.conditions,
        })
    }
}

const TOO_LONG: &CStr = c"the prefix is longer than the address";

fn read_ports(attribute: &Attribute<'_>) -> Result<(u16, u16), Refusal> {
    let (mut first, mut last) = (None, None);
    for inner in attribute.nested()? {
        let inner = inner?;
        match inner.kind {
            ports::FIRST => first = Some(small(&inner, c"a port is at most 65535")?),
            ports::LAST => last = Some(small(&inner, c"a port is at most 65535")?),
            _ => return Err(Refusal::of(&inner, UNKNOWN)),
        }
    }
    let first = first.ok_or(Refusal::of(attribute, c"a range needs its first port"))?;
    let last = last.unwrap_or(first);
    if last < first {
        return Err(Refusal::of(
            attribute,
            c"the last port is less than the first",
        ));
    }
    Ok((first, last))
}

pub(super) fn write_network(
    writer: &mut Writer<'_>,
    kind: u16,
    family: Family,
    address: &[u8; 16],
    length: u8,
) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        put_address(writer, network::ADDRESS, family, address)?;
        writer.u32(network::PREFIX_LENGTH, length.into())
    })
}

pub(super) fn write_ports(
    writer: &mut Writer<'_>,
    kind: u16,
    (first, last): (u16, u16),
) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        writer.u32(ports::FIRST, first.into())?;
        writer.u32(ports::LAST, last.into())
    })
}

/// Writes a rule.
///
/// # Errors
/// If there is no room.
pub fn write_rule(writer: &mut Writer<'_>, kind: u16, rule: &Rule) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        put_label(writer, rule::LABEL, &rule.label)?;
        writer.u32(rule::IP_VERSION, rule.family as u32)?;
        if let Some(protocol) = rule.protocol {
            writer.u32(rule::PROTOCOL, protocol as u32)?;
        }
        writer.u32(rule::DIRECTIONS, rule.hooks.into())?;
        for (kind, address, length) in [
            (rule::SOURCE, &rule.source, rule.source_prefix),
            (
                rule::DESTINATION,
                &rule.destination,
                rule.destination_prefix,
            ),
        ] {
            if length != 0 || *address != [0; 16] {
                write_network(writer, kind, rule.family, address, length)?;
            }
        }
        if (rule.port_first, rule.port_last) != (0, u16::MAX) {
            let ports = (rule.port_first, rule.port_last);
            write_ports(writer, rule::DESTINATION_PORTS, ports)?;
        }
        let mut name = rule.interface.split(|&byte| byte == 0);
        match name.next() {
            None | Some([]) => {}
            Some(name) => writer.string(rule::INTERFACE, name)?,
        }
        writer.u32(rule::ACTION, rule.action as u32)?;
        if rule.action == Action::Redirect {
            writer.u32(rule::GROUP, rule.group.into())?;
        }
        let mut conditions = rule.conditions.iter();
        conditions.try_for_each(|one| write_condition(writer, rule::CONDITION, &one))
    })
}

/// A rule as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldRule {
    /// The rule.
    pub rule: Rule,
    /// Its place among the context's.
    pub number: u32,
    /// How many connections it was the first to match, since it was committed.
    pub connections: u64,
}

impl ToldRule {
    /// Writes it as a message of its own.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_rule(writer, kind::RULE, &self.rule)?;
        writer.u32(kind::RULE_NUMBER, self.number)?;
        writer.u64(kind::CONNECTIONS, self.connections)
    }

    /// Reads it from a message of its own; other attributes are of a later version, and passed over.
    ///
    /// # Errors
    /// If an attribute is malformed or missing, or has a value without a meaning.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let (mut rule, mut number, mut connections) = (None, 0, 0);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::RULE => rule = Some(read_rule(&attribute)?),
                kind::RULE_NUMBER => number = attribute.u32()?,
                kind::CONNECTIONS => connections = attribute.uint()?,
                _ => {}
            }
        }
        let missing = Refusal {
            offset: 0,
            message: c"a rule is needed",
        };
        Ok(Self {
            rule: rule.ok_or(missing)?,
            number,
            connections,
        })
    }
}

#[cfg(test)]
mod tests;
