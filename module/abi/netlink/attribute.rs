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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `libmnl` and `nla_put()` have them, byte by byte.
    #[test]
    fn they_lie_as_the_kernel_has_them() {
        let mut bytes = [0xff; 64];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(1, 0x0102_0304).unwrap();
        writer.string(2, b"hello").unwrap();
        writer.nest(3, |inner| inner.flag(4)).unwrap();
        let written = writer.written();
        let expected = [
            &8_u16.to_ne_bytes()[..],
            &1_u16.to_ne_bytes(),
            &0x0102_0304_u32.to_ne_bytes(),
            &10_u16.to_ne_bytes(),
            &2_u16.to_ne_bytes(),
            b"hello\0\0\0",
            &8_u16.to_ne_bytes(),
            &0x8003_u16.to_ne_bytes(),
            &4_u16.to_ne_bytes(),
            &4_u16.to_ne_bytes(),
        ];
        assert_eq!(bytes[..written], expected.concat());
        assert!(bytes[written..].iter().all(|&byte| byte == 0xff));
    }

    fn only(bytes: &[u8]) -> Attribute<'_> {
        Attributes::new(bytes).next().unwrap().unwrap()
    }

    #[test]
    fn what_is_not_whole_is_refused_where_it_begins() {
        let mut bytes = [0; 16];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(1, 7).unwrap();
        writer.u32(2, 8).unwrap();
        fn second(bytes: &[u8]) -> Result<Attribute<'_>, Malformed> {
            Attributes::new(bytes).nth(1).unwrap()
        }
        for (length, what) in [(9, Flaw::Short), (11, Flaw::Short), (15, Flaw::Length)] {
            let refused = Err(Malformed { offset: 8, what });
            assert_eq!(second(&bytes[..length]), refused, "{length} bytes");
            let mut rest = Attributes::new(&bytes[..length]);
            assert_eq!(rest.by_ref().count(), 2, "nothing follows an error");
        }
        bytes[8..10].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(second(&bytes).unwrap_err().what, Flaw::Length);
        bytes[8..10].copy_from_slice(&9_u16.to_ne_bytes());
        assert_eq!(second(&bytes).unwrap_err().what, Flaw::Length);
    }

    #[test]
    fn the_last_one_need_not_be_padded() {
        let mut bytes = [0; 8];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(1, &[5]).unwrap();
        let attribute = only(&bytes[..5]);
        assert_eq!(attribute.bytes(), Ok(&[5][..]));
        assert_eq!(Attributes::new(&bytes[..5]).count(), 1);
    }

    #[test]
    fn values_are_of_their_type() {
        let mut bytes = [0; 32];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(1, b"abc").unwrap();
        writer.nest(2, |inner| inner.flag(1)).unwrap();
        let written = writer.written();
        let all: Vec<_> = Attributes::new(&bytes[..written])
            .map(Result::unwrap)
            .collect();
        let plain = all[0];
        for read in [plain.u32().map(drop), plain.u64().map(drop), plain.flag()] {
            assert_eq!(read, Err(plain.is(Flaw::Size)));
        }
        assert_eq!(plain.string(), Err(plain.is(Flaw::String)));
        assert_eq!(plain.nested().err(), Some(plain.is(Flaw::Nesting)));
        let nested = all[1];
        assert_eq!(nested.bytes(), Err(nested.is(Flaw::Nesting)));
        assert_eq!(nested.flag(), Err(nested.is(Flaw::Nesting)));
        let inner = nested.nested().unwrap().next().unwrap().unwrap();
        assert_eq!((inner.kind, inner.offset), (1, 12));
        for (text, good) in [
            (&b"a\0"[..], true),
            (b"\0", true),
            (b"", false),
            (b"a", false),
            (b"a\0\0", false),
        ] {
            let mut bytes = [0; 8];
            let mut writer = Writer::new(&mut bytes);
            writer.bytes(1, text).unwrap();
            assert_eq!(
                only(&bytes[..HEADER + text.len()]).string().is_ok(),
                good,
                "{text:?}"
            );
        }
        let mut ordered = [0; 4];
        ordered[..2].copy_from_slice(&4_u16.to_ne_bytes());
        ordered[2..].copy_from_slice(&0x4001_u16.to_ne_bytes());
        let refused = Attributes::new(&ordered).next().unwrap().unwrap_err();
        assert_eq!(refused.what, Flaw::Nesting);
    }

    #[test]
    fn what_does_not_fit_leaves_the_rest_whole() {
        let mut bytes = [0; 20];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(1, 7).unwrap();
        let nested = writer.nest(2, |inner| {
            inner.u32(3, 1)?;
            inner.u32(4, 2)
        });
        assert_eq!((nested, writer.written()), (Err(NoRoom), 8));
        writer.nest(2, |inner| inner.u32(3, 1)).unwrap();
        assert_eq!(writer.bytes(5, &[]), Err(NoRoom));
        assert_eq!(writer.written(), 20);
        let mut large = vec![0; 1 << 17];
        let mut writer = Writer::new(&mut large);
        assert_eq!(
            writer.bytes(1, &[0; 1 << 16]),
            Err(NoRoom),
            "a length has 16 bits"
        );
        let many = writer.nest(1, |inner| (0..9000).try_for_each(|_| inner.u32(1, 1)));
        assert_eq!((many, writer.written()), (Err(NoRoom), 0));
    }

    /// A tree of attributes.
    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Bytes(u16, Vec<u8>),
        Nest(u16, Vec<Tree>),
    }

    impl Tree {
        fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
            match self {
                Self::Bytes(kind, value) => writer.bytes(*kind, value),
                Self::Nest(kind, inner) => writer.nest(*kind, |writer| {
                    inner.iter().try_for_each(|tree| tree.write(writer))
                }),
            }
        }

        fn read(attributes: Attributes<'_>) -> Result<Vec<Self>, Malformed> {
            attributes
                .map(|attribute| {
                    let attribute = attribute?;
                    Ok(match attribute.nested() {
                        Ok(inner) => Self::Nest(attribute.kind, Self::read(inner)?),
                        Err(_) => Self::Bytes(attribute.kind, attribute.bytes()?.to_vec()),
                    })
                })
                .collect()
        }
    }

    fn any_tree() -> impl Strategy<Value = Tree> {
        let kind = 0_u16..1 << 14;
        let leaf = (kind.clone(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(kind, value)| Tree::Bytes(kind, value));
        leaf.prop_recursive(3, 12, 4, move |inner| {
            (kind.clone(), prop::collection::vec(inner, 0..4))
                .prop_map(|(kind, inner)| Tree::Nest(kind, inner))
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(trees in prop::collection::vec(any_tree(), 0..4)) {
            let mut bytes = vec![0; 1 << 12];
            let mut writer = Writer::new(&mut bytes);
            for tree in &trees {
                tree.write(&mut writer).unwrap();
            }
            let written = writer.written();
            prop_assert_eq!(written % 4, 0);
            prop_assert_eq!(Tree::read(Attributes::new(&bytes[..written])).unwrap(), trees);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for attribute in Attributes::new(&bytes) {
                match attribute {
                    Ok(one) => prop_assert!(one.offset + HEADER + one.value.len() <= bytes.len()),
                    Err(refused) => prop_assert!(refused.offset < bytes.len()),
                }
            }
        }
    }
}
