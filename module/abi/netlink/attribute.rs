// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Attributes of netlink messages: type, length and value, padded to four bytes (include/uapi/linux/netlink.h, `struct nlattr`).
//!
//! Numbers are in the byte order of the machine. Reading checks what `nla_parse()` of the kernel's checks where it is strict: that
//! headers and values lie in the message, that nothing is left over, and that what is nested says so.

/// Bytes of an attribute's header: its length with the header, and its type.
pub const HEADER: usize = 4;
/// Of a type: the value is attributes (NLA_F_NESTED).
const NESTED: u16 = 1 << 15;
/// Of a type: the value is in network byte order (NLA_F_NET_BYTEORDER), which no attribute here is marked as.
const NET_BYTE_ORDER: u16 = 1 << 14;

/// Why attributes were refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Bytes from the beginning of the outermost attributes to the one that is wrong.
    pub offset: usize,
    /// What is wrong with it.
    pub what: Flaw,
}

/// What can be wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Fewer bytes than a header has.
    Short,
    /// Its length is less than that of a header, or more than there is.
    Length,
    /// The value has not the length that its type has.
    Size,
    /// It is nested and should not be, or the other way round; or it is in network byte order.
    Nesting,
    /// A string does not end with its only zero byte.
    String,
}

/// An attribute of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without flags.
    pub kind: u16,
    /// Bytes from the beginning of the outermost attributes to its header.
    pub offset: usize,
    nested: bool,
    value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// What is wrong with it, at its place.
    pub const fn is(&self, what: Flaw) -> Malformed {
        Malformed {
            offset: self.offset,
            what,
        }
    }

    /// The attributes in it.
    ///
    /// # Errors
    /// If it is not nested.
    pub fn nested(&self) -> Result<Attributes<'a>, Malformed> {
        if !self.nested {
            return Err(self.is(Flaw::Nesting));
        }
        Ok(Attributes {
            rest: self.value,
            offset: self.offset.saturating_add(HEADER),
        })
    }

    /// Its bytes.
    ///
    /// # Errors
    /// If it is nested.
    pub fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.nested {
            true => Err(self.is(Flaw::Nesting)),
            false => Ok(self.value),
        }
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes()?;
        <[u8; N]>::try_from(bytes).map_err(|_| self.is(Flaw::Size))
    }

    /// Its number of 32 bits.
    ///
    /// # Errors
    /// If it is nested or of another length.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Its number of 64 bits.
    ///
    /// # Errors
    /// If it is nested or of another length.
    pub fn u64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Its number of 32 or 64 bits.
    ///
    /// # Errors
    /// If it is nested or of another length.
    pub fn uint(&self) -> Result<u64, Malformed> {
        match self.bytes()?.len() {
            4 => self.u32().map(u64::from),
            _ => self.u64(),
        }
    }

    /// Nothing: that it is there says it all.
    ///
    /// # Errors
    /// If it has a value.
    pub fn flag(&self) -> Result<(), Malformed> {
        self.array().map(|[]: [u8; 0]| ())
    }

    /// Its text, of any encoding, without the zero byte at its end.
    ///
    /// # Errors
    /// If it is nested, or does not end with its only zero byte.
    pub fn string(&self) -> Result<&'a [u8], Malformed> {
        match self.bytes()?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(text),
            _ => Err(self.is(Flaw::String)),
        }
    }
}

/// Attributes, one after the other. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    /// Those of a message, from behind its headers on.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            offset: 0,
        }
    }

    fn read(&mut self) -> Result<Attribute<'a>, Malformed> {
        let offset = self.offset;
        let fault = |what| Malformed { offset, what };
        let Some((header, behind)) = self.rest.split_first_chunk::<HEADER>() else {
            return Err(fault(Flaw::Short));
        };
        let [a, b, c, d] = *header;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]);
        let size = length.checked_sub(HEADER).ok_or(fault(Flaw::Length))?;
        let value = behind.get(..size).ok_or(fault(Flaw::Length))?;
        if kind & NET_BYTE_ORDER != 0 {
            return Err(fault(Flaw::Nesting));
        }
        // The last one need not be padded.
        self.rest = behind.get(aligned(size)..).unwrap_or_default();
        self.offset = offset.saturating_add(aligned(length));
        Ok(Attribute {
            kind: kind & !NESTED,
            offset,
            nested: kind & NESTED != 0,
            value,
        })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

/// `length` with padding.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// There is no room for an attribute. What was written before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Writes attributes one behind the other.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    // Not more than there are.
    written: usize,
}

impl<'a> Writer<'a> {
    /// Into these bytes.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, written: 0 }
    }

    /// How many bytes have been written; a multiple of four.
    pub fn written(&self) -> usize {
        self.written
    }

    fn header(kind: u16, length: usize) -> Option<[u8; HEADER]> {
        let [a, b] = u16::try_from(length).ok()?.to_ne_bytes();
        let [c, d] = kind.to_ne_bytes();
        Some([a, b, c, d])
    }

    /// Writes an attribute with these bytes.
    ///
    /// # Errors
    /// If there is no room, or they are too many for one.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> Result<(), NoRoom> {
        self.parts(kind, &[value])
    }

    // With a value of several parts.
    fn parts(&mut self, kind: u16, value: &[&[u8]]) -> Result<(), NoRoom> {
        let lengths = value.iter().map(|part| part.len());
        let length = lengths.fold(HEADER, usize::saturating_add);
        let header = Self::header(kind, length).ok_or(NoRoom)?;
        let end = self.written.saturating_add(aligned(length));
        let place = self.bytes.get_mut(self.written..end).ok_or(NoRoom)?;
        let parts = core::iter::once(&header[..]).chain(value.iter().copied());
        let text = parts.flatten().chain(&[0; HEADER]);
        for (to, from) in place.iter_mut().zip(text) {
            *to = *from;
        }
        self.written = end;
        Ok(())
    }

    /// Writes an attribute with as many bytes as `more` gives, which puts the next ones into the room that is left and says how many;
    /// none is the end. It gets no more room than `room`.
    ///
    /// # Errors
    /// If there is no room for anything.
    pub fn stream(
        &mut self,
        kind: u16,
        room: usize,
        mut more: impl FnMut(&mut [u8]) -> usize,
    ) -> Result<(), NoRoom> {
        let begin = self.written.saturating_add(HEADER);
        let end = begin.saturating_add(room).min(self.bytes.len() & !3);
        let mut value = self.bytes.get_mut(begin..end).ok_or(NoRoom)?;
        let mut length = 0_usize;
        loop {
            let added = more(value);
            let Some(rest) = value.get_mut(added..).filter(|_| added > 0) else {
                break;
            };
            length = length.saturating_add(added);
            value = rest;
        }
        if length == 0 {
            return Err(NoRoom);
        }
        let whole = length.saturating_add(HEADER);
        let header = Self::header(kind, whole).ok_or(NoRoom)?;
        let padded = self.written.saturating_add(aligned(whole));
        let place = self.bytes.get_mut(self.written..padded).ok_or(NoRoom)?;
        for (number, to) in place.iter_mut().enumerate() {
            match header.get(number) {
                Some(from) => *to = *from,
                None if number >= whole => *to = 0,
                None => {}
            }
        }
        self.written = padded;
        Ok(())
    }

    /// Writes a number of 32 bits.
    ///
    /// # Errors
    /// If there is no room.
    pub fn u32(&mut self, kind: u16, value: u32) -> Result<(), NoRoom> {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Writes a number of 64 bits.
    ///
    /// # Errors
    /// If there is no room.
    pub fn u64(&mut self, kind: u16, value: u64) -> Result<(), NoRoom> {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Writes an attribute without a value.
    ///
    /// # Errors
    /// If there is no room.
    pub fn flag(&mut self, kind: u16) -> Result<(), NoRoom> {
        self.bytes(kind, &[])
    }

    /// Writes a text, which must not have a zero byte in it, with one behind it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn string(&mut self, kind: u16, text: &[u8]) -> Result<(), NoRoom> {
        self.parts(kind, &[text, &[0]])
    }

    /// Writes an attribute with those that `within` writes: all of it, or nothing.
    ///
    /// # Errors
    /// If there is no room, or `within` fails.
    pub fn nest(
        &mut self,
        kind: u16,
        within: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let begin = self.written;
        let whole = self.bytes.get_mut(begin..).ok_or(NoRoom)?;
        let (header, rest) = whole.split_first_chunk_mut::<HEADER>().ok_or(NoRoom)?;
        let mut inner = Writer::new(rest);
        within(&mut inner)?;
        let length = inner.written.saturating_add(HEADER);
        *header = Self::header(kind | NESTED, length).ok_or(NoRoom)?;
        self.written = begin.saturating_add(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
