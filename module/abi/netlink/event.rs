// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What those are told who listen to the multicast group of events.

use super::super::proxy::Upstream;
use super::attribute::{Attributes, NoRoom, Writer};
use super::configuration::{read_upstream, small, write_upstream};
use super::context::{read_name, write_which, ContextName};
use super::message::{kind, Command};
use super::refusal::Refusal;

/// Something that happened in the network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An upstream has failed, or works again.
    Upstream {
        /// The context whose it is, if that has a name.
        context: Option<ContextName>,
        /// The upstream, with the number of its group.
        upstream: Upstream,
        /// Whether it works.
        works: bool,
    },
    /// Packets of new connections were dropped because the table of flows is full.
    TableFull {
        /// How many, since this was told last.
        packets: u64,
    },
    /// A context was deleted.
    ContextGone {
        /// Its name.
        name: ContextName,
    },
}

impl Event {
    /// The number that says which one it is.
    pub fn command(&self) -> Command {
        match self {
            Self::Upstream { works: false, .. } => Command::UpstreamFailed,
            Self::Upstream { works: true, .. } => Command::UpstreamBack,
            Self::TableFull { .. } => Command::TableFull,
            Self::ContextGone { .. } => Command::ContextGone,
        }
    }

    /// Writes what else there is to say.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        match self {
            Self::Upstream {
                context, upstream, ..
            } => {
                write_which(writer, context.as_ref())?;
                write_upstream(writer, upstream)
            }
            Self::TableFull { packets } => writer.u64(kind::PACKETS, *packets),
            Self::ContextGone { name } => write_which(writer, Some(name)),
        }
    }

    /// Reads an event of this number; `None` if it is none that is known. Other attributes are of a later version, and
    /// passed over.
    ///
    /// # Errors
    /// If an attribute is malformed or missing, or has a value without a meaning.
    pub fn read(command: u8, attributes: Attributes<'_>) -> Result<Option<Self>, Refusal> {
        let (mut context, mut group, mut upstream, mut packets) = (None, 0, None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::CONTEXT => context = Some(read_name(&attribute)?),
                kind::UPSTREAM_GROUP => {
                    group = small(&attribute, c"a group's number is at most 255")?;
                }
                kind::UPSTREAM => upstream = Some(read_upstream(&attribute, 0)?),
                kind::PACKETS => packets = Some(attribute.uint()?),
                _ => {}
            }
        }
        let missing = |message| Refusal { offset: 0, message };
        let of_upstream = |works| {
            let told = upstream.ok_or(missing(c"an upstream is needed"))?;
            Ok::<_, Refusal>(Self::Upstream {
                context,
                upstream: Upstream { group, ..told },
                works,
            })
        };
        Ok(Some(match Command::from_number(command) {
            Some(Command::UpstreamFailed) => of_upstream(false)?,
            Some(Command::UpstreamBack) => of_upstream(true)?,
            Some(Command::TableFull) => Self::TableFull {
                packets: packets.ok_or(missing(c"a number of packets is needed"))?,
            },
            Some(Command::ContextGone) => Self::ContextGone {
                name: context.ok_or(missing(c"a name is needed"))?,
            },
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU8;

    use super::super::super::proxy::Family;
    use super::super::message::tests::written;
    use super::*;

    #[test]
    fn events_survive_messages() {
        let name = ContextName::new(b"home");
        let upstream = Upstream {
            family: Family::V6,
            priority: 3,
            weight: NonZeroU8::MAX,
            port: 80,
            group: 7,
            address: [9; 16],
        };
        let of = |context, works| Event::Upstream {
            context,
            upstream,
            works,
        };
        for event in [
            of(name, true),
            of(None, false),
            Event::TableFull { packets: u64::MAX },
            Event::ContextGone {
                name: name.unwrap(),
            },
        ] {
            let bytes = written(|writer| event.write(writer));
            let read = Event::read(event.command() as u8, Attributes::new(&bytes));
            assert_eq!(read, Ok(Some(event)));
            assert!(bytes.len() < 200, "the module has room for 256 bytes");
        }
        let longest = [b'x'; super::super::context::NAME_MAX];
        let event = of(ContextName::new(&longest), true);
        assert!(written(|writer| event.write(writer)).len() < 256);
    }

    #[test]
    fn what_is_no_event_is_passed_over_and_what_lacks_something_refused() {
        let none = Attributes::new(&[]);
        assert_eq!(Event::read(Command::RuleGet as u8, none), Ok(None));
        assert_eq!(Event::read(200, Attributes::new(&[])), Ok(None));
        for command in [
            Command::UpstreamFailed,
            Command::UpstreamBack,
            Command::TableFull,
            Command::ContextGone,
        ] {
            assert!(Event::read(command as u8, Attributes::new(&[])).is_err());
        }
    }
}
