// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests of the family `mutex-proxy`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mutex_abi::netlink::attribute::{Attributes, NoRoom, Writer};
use mutex_abi::netlink::configuration::{read_group, ToldRule, ToldUpstream};
use mutex_abi::netlink::context::{write_which, Commit, ContextInfo, ContextName};
use mutex_abi::netlink::flow::{FlowsMeant, ToldFlow};
use mutex_abi::netlink::message::{kind, Command, FAMILY, VERSION};
use mutex_abi::netlink::refusal::Refusal;
use mutex_abi::netlink::set::{read_elements, SetPart};
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{self, Connection, Stats, Upstream};

use crate::configuration::{Configuration, Counted, Group, Set};
use crate::error::{Error, Refused};
use crate::generic::{Answers, GenericSocket, Target};

/// A socket of the family, in the network namespace of the thread that opened it.
///
/// Each request needs CAP_NET_ADMIN in the user namespace of the network namespace, and had to have it when the socket was
/// opened.
#[derive(Debug)]
pub struct Client {
    socket: GenericSocket,
    family: u16,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.descriptor()
    }
}

/// Room for the attributes of any request but those that stage.
const REQUEST: usize = 256;

impl Client {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`Error::NoModule`] if the module is not loaded.
    pub fn open() -> Result<Self, Error> {
        Self::over(GenericSocket::open()?)
    }

    /// Goes on with a socket that another process has passed on, or this one before it was another program: its context is
    /// this client's.
    ///
    /// # Errors
    /// If it is not a socket of Generic Netlink, or the module is not loaded.
    pub fn adopt(descriptor: OwnedFd) -> Result<Self, Error> {
        Self::over(GenericSocket::adopt(descriptor)?)
    }

    fn over(mut socket: GenericSocket) -> Result<Self, Error> {
        let family = socket.family(FAMILY)?;
        Ok(Self { socket, family })
    }

    fn target(&self, command: Command) -> Target {
        Target {
            family: self.family,
            version: VERSION,
            command: command as u8,
        }
    }

    fn ask(
        &mut self,
        command: Command,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<Answers, Error> {
        let attributes = attributes(write)?;
        self.socket.ask(self.target(command), &attributes)
    }

    fn dump(&mut self, command: Command, which: Option<&ContextName>) -> Result<Answers, Error> {
        self.dump_with(command, |writer| write_which(writer, which))
    }

    fn dump_with(
        &mut self,
        command: Command,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<Answers, Error> {
        let attributes = attributes(write)?;
        self.socket.dump(self.target(command), &attributes)
    }

    /// Stages a configuration in the place of what was staged before.
    ///
    /// # Errors
    /// [`Error::Refused`] with the group or rule that is wrong; then nothing is staged.
    pub fn stage(&mut self, configuration: &Configuration) -> Result<(), Error> {
        let too_large = |NoRoom| Error::Protocol("a group is too large for a message");
        for message in configuration.messages().map_err(too_large)? {
            let target = self.target(Command::Stage);
            let asked = self.socket.ask(target, &message.attributes);
            asked.map_err(|error| match error {
                Error::Refused(refused) => {
                    let item = refused.offset.and_then(|offset| message.item(offset));
                    Error::Refused(Refused { item, ..refused })
                }
                other => other,
            })?;
        }
        Ok(())
    }

    /// Sends one message of attributes that stage, right or wrong.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn stage_attributes(&mut self, attributes: &[u8]) -> Result<(), Error> {
        self.socket.ask(self.target(Command::Stage), attributes)?;
        Ok(())
    }

    /// Puts what is staged in the place of a context's configuration, and returns how often that was configured by now.
    ///
    /// # Errors
    /// If the kernel refuses it; then all is as it was.
    pub fn commit(&mut self, commit: &Commit) -> Result<u32, Error> {
        let answers = self.ask(Command::Commit, |writer| commit.write(writer))?;
        told(&answers, ContextInfo::read).map(|info| info.generation)
    }

    /// What there is of a context: of the socket's own without a name.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn context(&mut self, name: Option<&ContextName>) -> Result<ContextInfo, Error> {
        let answers = self.ask(Command::ContextGet, |writer| write_which(writer, name))?;
        told(&answers, ContextInfo::read)
    }

    /// The contexts of the namespace that have names.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn contexts(&mut self) -> Result<Vec<ContextInfo>, Error> {
        let answers = self.dump(Command::ContextGet, None)?;
        read_all(&answers, ContextInfo::read)
    }

    /// Deletes a context with its rules and the flows that they made.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn delete(&mut self, name: &ContextName) -> Result<(), Error> {
        self.ask(Command::ContextDel, |writer| {
            write_which(writer, Some(name))
        })?;
        Ok(())
    }

    /// The configuration of a context: of the socket's own without a name.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn configuration(&mut self, name: Option<&ContextName>) -> Result<Configuration, Error> {
        Ok(self.counted(name)?.configuration)
    }

    /// The configuration of a context, with what its rules and upstreams count.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn counted(&mut self, name: Option<&ContextName>) -> Result<Counted, Error> {
        loop {
            let before = self.context(name)?.generation;
            let groups = self.dump(Command::GroupGet, name)?;
            let upstreams = self.dump(Command::UpstreamGet, name)?;
            let sets = self.dump(Command::SetGet, name)?;
            let rules = self.dump(Command::RuleGet, name)?;
            // Else these are of several configurations.
            if self.context(name)?.generation != before {
                continue;
            }
            let mut groups = read_all(&groups, told_group)?;
            let mut to_upstreams = vec![Vec::new(); groups.len()];
            for told in read_all(&upstreams, ToldUpstream::read)? {
                let number = usize::from(told.upstream.group);
                let group = groups.get_mut(number).zip(to_upstreams.get_mut(number));
                let (group, counts) = group.ok_or(Error::Protocol("an upstream of no group"))?;
                group.upstreams.push(told.upstream);
                counts.push(told.connections);
            }
            let mut whole = Vec::new();
            for (part, elements) in read_all(&sets, told_part)? {
                add_part(&mut whole, &part, elements)?;
            }
            let rules = read_all(&rules, ToldRule::read)?;
            let of_rules = rules.iter().map(|told| told.connections).collect();
            let configuration = Configuration {
                groups,
                sets: whole,
                rules: rules.into_iter().map(|told| told.rule).collect(),
            };
            return Ok(Counted {
                configuration,
                of_rules,
                to_upstreams,
            });
        }
    }

    /// The counters of the namespace.
    ///
    /// # Errors
    /// ENOENT: it has no context.
    pub fn statistics(&mut self) -> Result<Stats, Error> {
        let answers = self.ask(Command::StatisticsGet, |_| Ok(()))?;
        told(&answers, Stats::read)
    }

    /// The flows that are meant, which are not those of one moment: some may be told twice, and those that come or go meanwhile
    /// or not.
    ///
    /// # Errors
    /// ENOENT: the namespace has no context, or none of this name.
    pub fn flows(&mut self, meant: &FlowsMeant) -> Result<Vec<ToldFlow>, Error> {
        let answers = self.dump_with(Command::FlowGet, |writer| meant.write(writer))?;
        read_all(&answers, ToldFlow::read)
    }

    /// Forgets the flows that are meant, and tells how many; what comes of them afterwards is taken for new connections.
    ///
    /// # Errors
    /// ENOENT: the namespace has no context, or none of this name. EINVAL: there is no filter.
    pub fn end_flows(&mut self, meant: &FlowsMeant) -> Result<u64, Error> {
        let answers = self.ask(Command::FlowDel, |writer| meant.write(writer))?;
        told(&answers, |attributes| {
            one(attributes, kind::FLOWS, |attribute| Ok(attribute.uint()?))
        })
    }

    /// A connection as the server sees it to which it was redirected, with its original destination in the place of the server's
    /// end.
    ///
    /// # Errors
    /// ENOENT: no such connection was redirected.
    pub fn original(&mut self, connection: &Connection) -> Result<Connection, Error> {
        let answers = self.ask(Command::OriginalGet, |writer| connection.write(writer))?;
        told(&answers, Connection::read)
    }
}

fn attributes(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; REQUEST];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer).map_err(|NoRoom| Error::Protocol("the request is too long"))?;
    let length = writer.written();
    bytes.truncate(length);
    Ok(bytes)
}

fn nonsense(_: Refusal) -> Error {
    Error::Protocol("attributes that mean nothing")
}

fn told<T>(
    answers: &Answers,
    read: impl Fn(Attributes<'_>) -> Result<T, Refusal>,
) -> Result<T, Error> {
    match &answers[..] {
        [answer] => read(Attributes::new(answer)).map_err(nonsense),
        _ => Err(Error::Protocol("not one answer")),
    }
}

fn read_all<T>(
    answers: &Answers,
    read: impl Fn(Attributes<'_>) -> Result<T, Refusal>,
) -> Result<Vec<T>, Error> {
    let read = |answer: &Vec<u8>| read(Attributes::new(answer)).map_err(nonsense);
    answers.iter().map(read).collect()
}

// The attribute of this type, among others of later versions.
fn one<T>(
    attributes: Attributes<'_>,
    wanted: u16,
    read: impl Fn(&mutex_abi::netlink::attribute::Attribute<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == wanted {
            return read(&attribute);
        }
    }
    Err(Refusal {
        offset: 0,
        message: c"what was asked for is not told",
    })
}

fn told_group(attributes: Attributes<'_>) -> Result<Group, Refusal> {
    one(attributes, kind::GROUP, |attribute| {
        let mut upstreams = Vec::new();
        let group = read_group(attribute, 0, |upstream: Upstream| {
            upstreams.push(upstream);
            Ok::<_, Refusal>(())
        })?;
        Ok(Group {
            label: group.label,
            selection: group.selection,
            upstreams,
        })
    })
}

fn told_part(attributes: Attributes<'_>) -> Result<(SetPart, Vec<Element>), Refusal> {
    one(attributes, kind::SET, |attribute| {
        let mut elements = Vec::new();
        let part = SetPart::read(attribute)?;
        read_elements(attribute, |_, element| {
            elements.push(element);
            Ok::<_, Refusal>(())
        })?;
        Ok((part, elements))
    })
}

fn add_part(sets: &mut Vec<Set>, part: &SetPart, elements: Vec<Element>) -> Result<(), Error> {
    if let Some(proxy::Set { label, kind }) = part.set {
        sets.push(Set {
            label,
            kind,
            elements: Vec::new(),
        });
    }
    let number = usize::try_from(part.number).ok();
    let set = number.and_then(|number| sets.get_mut(number));
    let set = set.ok_or(Error::Protocol("a part of no set"))?;
    set.elements.extend(elements);
    Ok(())
}
