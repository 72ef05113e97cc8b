// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages to the netlink family as nobody would send them: right ones, of which bytes, lengths, types and order are changed at random.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use mprox_client::{Client, ContextName};
use mutex_abi::netlink::attribute::{NoRoom, Writer};
use mutex_abi::netlink::configuration::{write_group, write_rule};
use mutex_abi::netlink::context::{write_which, Commit};
use mutex_abi::netlink::message::{kind, Command, FAMILY, VERSION};
use mutex_abi::netlink::set::{write_part, SetPart};
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{
    self, Action, Condition, Connection, Endpoint, Field, Label, Selection, Set, ValueKind, Values,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::socket::{recv, send, MsgFlags};

use super::control::ensure_redirected;
use super::setup::{all_rules, original, sized, Setup};
use super::sockets::udp;
use super::GuestTest;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context::configuration;
use mutexlab_model::random::Random;
use mutexlab_model::traffic::{Family, Way};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "messages-at-random",
            "20,000 random messages (4,000 on a debug kernel) harm nothing, and are answered at once",
            || at_random(sized(20_000, 4000)?),
        ),
        GuestTest::single(
            "a-million-messages",
            "a million random messages harm nothing, and are answered at once",
            || at_random(1_000_000),
        )
        .nightly()
        .lasting(Duration::from_secs(3600)),
    ]
}

/// Bytes of `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// Room for the attributes of a message.
const ROOM: usize = 4096;
/// Message flags: NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// NLMSG_ERROR, which an acknowledgement is, too.
const ERROR: u16 = 2;
/// Who send at the same time.
const SOCKETS: usize = 4;
/// Of names of contexts, so that others' are met.
const NAMES: [&str; 3] = ["a", "b", "a longer name"];

fn at_random(messages: u32) -> Result<()> {
    let setup = Setup::new()?;
    let mut random = Random::new(0x6d75_7465_7870_726f);
    let router = &setup.layout.router;
    let family = family(router)?;
    let open = || Raw::open(router, family);
    let mut sockets = (0..SOCKETS).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let mut told = Told::default();
    for number in 0..messages {
        let at = random.below(SOCKETS);
        if random.one_in(200) {
            sockets[at] = open()?;
        }
        let (command, attributes) = message(&mut random);
        sockets[at]
            .send(&mut random, command, attributes)
            .and_then(|()| sockets[at].receive(&mut told))
            .with_context(|| format!("message {number}"))?;
        if random.one_in(100) {
            datagram(&setup, &mut random)?;
        }
    }
    drop(sockets);
    // Else nothing but the refusal of nonsense was tried.
    for (what, count) in [
        ("done", told.done),
        ("refused", told.refused),
        ("answers", told.answers),
    ] {
        ensure!(
            count > messages / 50,
            "of {messages} messages, {count} {what}"
        );
    }
    let mut client = router.run(|| Ok(Client::open()?))?;
    for context in client.contexts()? {
        let name = context.name.context("a context without a name is told")?;
        client.delete(&name)?;
    }
    drop(client);
    let context = setup.context(&all_rules())?;
    ensure_redirected(&setup, true, 1).context("after all of them")?;
    drop(context);
    setup.finish()
}

/// The family's number, as the controller tells it.
fn family(namespace: &Namespace) -> Result<u16> {
    const CONTROLLER: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let socket = Raw::open(namespace, CONTROLLER)?;
    let attributes = written(|to| to.string(FAMILY_NAME, FAMILY.as_bytes()));
    socket.send_bytes(&framed(
        CONTROLLER,
        REQUEST,
        [GET_FAMILY, 2, 0, 0],
        &attributes,
    ))?;
    let mut buffer = [0; ROOM];
    let length = recv(socket.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = buffer
        .get(NETLINK_HEADER + GENERIC_HEADER..length)
        .context("no family is told")?;
    mutex_abi::netlink::attribute::Attributes::new(answer)
        .flatten()
        .find(|attribute| attribute.kind == FAMILY_ID)
        .and_then(|id| id.bytes().ok()?.try_into().ok())
        .map(u16::from_ne_bytes)
        .context("no number of the family is told")
}

fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut bytes = vec![0; ROOM];
    let mut writer = Writer::new(&mut bytes);
    // What has no room is left out.
    let _ = write(&mut writer);
    let length = writer.written();
    bytes.truncate(length);
    bytes
}

fn framed(family: u16, flags: u16, generic: [u8; 4], attributes: &[u8]) -> Vec<u8> {
    let length = NETLINK_HEADER + GENERIC_HEADER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(generic);
    bytes.extend(attributes);
    bytes
}

/// What the kernel answered.
#[derive(Debug, Default)]
struct Told {
    done: u32,
    refused: u32,
    answers: u32,
}

/// A socket on which anything is sent.
struct Raw(Socket, u16);

impl Raw {
    fn open(namespace: &Namespace, family: u16) -> Result<Self> {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_GENERIC).context("no socket")?;
            socket.bind_auto().context("cannot bind a socket")?;
            socket.set_ext_ack(true).context("no extended ACK")?;
            Ok(socket)
        })?;
        Ok(Self(socket, family))
    }

    fn send(&self, random: &mut Random, command: u8, mut attributes: Vec<u8>) -> Result<()> {
        let is_right = random.one_in(3);
        if !is_right {
            for _ in 0..=random.below(3) {
                spoil(random, &mut attributes);
            }
        }
        let command = match random.one_in(50) {
            true => random.below(256) as u8,
            false => command,
        };
        let is_dump = matches!(
            Command::from_number(command),
            Some(Command::GroupGet | Command::UpstreamGet | Command::RuleGet | Command::SetGet)
        ) || random.one_in(20);
        let flags = match is_dump {
            true => DUMP,
            false => ACKNOWLEDGE,
        };
        let flags = match random.one_in(50) {
            true => random.next() as u16,
            false => flags,
        };
        let version = match random.one_in(50) {
            true => random.below(4) as u8,
            false => VERSION,
        };
        let mut bytes = framed(
            self.1,
            REQUEST | flags,
            [command, version, 0, 0],
            &attributes,
        );
        if random.one_in(50) {
            let length = random.below(bytes.len() + 8) as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
        }
        self.send_bytes(&bytes)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        match send(self.0.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error).context("cannot send"),
        }
    }

    /// Takes all answers: whoever has sent has them, since the kernel answers within sendmsg(2), and goes on with a dump
    /// within recvmsg(2).
    fn receive(&self, told: &mut Told) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(()),
                // Answers that nobody took.
                Err(Errno::ENOBUFS) => continue,
                Err(error) => return Err(error).context("cannot receive"),
            };
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let (Some(header), true) = (rest.get(..NETLINK_HEADER), rest.len() >= 20) else {
                    bail!("an answer of {} bytes", rest.len());
                };
                let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
                let size = size as usize;
                ensure!(
                    (20..=rest.len()).contains(&size),
                    "an answer's length is {size}"
                );
                let code = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
                match u16::from_ne_bytes([header[4], header[5]]) {
                    ERROR if code == 0 => told.done += 1,
                    ERROR => {
                        ensure!((-4095..0).contains(&code), "an error is {code}");
                        told.refused += 1;
                    }
                    _ => told.answers += 1,
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn name(random: &mut Random) -> Option<ContextName> {
    match random.one_in(3) {
        true => None,
        false => ContextName::new(random.pick(&NAMES).as_bytes()),
    }
}

/// A message that means something, and may be taken.
fn message(random: &mut Random) -> (u8, Vec<u8>) {
    let command = random.pick(&[
        Command::Stage,
        Command::Stage,
        Command::Stage,
        Command::Stage,
        Command::Stage,
        Command::Commit,
        Command::Commit,
        Command::Commit,
        Command::ContextGet,
        Command::ContextDel,
        Command::GroupGet,
        Command::UpstreamGet,
        Command::RuleGet,
        Command::SetGet,
        Command::StatisticsGet,
        Command::OriginalGet,
    ]);
    let attributes = written(|to| match command {
        Command::Stage => stage(random, to),
        Command::Commit => Commit {
            context: name(random),
            generation: random.one_in(20).then(|| random.below(5) as u32),
            dry_run: random.one_in(4),
        }
        .write(to),
        Command::OriginalGet => connection(random).write(to),
        Command::StatisticsGet => Ok(()),
        _ => write_which(to, name(random).as_ref()),
    });
    (command as u8, attributes)
}

fn connection(random: &mut Random) -> Connection {
    let end = |random: &mut Random| Endpoint {
        address: [random.below(3) as u8; 16],
        port: random.below(3) as u16,
    };
    let (local, remote) = (end(random), end(random));
    Connection {
        family: random.pick(&[proxy::Family::V4, proxy::Family::V6]),
        protocol: random.pick(&[proxy::Protocol::Tcp, proxy::Protocol::Udp]),
        local,
        remote,
    }
}

/// A whole configuration, or a part of one.
fn stage(random: &mut Random, to: &mut Writer<'_>) -> Result<(), NoRoom> {
    if !random.one_in(4) {
        to.flag(kind::BEGIN)?;
    }
    let mut rules = all_rules();
    rules.truncate(random.below(rules.len() + 1));
    let selection = random.pick(&[
        Selection::RoundRobin,
        Selection::Failover,
        Selection::Random,
    ]);
    let mut whole = configuration(selection, &rules);
    for group in &whole.groups {
        let about = proxy::Group {
            label: group.label,
            selection: group.selection,
        };
        write_group(to, kind::GROUP, &about, group.upstreams.iter().copied())?;
    }
    let sets = random.below(3) as u32;
    for number in 0..sets {
        set(random, number, to)?;
    }
    for rule in &mut whole.rules {
        rule.action = match random.below(8) {
            0 => Action::Drop,
            1 => Action::Reject,
            2 => Action::Direct,
            _ => rule.action,
        };
        for _ in 0..random.below(3) {
            // There is room for more.
            let _ = rule.conditions.push(condition(random, sets));
        }
        write_rule(to, kind::RULE, rule)?;
    }
    Ok(())
}

fn set(random: &mut Random, number: u32, to: &mut Writer<'_>) -> Result<(), NoRoom> {
    let kind = random.pick(&[ValueKind::Addresses, ValueKind::Numbers, ValueKind::Names]);
    let elements: Vec<Element> = (0..random.below(20))
        .map(|_| {
            let first = random.below(1 << 16) as u32;
            let last = first + random.below(100) as u32;
            match kind {
                ValueKind::Addresses if random.one_in(2) => Element::V4([first, last]),
                ValueKind::Addresses => Element::V6([first.into(), last.into()]),
                ValueKind::Numbers => Element::Number([first.into(), last.into()]),
                ValueKind::Names => {
                    let mut name = [0; proxy::NAME_SIZE];
                    name[0] = b'a' + first as u8 % 26;
                    Element::Name(name)
                }
            }
        })
        .collect();
    let part = SetPart {
        number,
        set: Some(Set {
            label: Label::NONE,
            kind,
        }),
        elements: None,
    };
    let mut elements = elements.into_iter().peekable();
    write_part(to, self::kind::SET, &part, &mut elements, ROOM / 4)
}

fn condition(random: &mut Random, sets: u32) -> Condition {
    let values = match random.below(3) {
        0 => Values::Set(random.below(sets as usize + 1) as u16),
        _ => Values::Range {
            first: random.below(3) as u64,
            last: random.below(4) as u64,
        },
    };
    Condition {
        field: random.pick(&Field::ALL),
        not: random.one_in(2),
        mask: random.pick(&[u32::MAX, 0, 1]),
        values,
    }
}

/// Changes something.
fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    let place = |random: &mut Random, length: usize| random.below(length / 4 + 1) * 4;
    match random.below(8) {
        0 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        // A length, or another number of two bytes.
        1 | 2 if bytes.len() >= 4 => {
            let at = place(random, bytes.len() - 4);
            let value = random.pick(&[0_u16, 1, 3, 4, 5, 8, 20, 0x7fff, 0xffff]);
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        // A type.
        3 if bytes.len() >= 4 => {
            let at = place(random, bytes.len() - 4) + 2;
            let nested = random.pick(&[0_u16, 1 << 15, 1 << 14]);
            let value = random.below(24) as u16 | nested;
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        4 => bytes.truncate(random.below(bytes.len() + 1)),
        // Something twice, or not at all.
        5 | 6 => {
            let ends = [0, 1].map(|_| place(random, bytes.len()).min(bytes.len()));
            let (first, last) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            let piece = bytes[first..last].to_vec();
            match random.one_in(2) && bytes.len() < ROOM {
                true => bytes.splice(last..last, piece).for_each(drop),
                false => bytes.drain(first..last).for_each(drop),
            }
        }
        // Something new.
        _ => {
            let mut piece = vec![0; 4 + random.below(6) * 4];
            random.fill(&mut piece[4..]);
            let length = (piece.len() - random.below(4)) as u16;
            piece[..2].copy_from_slice(&length.max(4).to_ne_bytes());
            let kind = random.below(24) as u16 | random.pick(&[0, 1 << 15]);
            piece[2..4].copy_from_slice(&kind.to_ne_bytes());
            let at = place(random, bytes.len()).min(bytes.len());
            bytes.splice(at..at, piece).for_each(drop);
        }
    }
}

/// A first packet, for whatever rules there are; it may arrive or not.
fn datagram(setup: &Setup, random: &mut Random) -> Result<()> {
    let family = random.pick(&[Family::V4, Family::V6]);
    let any: SocketAddr = match family {
        Family::V4 => ([0; 4], 0).into(),
        Family::V6 => ([0_u16; 8], 0).into(),
    };
    let socket = udp(setup.client(random.pick(&[Way::Forward, Way::Local])), any)?;
    // A rule may say that it is refused.
    let _ = socket.send_to(b"x", original(family));
    Ok(())
}
