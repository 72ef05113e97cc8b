// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which context a message is about, what is done with it, and what is told of it.

use super::attribute::{Attribute, Attributes, NoRoom, Writer};
use super::message::{kind, UNKNOWN};
use super::refusal::Refusal;

/// Most bytes of a context's name.
pub const NAME_MAX: usize = 63;

/// The name of a context that stays: letters, digits, dots, dashes and underscores of ASCII; not empty, and not a dot first, so
/// that it can be the name of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContextName {
    bytes: [u8; NAME_MAX],
    length: u8,
}

impl ContextName {
    /// This name; `None` if it cannot be one.
    pub fn new(text: &[u8]) -> Option<Self> {
        let is_good =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if matches!(text.first(), None | Some(b'.')) || !text.iter().all(is_good) {
            return None;
        }
        let mut bytes = [0; NAME_MAX];
        for (to, from) in bytes.get_mut(..text.len())?.iter_mut().zip(text) {
            *to = *from;
        }
        let length = u8::try_from(text.len()).ok()?;
        Some(Self { bytes, length })
    }

    /// Its bytes, all of ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or(&self.bytes)
    }
}

impl core::fmt::Debug for ContextName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

pub(super) fn read_name(attribute: &Attribute<'_>) -> Result<ContextName, Refusal> {
    let message = c"a context's name is of letters, digits, '-', '_' and '.', 63 at most, and begins without a dot";
    ContextName::new(attribute.string()?).ok_or(Refusal::of(attribute, message))
}

/// Reads which context a message is about: the socket's own without a name.
///
/// # Errors
/// If an attribute is malformed, unknown, or cannot be a name.
pub fn read_which(attributes: Attributes<'_>) -> Result<Option<ContextName>, Refusal> {
    let mut name = None;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            kind::CONTEXT => name = Some(read_name(&attribute)?),
            _ => return Err(Refusal::of(&attribute, UNKNOWN)),
        }
    }
    Ok(name)
}

/// Writes it.
///
/// # Errors
/// If there is no room.
pub fn write_which(writer: &mut Writer<'_>, name: Option<&ContextName>) -> Result<(), NoRoom> {
    match name {
        Some(name) => writer.string(kind::CONTEXT, name.as_bytes()),
        None => Ok(()),
    }
}

/// What becomes of a configuration that is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Name of the context, which stays; `None`: the socket's own, which goes with it.
    pub context: Option<ContextName>,
    /// How often the context must have been configured; zero: there must be none.
    pub generation: Option<u32>,
    /// Nothing is changed.
    pub dry_run: bool,
}

impl Commit {
    /// Reads it.
    ///
    /// # Errors
    /// If an attribute is malformed, unknown, or has a value without a meaning.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let mut commit = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::CONTEXT => commit.context = Some(read_name(&attribute)?),
                kind::GENERATION => commit.generation = Some(attribute.u32()?),
                kind::DRY_RUN => {
                    attribute.flag()?;
                    commit.dry_run = true;
                }
                _ => return Err(Refusal::of(&attribute, UNKNOWN)),
            }
        }
        Ok(commit)
    }

    /// Writes it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_which(writer, self.context.as_ref())?;
        if let Some(generation) = self.generation {
            writer.u32(kind::GENERATION, generation)?;
        }
        match self.dry_run {
            true => writer.flag(kind::DRY_RUN),
            false => Ok(()),
        }
    }
}

/// What is told of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextInfo {
    /// Its name, if it stays.
    pub name: Option<ContextName>,
    /// How often it was configured.
    pub generation: u32,
    /// How many groups it has.
    pub groups: u32,
    /// How many upstreams all of them have.
    pub upstreams: u32,
    /// How many rules.
    pub rules: u32,
    /// How many sets.
    pub sets: u32,
}

impl ContextInfo {
    /// Writes it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_which(writer, self.name.as_ref())?;
        writer.u32(kind::GENERATION, self.generation)?;
        writer.u32(kind::GROUPS, self.groups)?;
        writer.u32(kind::UPSTREAMS, self.upstreams)?;
        writer.u32(kind::RULES, self.rules)?;
        writer.u32(kind::SETS, self.sets)
    }

    /// Reads it; attributes that are not known here are of a later version, and passed over.
    ///
    /// # Errors
    /// If an attribute is malformed.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let mut told = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                kind::CONTEXT => told.name = Some(read_name(&attribute)?),
                kind::GENERATION => told.generation = attribute.u32()?,
                kind::GROUPS => told.groups = attribute.u32()?,
                kind::UPSTREAMS => told.upstreams = attribute.u32()?,
                kind::RULES => told.rules = attribute.u32()?,
                kind::SETS => told.sets = attribute.u32()?,
                _ => {}
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::written;
    use super::*;

    #[test]
    fn names_can_be_those_of_files() {
        let longest = [b'x'; NAME_MAX];
        for good in [&b"a"[..], b"home-1.2_x", b"-", &longest] {
            let name = ContextName::new(good).unwrap();
            assert_eq!(name.as_bytes(), good);
            assert_eq!(format!("{name:?}").as_bytes(), good);
        }
        let too_long = [b'x'; NAME_MAX + 1];
        for bad in [
            &b""[..],
            b".",
            b"..",
            b".hidden",
            b"a/b",
            b"a b",
            b"\xc3\xa9",
            b"a\n",
            &too_long,
        ] {
            assert_eq!(ContextName::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let name = ContextName::new(b"home");
        for commit in [
            Commit::default(),
            Commit {
                context: name,
                generation: Some(0),
                dry_run: true,
            },
        ] {
            let bytes = written(|writer| commit.write(writer));
            assert_eq!(Commit::read(Attributes::new(&bytes)), Ok(commit));
        }
        for which in [None, name] {
            let bytes = written(|writer| write_which(writer, which.as_ref()));
            assert_eq!(read_which(Attributes::new(&bytes)), Ok(which));
        }
        let told = ContextInfo {
            name,
            generation: 1,
            groups: 2,
            upstreams: 3,
            rules: 4,
            sets: 5,
        };
        let bytes = written(|writer| {
            writer.u32(999, 0)?;
            told.write(writer)
        });
        assert_eq!(ContextInfo::read(Attributes::new(&bytes)), Ok(told));
    }

    #[test]
    fn what_has_no_meaning_is_refused_where_it_stands() {
        let bytes = written(|writer| {
            writer.flag(kind::DRY_RUN)?;
            writer.string(kind::CONTEXT, b"a b")
        });
        let offset = |result: Result<_, Refusal>| result.unwrap_err().offset;
        assert_eq!(offset(Commit::read(Attributes::new(&bytes)).map(drop)), 4);
        assert_eq!(offset(read_which(Attributes::new(&bytes)).map(drop)), 0);
        let bytes = written(|writer| writer.u32(kind::DRY_RUN, 1));
        assert_eq!(offset(Commit::read(Attributes::new(&bytes)).map(drop)), 0);
    }
}
