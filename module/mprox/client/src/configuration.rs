// SPDX-License-Identifier: MIT OR Apache-2.0

//! A context's configuration, and how it is cut into messages.

use mutex_abi::netlink::attribute::{NoRoom, Writer};
use mutex_abi::netlink::configuration::{write_group, write_rule};
use mutex_abi::netlink::message::kind;
use mutex_abi::proxy::{self, Label, Rule, Selection, Upstream};

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

/// What a context does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Groups, which rules name by their place here.
    pub groups: Vec<Group>,
    /// Rules, of which the first that matches a connection says what becomes of it.
    pub rules: Vec<Rule>,
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

impl Configuration {
    fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let groups = (0..self.groups.len()).map(Item::Group);
        groups.chain((0..self.rules.len()).map(Item::Rule))
    }

    fn write(&self, item: Item, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        match item {
            Item::Group(place) => {
                let Group {
                    label,
                    selection,
                    upstreams,
                } = &self.groups[place];
                let group = proxy::Group {
                    label: *label,
                    selection: *selection,
                };
                write_group(writer, kind::GROUP, &group, upstreams.iter().copied())
            }
            Item::Rule(place) => write_rule(writer, kind::RULE, &self.rules[place]),
        }
    }

    /// The messages that stage it, the first of which begins.
    ///
    /// # Errors
    /// If a group does not fit into one, of more than a thousand upstreams.
    pub(crate) fn messages(&self) -> Result<Vec<Message>, NoRoom> {
        let mut items = self.items().peekable();
        let mut messages = Vec::new();
        loop {
            let mut bytes = vec![0; MESSAGE];
            let mut writer = Writer::new(&mut bytes);
            if messages.is_empty() {
                writer.flag(kind::BEGIN)?;
            }
            let mut starts = Vec::new();
            while let Some(&item) = items.peek() {
                let start = writer.written();
                if let Err(no_room) = self.write(item, &mut writer) {
                    if starts.is_empty() {
                        return Err(no_room);
                    }
                    break;
                }
                starts.push((start, item));
                items.next();
            }
            let written = writer.written();
            bytes.truncate(written);
            messages.push(Message {
                attributes: bytes,
                starts,
            });
            if items.peek().is_none() {
                return Ok(messages);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutex_abi::netlink::attribute::Attributes;
    use mutex_abi::netlink::configuration::{read_group, read_rule};
    use mutex_abi::netlink::refusal::Refusal;
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

    #[test]
    fn what_is_cut_into_messages_is_whole() {
        let configuration = Configuration {
            groups: (0..40).map(|count| group(count * 6)).collect(),
            rules: (1..4000).map(rule).collect(),
        };
        let messages = configuration.messages().unwrap();
        assert!(messages.len() > 2, "{}", messages.len());
        let (mut groups, mut rules) = (Vec::new(), Vec::new());
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
        assert_eq!(Configuration { groups, rules }, configuration);
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
            rules: Vec::new(),
        };
        assert_eq!(configuration.messages().err(), Some(NoRoom));
    }
}
