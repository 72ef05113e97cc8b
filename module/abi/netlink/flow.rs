// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Flows, and which of them are meant, as attributes.

use super::super::proxy::flow::{Flow, FlowFilter, FlowState, Prefix, Redirection};
use super::super::proxy::{Endpoint, Family, Protocol};
use super::attribute::{Attribute, Attributes, NoRoom, Writer};
use super::configuration::{
    address, put_address, rule, small, write_network, write_ports, Reading,
};
use super::context::{read_name, write_which, ContextName};
use super::message::{kind, UNKNOWN};
use super::refusal::Refusal;

/// Types of the attributes of a flow.
mod attributes {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const CLIENT_ADDRESS: u16 = 2;
    pub(super) const CLIENT_PORT: u16 = 3;
    pub(super) const ORIGINAL_ADDRESS: u16 = 4;
    pub(super) const ORIGINAL_PORT: u16 = 5;
    pub(super) const UPSTREAM_ADDRESS: u16 = 6;
    pub(super) const UPSTREAM_PORT: u16 = 7;
    pub(super) const SOURCE_ADDRESS: u16 = 8;
    pub(super) const SOURCE_PORT: u16 = 9;
    pub(super) const GROUP: u16 = 10;
    pub(super) const MEMBER: u16 = 11;
    pub(super) const STATE: u16 = 12;
    pub(super) const PACKETS_ORIGINAL: u16 = 13;
    pub(super) const PACKETS_REPLY: u16 = 14;
    pub(super) const BYTES_ORIGINAL: u16 = 15;
    pub(super) const BYTES_REPLY: u16 = 16;
    pub(super) const IDLE: u16 = 17;
}

/// Types of the attributes of a filter.
mod filter {
    pub(super) const IP_VERSION: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const SOURCE: u16 = 3;
    pub(super) const DESTINATION: u16 = 4;
    pub(super) const DESTINATION_PORTS: u16 = 5;
}

/// The flows that a message means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowsMeant {
    /// Those that rules of this context redirected; `None`: all of the namespace, direct ones included.
    pub context: Option<ContextName>,
    /// Of these, the ones that are as it says.
    pub filter: Option<FlowFilter>,
}

impl FlowsMeant {
    /// Reads it from a message in which nothing else stands.
    ///
    /// # Errors
    /// If an attribute is malformed or unknown, has a value without a meaning, or contradicts another.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let mut meant = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::CONTEXT => meant.context = Some(read_name(&attribute)?),
                kind::FILTER => meant.filter = Some(read_filter(&attribute)?),
                _ => return Err(Refusal::of(&attribute, UNKNOWN)),
            }
        }
        Ok(meant)
    }

    /// Writes it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_which(writer, self.context.as_ref())?;
        match &self.filter {
            Some(filter) => write_filter(writer, filter),
            None => Ok(()),
        }
    }
}

fn read_filter(attribute: &Attribute<'_>) -> Result<FlowFilter, Refusal> {
    let mut read = Reading::default();
    for inner in attribute.nested()? {
        let inner = inner?;
        let same = match inner.kind {
            filter::IP_VERSION => rule::IP_VERSION,
            filter::PROTOCOL => rule::PROTOCOL,
            filter::SOURCE => rule::SOURCE,
            filter::DESTINATION => rule::DESTINATION,
            filter::DESTINATION_PORTS => rule::DESTINATION_PORTS,
            _ => return Err(Refusal::of(&inner, UNKNOWN)),
        };
        read.take_as(same, &inner)?;
    }
    let prefix = |(address, length)| Prefix { address, length };
    Ok(FlowFilter {
        family: read.family,
        protocol: read.protocol,
        source: prefix(read.source),
        destination: prefix(read.destination),
        ports: read.ports.unwrap_or(FlowFilter::ALL.ports),
    })
}

fn write_filter(writer: &mut Writer<'_>, one: &FlowFilter) -> Result<(), NoRoom> {
    writer.nest(kind::FILTER, |writer| {
        if let Some(family) = one.family {
            writer.u32(filter::IP_VERSION, family as u32)?;
        }
        if let Some(protocol) = one.protocol {
            writer.u32(filter::PROTOCOL, protocol as u32)?;
        }
        for (kind, prefix) in [
            (filter::SOURCE, &one.source),
            (filter::DESTINATION, &one.destination),
        ] {
            if let (Some(family), 1..) = (one.family, prefix.length) {
                write_network(writer, kind, family, &prefix.address, prefix.length)?;
            }
        }
        match one.ports == FlowFilter::ALL.ports {
            true => Ok(()),
            false => write_ports(writer, filter::DESTINATION_PORTS, one.ports),
        }
    })
}

/// A flow as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldFlow {
    /// The context whose rule redirected it, if that has a name.
    pub context: Option<ContextName>,
    /// The flow.
    pub flow: Flow,
}

impl ToldFlow {
    /// Writes it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_which(writer, self.context.as_ref())?;
        let told = &self.flow;
        writer.nest(kind::FLOW, |writer| {
            let mut end = |address, port, end: &Endpoint| {
                put_address(writer, address, told.family, &end.address)?;
                writer.u32(port, end.port.into())
            };
            end(
                attributes::CLIENT_ADDRESS,
                attributes::CLIENT_PORT,
                &told.client,
            )?;
            end(
                attributes::ORIGINAL_ADDRESS,
                attributes::ORIGINAL_PORT,
                &told.original,
            )?;
            if let Some(redirection) = &told.redirection {
                let upstream = &redirection.upstream;
                end(
                    attributes::UPSTREAM_ADDRESS,
                    attributes::UPSTREAM_PORT,
                    upstream,
                )?;
                end(
                    attributes::SOURCE_ADDRESS,
                    attributes::SOURCE_PORT,
                    &redirection.source,
                )?;
                writer.u32(attributes::GROUP, redirection.group.into())?;
                writer.u32(attributes::MEMBER, redirection.member.into())?;
            }
            writer.u32(attributes::PROTOCOL, told.protocol as u32)?;
            writer.u32(attributes::STATE, told.state as u32)?;
            let ([sent, received], [sent_bytes, received_bytes]) = (told.packets, told.bytes);
            for (kind, value) in [
                (attributes::PACKETS_ORIGINAL, sent),
                (attributes::PACKETS_REPLY, received),
                (attributes::BYTES_ORIGINAL, sent_bytes),
                (attributes::BYTES_REPLY, received_bytes),
                (attributes::IDLE, told.idle),
            ] {
                writer.u64(kind, value)?;
            }
            Ok(())
        })
    }

    /// Reads it; other attributes are of a later version, and passed over.
    ///
    /// # Errors
    /// If an attribute is malformed or missing, or has a value without a meaning.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let (mut context, mut told) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::CONTEXT => context = Some(read_name(&attribute)?),
                kind::FLOW => told = Some(read_flow(&attribute)?),
                _ => {}
            }
        }
        let flow = told.ok_or(Refusal {
            offset: 0,
            message: c"a flow is needed",
        })?;
        Ok(Self { context, flow })
    }
}

/// Ends of a flow as far as they were read.
#[derive(Default)]
struct Ends {
    family: Option<Family>,
    addresses: [Option<[u8; 16]>; 4],
    ports: [Option<u16>; 4],
}

impl Ends {
    // The number of the end is even, as is that of its address among the attributes.
    fn take(&mut self, number: u16, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        let at = usize::from(number / 2);
        if number % 2 == 1 {
            let port = small(attribute, c"a port is at most 65535")?;
            if let Some(place) = self.ports.get_mut(at) {
                *place = Some(port);
            }
            return Ok(());
        }
        let (family, bytes) = address(attribute)?;
        if *self.family.get_or_insert(family) != family {
            let message = c"all ends of a flow have the same IP version";
            return Err(Refusal::of(attribute, message));
        }
        if let Some(place) = self.addresses.get_mut(at) {
            *place = Some(bytes);
        }
        Ok(())
    }

    fn all(&self) -> [Option<Endpoint>; 4] {
        let [a, b, c, d] = &self.addresses;
        let [e, f, g, h] = &self.ports;
        [(a, e), (b, f), (c, g), (d, h)].map(|(address, port)| {
            Some(Endpoint {
                address: (*address)?,
                port: (*port)?,
            })
        })
    }
}

fn read_flow(attribute: &Attribute<'_>) -> Result<Flow, Refusal> {
    let mut ends = Ends::default();
    let (mut protocol, mut state, mut idle) = (None, None, 0);
    let (mut group, mut member) = (None, None);
    let [mut sent, mut received, mut sent_bytes, mut received_bytes] = [0; 4];
    for inner in attribute.nested()? {
        let inner = inner?;
        match inner.kind {
            number @ attributes::CLIENT_ADDRESS..=attributes::SOURCE_PORT => {
                ends.take(number.wrapping_sub(attributes::CLIENT_ADDRESS), &inner)?;
            }
            attributes::PROTOCOL => {
                let message = c"a protocol is 6 (TCP) or 17 (UDP)";
                let number = Protocol::from_number(small(&inner, message)?);
                protocol = Some(number.ok_or(Refusal::of(&inner, message))?);
            }
            attributes::GROUP => group = Some(small(&inner, c"a group's number is at most 255")?),
            attributes::MEMBER => {
                member = Some(small(&inner, c"an upstream's number is at most 255")?)
            }
            attributes::STATE => {
                let unknown = Refusal::of(&inner, c"no such state of a flow");
                state = Some(FlowState::from_number(inner.u32()?).ok_or(unknown)?);
            }
            attributes::PACKETS_ORIGINAL => sent = inner.uint()?,
            attributes::PACKETS_REPLY => received = inner.uint()?,
            attributes::BYTES_ORIGINAL => sent_bytes = inner.uint()?,
            attributes::BYTES_REPLY => received_bytes = inner.uint()?,
            attributes::IDLE => idle = inner.uint()?,
            _ => {}
        }
    }
    let [client, original, upstream, source] = ends.all();
    let (Some(family), Some(protocol), Some(client), Some(original), Some(state)) =
        (ends.family, protocol, client, original, state)
    else {
        let message = c"a flow has a protocol, a state, and two ends";
        return Err(Refusal::of(attribute, message));
    };
    let redirection = match (upstream, source, group, member) {
        (Some(upstream), Some(source), Some(group), Some(member)) => Some(Redirection {
            upstream,
            source,
            group,
            member,
        }),
        _ => None,
    };
    Ok(Flow {
        family,
        protocol,
        client,
        original,
        redirection,
        state,
        packets: [sent, received],
        bytes: [sent_bytes, received_bytes],
        idle,
    })
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{specified, written};
    use super::*;

    fn end(family: Family, last: u8, port: u16) -> Endpoint {
        let mut address = [0; 16];
        address[usize::from(family.bits() / 8) - 1] = last;
        Endpoint { address, port }
    }

    fn example(family: Family, redirected: bool) -> ToldFlow {
        ToldFlow {
            context: ContextName::new(b"home"),
            flow: Flow {
                family,
                protocol: Protocol::Udp,
                client: end(family, 1, 40_000),
                original: end(family, 2, 53),
                redirection: redirected.then_some(Redirection {
                    upstream: end(family, 3, 5353),
                    source: end(family, 1, 40_001),
                    group: 7,
                    member: 255,
                }),
                state: FlowState::Established,
                packets: [u64::MAX, 1],
                bytes: [2, 3],
                idle: 4,
            },
        }
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        let numbered = [
            ("PROTOCOL", attributes::PROTOCOL),
            ("CLIENT_ADDRESS", attributes::CLIENT_ADDRESS),
            ("CLIENT_PORT", attributes::CLIENT_PORT),
            ("ORIGINAL_ADDRESS", attributes::ORIGINAL_ADDRESS),
            ("ORIGINAL_PORT", attributes::ORIGINAL_PORT),
            ("UPSTREAM_ADDRESS", attributes::UPSTREAM_ADDRESS),
            ("UPSTREAM_PORT", attributes::UPSTREAM_PORT),
            ("SOURCE_ADDRESS", attributes::SOURCE_ADDRESS),
            ("SOURCE_PORT", attributes::SOURCE_PORT),
            ("GROUP", attributes::GROUP),
            ("MEMBER", attributes::MEMBER),
            ("STATE", attributes::STATE),
            ("PACKETS_ORIGINAL", attributes::PACKETS_ORIGINAL),
            ("PACKETS_REPLY", attributes::PACKETS_REPLY),
            ("BYTES_ORIGINAL", attributes::BYTES_ORIGINAL),
            ("BYTES_REPLY", attributes::BYTES_REPLY),
            ("IDLE", attributes::IDLE),
        ];
        let names = specified("MUTEX_PROXY_A_FLOW_");
        assert_eq!(numbered.map(|(name, _)| name).to_vec(), names);
        assert!(numbered.iter().map(|(_, number)| *number).eq(1..=17));
        let numbered = [
            ("IP_VERSION", filter::IP_VERSION),
            ("PROTOCOL", filter::PROTOCOL),
            ("SOURCE", filter::SOURCE),
            ("DESTINATION", filter::DESTINATION),
            ("DESTINATION_PORTS", filter::DESTINATION_PORTS),
        ];
        let names = specified("MUTEX_PROXY_A_FILTER_");
        assert_eq!(numbered.map(|(name, _)| name).to_vec(), names);
        assert!(numbered.iter().map(|(_, number)| *number).eq(1..=5));
    }

    #[test]
    fn a_flow_survives_a_message() {
        for family in [Family::V4, Family::V6] {
            for redirected in [false, true] {
                let told = example(family, redirected);
                let bytes = written(|writer| told.write(writer));
                assert_eq!(ToldFlow::read(Attributes::new(&bytes)), Ok(told));
            }
        }
    }

    #[test]
    fn a_filter_survives_a_message() {
        let prefix = |last| Prefix {
            address: end(Family::V6, last, 0).address,
            length: 127,
        };
        for filter in [
            FlowFilter::ALL,
            FlowFilter {
                protocol: Some(Protocol::Tcp),
                ports: (80, 443),
                ..FlowFilter::ALL
            },
            FlowFilter {
                family: Some(Family::V6),
                source: prefix(1),
                destination: prefix(2),
                ..FlowFilter::ALL
            },
        ] {
            let meant = FlowsMeant {
                context: ContextName::new(b"home"),
                filter: Some(filter),
            };
            let bytes = written(|writer| meant.write(writer));
            assert_eq!(FlowsMeant::read(Attributes::new(&bytes)), Ok(meant));
        }
        let nothing = written(|_| Ok(()));
        let read = FlowsMeant::read(Attributes::new(&nothing));
        assert_eq!(read, Ok(FlowsMeant::default()));
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let refused = |write: &dyn Fn(&mut Writer<'_>) -> Result<(), NoRoom>| {
            let bytes = written(|writer| writer.nest(kind::FILTER, |writer| write(writer)));
            FlowsMeant::read(Attributes::new(&bytes)).is_err()
        };
        assert!(!refused(&|_| Ok(())), "an empty one means all");
        assert!(refused(&|writer| writer.u32(filter::IP_VERSION, 5)));
        assert!(refused(&|writer| writer.u32(filter::PROTOCOL, 1)));
        assert!(refused(&|writer| writer.u32(filter::SOURCE, 1)));
        assert!(refused(&|writer| writer.u32(6, 1)));
        assert!(refused(&|writer| write_ports(
            writer,
            filter::DESTINATION_PORTS,
            (2, 1)
        )));
        assert!(refused(&|writer| {
            write_network(writer, filter::SOURCE, Family::V4, &[1; 16], 8)?;
            write_network(writer, filter::DESTINATION, Family::V6, &[1; 16], 8)
        }));
    }
}
