// SPDX-License-Identifier: MIT OR Apache-2.0

//! A context's configuration, and how it is cut into messages.

use mutex_abi::netlink::attribute::{NoRoom, Writer};
use mutex_abi::netlink::configuration::{write_group, write_rule};
use mutex_abi::netlink::message::kind;
use mutex_abi::netlink::set::{write_part, SetPart};
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{self, Label, Rule, Selection, Upstream, ValueKind};

use crate::error::Item;

/// Upstreams of which a new connection goes to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What people call it.
    pub label: Label,
    /// To which.
    pub selection: Selection,
    /// All of them; what they say of their group's number is not read.
    pub upstreams: Vec<Upstream>,
}

/// What conditions of rules look values up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What people call it.
    pub label: Label,
    /// What is in it.
    pub kind: ValueKind,
    /// All of it: of each sort in order, with some value between one and the next; of addresses, those of IPv4 first.
    pub elements: Vec<Element>,
}

/// What a context does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Groups, which rules name by their place here.
    pub groups: Vec<Group>,
    /// Sets, which conditions of rules name by their place here.
    pub sets: Vec<Set>,
    /// Rules, of which the first that matches a connection says what becomes of it.
    pub rules: Vec<Rule>,
}

/// A configuration as it is told, with what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The configuration.
    pub configuration: Configuration,
    /// For each rule, how many connections it was the first to match, since it was committed.
    pub of_rules: Vec<u64>,
    /// For each group and each of its upstreams, how many new connections went there, since the context has these upstreams.
    pub to_upstreams: Vec<Vec<u64>>,
}

/// Attributes of a message that stages, and where in it the groups and rules are.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) attributes: Vec<u8>,
    // Where each begins, in their order.
    starts: Vec<(usize, Item)>,
}

impl Message {
    /// What is at an offset.
    pub(crate) fn item(&self, offset: usize) -> Option<Item> {
        let behind = self.starts.partition_point(|(start, _)| *start <= offset);
        Some(self.starts.get(behind.checked_sub(1)?)?.1)
    }
}

/// Bytes of a message's attributes: less than a socket's send buffer takes in its default size, 208 KiB.
const MESSAGE: usize = 1 << 16;
/// Bytes of elements in one part of a set: less than the length of an attribute can be, with all that the part says beside them.
const PART: usize = 1 << 15;

/// Messages, as they are filled one after the other.
struct Messages {
    all: Vec<Message>,
}

impl Messages {
    fn new() -> Result<Self, NoRoom> {
        let mut messages = Self { all: Vec::new() };
        messages.next();
        messages.write(None, &mut |writer| writer.flag(kind::BEGIN))?;
        Ok(messages)
    }

    fn next(&mut self) {
        self.all.push(Message {
            attributes: Vec::new(),
            starts: Vec::new(),
        });
    }

    // Into the last message, if there is room.
    fn write(
        &mut self,
        item: Option<Item>,
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let message = self.all.last_mut().ok_or(NoRoom)?;
        let start = message.attributes.len();
        message.attributes.resize(MESSAGE, 0);
        let mut writer = Writer::new(&mut message.attributes[start..]);
        let written = write(&mut writer).map(|()| writer.written());
        message.attributes.truncate(start + written.unwrap_or(0));
        written?;
        message.starts.extend(item.map(|item| (start, item)));
        Ok(())
    }

    // Into the last message, or a new one.
    fn add(
        &mut self,
        item: Item,
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        if self.write(Some(item), write).is_ok() {
            return Ok(());
        }
        self.next();
        self.write(Some(item), write)
    }

    fn add_set(&mut self, place: usize, set: &Set) -> Result<(), NoRoom> {
        let mut part = SetPart {
            number: u32::try_from(place).map_err(|_| NoRoom)?,
            set: Some(proxy::Set {
                label: set.label,
                kind: set.kind,
            }),
            elements: None,
        };
        let mut rest = &set.elements[..];
        loop {
            let mut left = 0;
            self.add(Item::Set(place), &mut |writer| {
                let mut elements = rest.iter().copied().peekable();
                write_part(writer, kind::SET, &part, &mut elements, PART)?;
                left = elements.count();
                Ok(())
            })?;
            rest = &rest[rest.len() - left..];
            if rest.is_empty() {
                return Ok(());
            }
            part.set = None;
        }
    }
}

impl Configuration {
    /// The messages that stage it, the first of which begins.
    ///
    /// # Errors
    /// If a group does not fit into one, of more than a thousand upstreams.
    pub(crate) fn messages(&self) -> Result<Vec<Message>, NoRoom> {
        let mut messages = Messages::new()?;
        for (place, group) in self.groups.iter().enumerate() {
            let Group {
                label,
                selection,
                upstreams,
            } = group;
            let group = proxy::Group {
                label: *label,
                selection: *selection,
            };
            messages.add(Item::Group(place), &mut |writer| {
                write_group(writer, kind::GROUP, &group, upstreams.iter().copied())
            })?;
        }
        for (place, set) in self.sets.iter().enumerate() {
            messages.add_set(place, set)?;
        }
        for (place, rule) in self.rules.iter().enumerate() {
            messages.add(Item::Rule(place), &mut |writer| {
                write_rule(writer, kind::RULE, rule)
            })?;
        }
        Ok(messages.all)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use mutex_abi::netlink::attribute::Attributes;
    use mutex_abi::netlink::configuration::{read_group, read_rule};
    use mutex_abi::netlink::refusal::Refusal;
    use mutex_abi::netlink::set::read_elements;
    use mutex_abi::proxy::Family;

    fn rule(port: u16) -> Rule {
        Rule {
            port_first: port,
            port_last: port,
            ..Rule::any(Family::V4)
        }
    }

    fn group(count: usize) -> Group {
        let one = Upstream {
            weight: NonZeroU8::MIN,
            family: Family::V4,
            priority: 1,
            port: 80,
            group: 0,
            address: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        Group {
            label: Label::new(b"all").unwrap(),
            selection: Selection::Random,
            upstreams: vec![one; count],
        }
    }

    fn addresses(count: u32) -> Set {
        let four = (0..count).map(|number| Element::V4([3 * number, 3 * number + 1]));
        let six = (0..u128::from(count)).map(|number| Element::V6([3 * number; 2]));
        Set {
            label: Label::new(b"far").unwrap(),
            kind: ValueKind::Addresses,
            elements: four.chain(six).collect(),
        }
    }

    #[test]
    fn what_is_cut_into_messages_is_whole() {
        let configuration = Configuration {
            groups: (0..40).map(|count| group(count * 6)).collect(),
            sets: vec![addresses(3), addresses(20_000)],
            rules: (1..4000).map(rule).collect(),
        };
        let messages = configuration.messages().unwrap();
        assert!(messages.len() > 2, "{}", messages.len());
        let (mut groups, mut sets, mut rules) = (Vec::new(), Vec::<Set>::new(), Vec::new());
        for (number, message) in messages.iter().enumerate() {
            for attribute in Attributes::new(&message.attributes) {
                let attribute = attribute.unwrap();
                match attribute.kind {
                    kind::BEGIN => assert_eq!((number, attribute.offset), (0, 0)),
                    kind::GROUP => {
                        assert_eq!(
                            message.item(attribute.offset),
                            Some(Item::Group(groups.len()))
                        );
                        let mut upstreams = Vec::new();
                        let read = read_group(&attribute, 0, |one| {
                            upstreams.push(one);
                            Ok::<_, Refusal>(())
                        });
                        let proxy::Group { label, selection } = read.unwrap();
                        groups.push(Group {
                            label,
                            selection,
                            upstreams,
                        });
                    }
                    kind::SET => {
                        let part = SetPart::read(&attribute).unwrap();
                        if let Some(proxy::Set { label, kind }) = part.set {
                            let elements = Vec::new();
                            sets.push(Set {
                                label,
                                kind,
                                elements,
                            });
                        }
                        let item = Some(Item::Set(sets.len() - 1));
                        assert_eq!(message.item(attribute.offset), item);
                        assert_eq!(part.number as usize, sets.len() - 1);
                        let set = sets.last_mut().unwrap();
                        read_elements(&attribute, |_, element| {
                            set.elements.push(element);
                            Ok::<_, Refusal>(())
                        })
                        .unwrap();
                    }
                    _ => {
                        // Its parts are its own, too.
                        let item = Some(Item::Rule(rules.len()));
                        assert_eq!(message.item(attribute.offset), item);
                        assert_eq!(message.item(attribute.offset + 8), item);
                        rules.push(read_rule(&attribute).unwrap());
                    }
                }
            }
        }
        let whole = Configuration {
            groups,
            sets,
            rules,
        };
        assert_eq!(whole, configuration);
    }

    #[test]
    fn nothing_is_a_message_that_begins() {
        let messages = Configuration::default().messages().unwrap();
        let [message] = &messages[..] else {
            panic!("{messages:?}");
        };
        let mut attributes = Attributes::new(&message.attributes);
        assert_eq!(attributes.next().unwrap().unwrap().kind, kind::BEGIN);
        assert!(attributes.next().is_none());
        assert_eq!(message.item(0), None);
    }

    #[test]
    fn a_group_that_fits_nowhere_is_told() {
        let configuration = Configuration {
            groups: vec![group(5000)],
            ..Configuration::default()
        };
        assert_eq!(configuration.messages().err(), Some(NoRoom));
    }
}
