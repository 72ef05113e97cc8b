// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests over Generic Netlink, and their answers (Documentation/userspace-api/netlink/intro.rst).

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use mutex_abi::netlink::attribute::{Attributes, NoRoom, Writer};
use netlink_packet_core::{
    NetlinkBuffer, NLMSG_DONE, NLMSG_ERROR, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use crate::error::{Error, Refused};

/// Bytes of `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// Bytes of `struct genlmsghdr`: command, version, and two reserved ones.
const GENERIC_HEADER: usize = 4;
/// The dump is not of one moment: what is dumped changed meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Attributes follow in an acknowledgement.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG: a sentence.
const ACK_MESSAGE: u16 = 1;
/// NLMSGERR_ATTR_OFFS: bytes from the beginning of the request's message to the attribute that is wrong.
const ACK_OFFSET: u16 = 2;

/// GENL_ID_CTRL, the family that knows all others.
const CONTROLLER: u16 = 16;
/// CTRL_CMD_GETFAMILY.
const GET_FAMILY: u8 = 3;
/// CTRL_ATTR_FAMILY_ID.
const FAMILY_ID: u16 = 1;
/// CTRL_ATTR_MCAST_GROUPS.
const GROUPS: u16 = 7;
/// CTRL_ATTR_MCAST_GRP_NAME.
const GROUP_NAME: u16 = 1;
/// CTRL_ATTR_MCAST_GRP_ID.
const GROUP_ID: u16 = 2;
/// CTRL_ATTR_FAMILY_NAME.
const FAMILY_NAME: u16 = 2;
/// The controller's version that has all of this.
const CONTROLLER_VERSION: u8 = 2;

/// What is told in answers, each as the attributes of a message.
pub(crate) type Answers = Vec<Vec<u8>>;

/// A socket of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct GenericSocket {
    socket: Socket,
    sequence: u32,
}

/// Which family and command of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) family: u16,
    pub(crate) version: u8,
    pub(crate) command: u8,
}

impl GenericSocket {
    pub(crate) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        Self::of(socket)
    }

    /// A socket of this family that was opened elsewhere.
    pub(crate) fn adopt(descriptor: OwnedFd) -> Result<Self, Error> {
        // SAFETY: the descriptor is owned, and nobody else's from here on. If it is no socket of this family, what follows fails.
        Self::of(unsafe { Socket::from_raw_fd(descriptor.into_raw_fd()) })
    }

    fn of(socket: Socket) -> Result<Self, Error> {
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        // Without what was asked, which is known here.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The number of the family with this name, of at most 15 letters.
    pub(crate) fn family(&mut self, name: &str) -> Result<u16, Error> {
        let answers = self.about(name)?;
        let attributes = answers.iter().flat_map(|bytes| Attributes::new(bytes));
        let mut found = attributes.flatten().filter(|one| one.kind == FAMILY_ID);
        let bytes = found.next().and_then(|id| id.bytes().ok());
        let id = bytes.and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
        id.map(u16::from_ne_bytes)
            .ok_or(Error::Protocol("a family without a number"))
    }

    /// Listens to a multicast group of a family.
    pub(crate) fn join(&mut self, family: &str, group: &str) -> Result<(), Error> {
        let answers = self.about(family)?;
        let attributes = answers.iter().flat_map(|bytes| Attributes::new(bytes));
        let groups = attributes.flatten().filter(|one| one.kind == GROUPS);
        // A list, each element of which has a name and a number; the controller does not mark what is nested.
        let within = |bytes| Attributes::new(bytes).flatten();
        let elements = groups.filter_map(|one| one.bytes().ok()).flat_map(within);
        let number = elements
            .filter_map(|one| Some(within(one.bytes().ok()?)))
            .find_map(|parts| {
                let (mut is_it, mut number) = (false, None);
                for part in parts {
                    match part.kind {
                        GROUP_NAME => is_it = part.string() == Ok(group.as_bytes()),
                        GROUP_ID => number = part.u32().ok(),
                        _ => {}
                    }
                }
                number.filter(|_| is_it)
            });
        let number = number.ok_or(Error::Protocol("the family has no such group"))?;
        self.socket.add_membership(number)?;
        Ok(())
    }

    /// What the controller tells of a family.
    fn about(&mut self, name: &str) -> Result<Answers, Error> {
        let mut bytes = [0; 64];
        let mut writer = Writer::new(&mut bytes);
        let written = writer.string(FAMILY_NAME, name.as_bytes());
        written.map_err(|NoRoom| Error::Protocol("the family's name is too long"))?;
        let length = writer.written();
        let target = Target {
            family: CONTROLLER,
            version: CONTROLLER_VERSION,
            command: GET_FAMILY,
        };
        match self.ask(target, &bytes[..length]) {
            Err(Error::Refused(refused)) if refused.errno == NO_ENTRY => Err(Error::NoModule),
            answers => answers,
        }
    }

    /// Waits for messages of a family that nobody asked for: the number of the command, and the attributes, of each.
    pub(crate) fn listen(&self, family: u16) -> Result<Vec<(u8, Vec<u8>)>, Error> {
        const CUT: Error = Error::Protocol("a message that is cut short");
        let (received, _) = self.socket.recv_from_full()?;
        let (mut all, mut rest) = (Vec::new(), &received[..]);
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(|_| CUT)?;
            let payload = rest
                .get(NETLINK_HEADER..message.length() as usize)
                .ok_or(CUT)?;
            if message.message_type() == family {
                let (header, attributes) =
                    payload.split_first_chunk::<GENERIC_HEADER>().ok_or(CUT)?;
                all.push((header[0], attributes.to_vec()));
            }
            let length = message.length() as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(all)
    }

    /// Asks for something to be done or told.
    pub(crate) fn ask(&mut self, target: Target, attributes: &[u8]) -> Result<Answers, Error> {
        self.send(target, NLM_F_ACK, attributes)?;
        let (answers, _) = self.receive()?;
        Ok(answers)
    }

    /// Asks for all of something, as it is at one moment.
    pub(crate) fn dump(&mut self, target: Target, attributes: &[u8]) -> Result<Answers, Error> {
        loop {
            self.send(target, NLM_F_DUMP, attributes)?;
            let (answers, interrupted) = self.receive()?;
            if !interrupted {
                return Ok(answers);
            }
        }
    }

    fn send(&mut self, target: Target, flags: u16, attributes: &[u8]) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = NETLINK_HEADER + GENERIC_HEADER + attributes.len();
        let mut bytes = vec![0; length];
        let mut message = NetlinkBuffer::new(&mut bytes);
        let too_long = |_| Error::Protocol("the request is too long for a message");
        message.set_length(u32::try_from(length).map_err(too_long)?);
        message.set_message_type(target.family);
        message.set_flags(NLM_F_REQUEST | flags);
        message.set_sequence_number(self.sequence);
        let (header, rest) = bytes[NETLINK_HEADER..].split_at_mut(GENERIC_HEADER);
        header[..2].copy_from_slice(&[target.command, target.version]);
        rest.copy_from_slice(attributes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    // All answers to the last request, and whether they are not of one moment.
    fn receive(&self) -> Result<(Answers, bool), Error> {
        const CUT: Error = Error::Protocol("a message that is cut short");
        let (mut answers, mut interrupted) = (Vec::new(), false);
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = &received[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| CUT)?;
                let length = message.length() as usize;
                let payload = rest.get(NETLINK_HEADER..length).ok_or(CUT)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                // What is left of a request that was given up.
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_ERROR => {
                        return acknowledged(payload, NETLINK_HEADER, message.flags())
                            .map(|()| (answers, interrupted));
                    }
                    NLMSG_DONE => {
                        return acknowledged(payload, 0, message.flags())
                            .map(|()| (answers, interrupted));
                    }
                    _ => {
                        let attributes = payload.get(GENERIC_HEADER..).ok_or(CUT)?;
                        answers.push(attributes.to_vec());
                    }
                }
            }
        }
    }
}

/// ENOENT.
const NO_ENTRY: i32 = 2;

/// What an acknowledgement says: a number, what was asked (so many bytes of it), and attributes.
fn acknowledged(payload: &[u8], asked: usize, flags: u16) -> Result<(), Error> {
    const CUT: Error = Error::Protocol("an acknowledgement that is cut short");
    let (code, rest) = payload.split_first_chunk::<4>().ok_or(CUT)?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(());
    }
    let (mut message, mut offset) = (None, None);
    if flags & NLM_F_ACK_TLVS != 0 {
        let attributes = rest.get(asked..).ok_or(CUT)?;
        for attribute in Attributes::new(attributes).flatten() {
            match attribute.kind {
                ACK_MESSAGE => {
                    let text = attribute.string().unwrap_or_default();
                    message = Some(String::from_utf8_lossy(text).into_owned());
                }
                ACK_OFFSET => {
                    let from_header = attribute.u32().unwrap_or_default() as usize;
                    offset = from_header.checked_sub(NETLINK_HEADER + GENERIC_HEADER);
                }
                _ => {}
            }
        }
    }
    Err(Error::Refused(Refused {
        errno: code.wrapping_neg(),
        message,
        offset,
        item: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_what_and_where() {
        let mut payload = (-22_i32).to_ne_bytes().to_vec();
        payload.extend([7; NETLINK_HEADER]);
        let mut attributes = [0; 64];
        let mut writer = Writer::new(&mut attributes);
        writer.string(ACK_MESSAGE, b"no").unwrap();
        writer.u32(ACK_OFFSET, 28).unwrap();
        let length = writer.written();
        payload.extend(&attributes[..length]);
        let told = acknowledged(&payload, NETLINK_HEADER, NLM_F_ACK_TLVS);
        let Err(Error::Refused(refused)) = told else {
            panic!("{told:?}");
        };
        assert_eq!(refused.errno, 22);
        assert_eq!(refused.message.as_deref(), Some("no"));
        assert_eq!(refused.offset, Some(8));
        let told = acknowledged(&payload, NETLINK_HEADER, 0);
        assert!(matches!(
            told,
            Err(Error::Refused(Refused {
                message: None,
                offset: None,
                ..
            }))
        ));
        assert!(acknowledged(&[0; 20], NETLINK_HEADER, 0).is_ok());
        assert!(matches!(
            acknowledged(&[0; 3], 0, 0),
            Err(Error::Protocol(_))
        ));
    }
}
