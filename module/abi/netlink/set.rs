// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sets as attributes, in parts: see `mutex_proxy.yaml`.

use super::super::proxy::set::Element;
use super::super::proxy::{Label, Set, ValueKind, NAME_SIZE};
use super::attribute::{Attribute, NoRoom, Writer};
use super::configuration::{put_label, read_label};
use super::message::UNKNOWN;
use super::refusal::Refusal;

/// Types of the attributes of a set.
mod kind {
    pub(super) const NUMBER: u16 = 1;
    pub(super) const LABEL: u16 = 2;
    pub(super) const KIND: u16 = 3;
    pub(super) const IPV4: u16 = 4;
    pub(super) const IPV6: u16 = 5;
    pub(super) const NUMBERS: u16 = 6;
    pub(super) const NAMES: u16 = 7;
    pub(super) const ELEMENTS: u16 = 8;
}

/// A part of a set, without its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetPart {
    /// How many sets are before this one.
    pub number: u32,
    /// The set, where it begins.
    pub set: Option<Set>,
    /// Where it begins and it is told: how many elements it has.
    pub elements: Option<u32>,
}

impl SetPart {
    /// Reads what a part says of its set.
    ///
    /// # Errors
    /// If an attribute is malformed, unknown or missing, or has a value without a meaning. Elements are not looked at.
    pub fn read(attribute: &Attribute<'_>) -> Result<Self, Refusal> {
        let (mut number, mut label, mut kind, mut elements) = (None, None, None, None);
        for inner in attribute.nested()? {
            let inner = inner?;
            match inner.kind {
                kind::NUMBER => number = Some(inner.u32()?),
                kind::LABEL => label = Some(read_label(&inner)?),
                kind::KIND => {
                    let message = c"a set has addresses (0), numbers (1) or names (2)";
                    let unknown = Refusal::of(&inner, message);
                    kind = Some(ValueKind::from_number(inner.u32()?).ok_or(unknown)?);
                }
                kind::ELEMENTS => elements = Some(inner.u32()?),
                kind::IPV4 | kind::IPV6 | kind::NUMBERS | kind::NAMES => {}
                _ => return Err(Refusal::of(&inner, UNKNOWN)),
            }
        }
        let refused = |message| Refusal::of(attribute, message);
        if kind.is_none() && label.is_some() {
            return Err(refused(c"only the first part of a set has a label"));
        }
        Ok(Self {
            number: number.ok_or(refused(c"a set needs a number"))?,
            set: kind.map(|kind| Set {
                label: label.unwrap_or(Label::NONE),
                kind,
            }),
            elements,
        })
    }
}

fn whole<const N: usize, E: From<Refusal>>(
    attribute: &Attribute<'_>,
    mut take: impl FnMut([u8; N]) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = attribute.bytes().map_err(Refusal::from)?;
    let piece = || Refusal::of(attribute, c"there is a piece of an element");
    let mut elements = bytes.chunks(N);
    elements.try_for_each(|one| take(<[u8; N]>::try_from(one).map_err(|_| piece())?))
}

// Halves of a range.
fn halves<const N: usize, const HALF: usize>(bytes: [u8; N]) -> [[u8; HALF]; 2] {
    let mut both = [[0; HALF]; 2];
    for (to, from) in both.as_flattened_mut().iter_mut().zip(bytes) {
        *to = from;
    }
    both
}

/// Hands on each element of a part, in its order.
///
/// # Errors
/// If an attribute is malformed, or `take` refuses an element: `take` is told the attribute that it is in.
pub fn read_elements<E: From<Refusal>>(
    attribute: &Attribute<'_>,
    mut take: impl FnMut(&Attribute<'_>, Element) -> Result<(), E>,
) -> Result<(), E> {
    for inner in attribute.nested().map_err(Refusal::from)? {
        let inner = inner.map_err(Refusal::from)?;
        let mut take = |element| take(&inner, element);
        match inner.kind {
            kind::IPV4 => whole(&inner, |bytes: [u8; 8]| {
                take(Element::V4(halves(bytes).map(u32::from_be_bytes)))
            })?,
            kind::IPV6 => whole(&inner, |bytes: [u8; 32]| {
                take(Element::V6(halves(bytes).map(u128::from_be_bytes)))
            })?,
            kind::NUMBERS => whole(&inner, |bytes: [u8; 16]| {
                take(Element::Number(halves(bytes).map(u64::from_ne_bytes)))
            })?,
            kind::NAMES => whole(&inner, |bytes: [u8; NAME_SIZE]| {
                let mut parts = bytes.splitn(2, |&byte| byte == 0);
                let is_some = parts.next().is_some_and(|name| !name.is_empty());
                let rest = parts.next();
                if !is_some || !rest.is_some_and(|rest| rest.iter().all(|&byte| byte == 0)) {
                    let message = c"a name has 1 to 15 bytes, and zeros behind them";
                    return Err(Refusal::of(&inner, message).into());
                }
                take(Element::Name(bytes))
            })?,
            _ => {}
        }
    }
    Ok(())
}

/// Writes a part of a set: as many elements, from the first on, as there are of one sort one behind the other, and room for.
///
/// # Errors
/// If there is no room for any of them.
pub fn write_part(
    writer: &mut Writer<'_>,
    kind: u16,
    part: &SetPart,
    elements: &mut core::iter::Peekable<impl Iterator<Item = Element>>,
    room: usize,
) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        writer.u32(kind::NUMBER, part.number)?;
        if let Some(set) = part.set {
            put_label(writer, kind::LABEL, &set.label)?;
            writer.u32(kind::KIND, set.kind as u32)?;
        }
        if let Some(count) = part.elements {
            writer.u32(kind::ELEMENTS, count)?;
        }
        let Some(first) = elements.peek().copied() else {
            return Ok(());
        };
        let same =
            |other: &Element| core::mem::discriminant(other) == core::mem::discriminant(&first);
        let sort = match first {
            Element::V4(_) => kind::IPV4,
            Element::V6(_) => kind::IPV6,
            Element::Number(_) => kind::NUMBERS,
            Element::Name(_) => kind::NAMES,
        };
        writer.stream(sort, room, |bytes| {
            let Some(element) = elements.peek().copied().filter(same) else {
                return 0;
            };
            let written = put(element, bytes);
            if written > 0 {
                elements.next();
            }
            written
        })
    })
}

// Writes an element, if there is room; how many bytes it has.
fn put(element: Element, bytes: &mut [u8]) -> usize {
    fn copy<const N: usize, const HALF: usize>(halves: [[u8; HALF]; 2], to: &mut [u8]) -> usize {
        match to.get_mut(..N) {
            Some(place) => {
                for (to, from) in place.iter_mut().zip(halves.as_flattened()) {
                    *to = *from;
                }
                N
            }
            None => 0,
        }
    }
    match element {
        Element::V4(range) => copy::<8, 4>(range.map(u32::to_be_bytes), bytes),
        Element::V6(range) => copy::<32, 16>(range.map(u128::to_be_bytes), bytes),
        Element::Number(range) => copy::<16, 8>(range.map(u64::to_ne_bytes), bytes),
        Element::Name(name) => {
            let [a, b] = halves::<16, 8>(name);
            copy::<16, 8>([a, b], bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::super::message::tests::{specified, written};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let numbers = [
            ("NUMBER", kind::NUMBER),
            ("LABEL", kind::LABEL),
            ("KIND", kind::KIND),
            ("IPV4", kind::IPV4),
            ("IPV6", kind::IPV6),
            ("NUMBERS", kind::NUMBERS),
            ("NAMES", kind::NAMES),
            ("ELEMENTS", kind::ELEMENTS),
        ];
        let names = specified("MUTEX_PROXY_A_SET_");
        assert_eq!(numbers.map(|(name, _)| name).to_vec(), names);
        assert!(numbers.iter().map(|(_, number)| *number).eq(1..=8));
    }

    fn read(bytes: &[u8]) -> Result<(SetPart, Vec<Element>), Refusal> {
        let attribute = Attributes::new(bytes).next().unwrap().unwrap();
        let part = SetPart::read(&attribute)?;
        let mut elements = Vec::new();
        read_elements(&attribute, |_, element| {
            elements.push(element);
            Ok::<_, Refusal>(())
        })?;
        Ok((part, elements))
    }

    #[test]
    fn addresses_are_in_network_byte_order() {
        let bytes = written(|writer| {
            writer.nest(1, |writer| {
                writer.u32(kind::NUMBER, 3)?;
                writer.bytes(kind::IPV4, &[10, 0, 0, 1, 10, 0, 2, 255])
            })
        });
        let (part, elements) = read(&bytes).unwrap();
        assert_eq!((part.number, part.set, part.elements), (3, None, None));
        assert_eq!(elements, [Element::V4([0x0a00_0001, 0x0a00_02ff])]);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let refused = |write: &dyn Fn(&mut Writer<'_>) -> Result<(), NoRoom>| {
            let bytes = written(|writer| writer.nest(1, |writer| write(writer)));
            read(&bytes).unwrap_err().message
        };
        assert_eq!(refused(&|_| Ok(())), c"a set needs a number");
        assert_eq!(
            refused(&|w| w.u32(kind::KIND, 3)),
            c"a set has addresses (0), numbers (1) or names (2)"
        );
        assert_eq!(refused(&|w| w.u32(99, 3)), UNKNOWN);
        assert_eq!(
            refused(&|w| {
                w.u32(kind::NUMBER, 3)?;
                w.string(kind::LABEL, b"late")
            }),
            c"only the first part of a set has a label"
        );
        assert_eq!(
            refused(&|w| {
                w.u32(kind::NUMBER, 3)?;
                w.bytes(kind::IPV6, &[0; 33])
            }),
            c"there is a piece of an element"
        );
        for wrong in [[0; 16], [b'a'; 16], *b"a\0b\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(
                refused(&|w| {
                    w.u32(kind::NUMBER, 3)?;
                    w.bytes(kind::NAMES, &wrong)
                }),
                c"a name has 1 to 15 bytes, and zeros behind them"
            );
        }
    }

    fn any_element() -> impl Strategy<Value = Element> {
        prop_oneof![
            any::<[u32; 2]>().prop_map(Element::V4),
            any::<[u128; 2]>().prop_map(Element::V6),
            any::<[u64; 2]>().prop_map(Element::Number),
            "[a-z]{1,15}".prop_map(|text| {
                let mut name = [0; NAME_SIZE];
                name[..text.len()].copy_from_slice(text.as_bytes());
                Element::Name(name)
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_set_is_what_its_parts_are(
            elements in prop::collection::vec(any_element(), 0..40),
            room in 40_usize..200,
        ) {
            let set = Set { label: Label::new(b"home").unwrap(), kind: ValueKind::Names };
            let mut part = SetPart { number: 7, set: Some(set), elements: Some(40) };
            let mut left = elements.iter().copied().peekable();
            let mut found = Vec::new();
            loop {
                let bytes = written(|writer| write_part(writer, 1, &part, &mut left, room));
                let (said, more) = read(&bytes).unwrap();
                prop_assert_eq!(said, part);
                prop_assert!(!more.is_empty() || elements.is_empty());
                prop_assert!(bytes.len() <= room + 100);
                found.extend(more);
                (part.set, part.elements) = (None, None);
                if left.peek().is_none() {
                    break;
                }
            }
            prop_assert_eq!(found, elements);
        }
    }
}
