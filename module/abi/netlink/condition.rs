// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Conditions of rules as attributes: see `mutex_proxy.yaml`.

use super::super::proxy::{Condition, Field, ValueKind, Values};
use super::attribute::{Attribute, NoRoom, Writer};
use super::configuration::{padded_name, small};
use super::message::UNKNOWN;
use super::refusal::Refusal;

/// Types of the attributes of a condition.
mod kind {
    pub(super) const FIELD: u16 = 1;
    pub(super) const NOT: u16 = 2;
    pub(super) const MASK: u16 = 3;
    pub(super) const FIRST: u16 = 4;
    pub(super) const LAST: u16 = 5;
    pub(super) const NAME: u16 = 6;
    pub(super) const SET: u16 = 7;
}

/// Reads a condition. That its set is there, and of what kind, is not its own matter.
///
/// # Errors
/// If an attribute is malformed, unknown or missing, has a value without a meaning, or contradicts another.
pub fn read_condition(attribute: &Attribute<'_>) -> Result<Condition, Refusal> {
    let (mut field, mut not, mut mask) = (None, false, None);
    let (mut first, mut last, mut name, mut set) = (None, None, None, None);
    for inner in attribute.nested()? {
        let inner = inner?;
        match inner.kind {
            kind::FIELD => {
                let unknown = Refusal::of(&inner, c"there is no such field");
                field = Some(Field::from_number(inner.u32()?).ok_or(unknown)?);
            }
            kind::NOT => {
                inner.flag()?;
                not = true;
            }
            kind::MASK => mask = Some(inner.u32()?),
            kind::FIRST => first = Some(inner.uint()?),
            kind::LAST => last = Some(inner.uint()?),
            kind::NAME => name = Some(padded_name(&inner, c"a name has 1 to 15 bytes")?),
            kind::SET => set = Some(small(&inner, c"there are 4096 sets at most")?),
            _ => return Err(Refusal::of(&inner, UNKNOWN)),
        }
    }
    let refused = |message| Refusal::of(attribute, message);
    let field: Field = field.ok_or(refused(c"a condition needs a field"))?;
    let values = match (first, last, name, set) {
        (Some(first), last, None, None) => Values::Range {
            first,
            last: last.unwrap_or(first),
        },
        (None, None, Some(name), None) => Values::Name(name),
        (None, None, None, Some(set)) => Values::Set(set),
        _ => {
            let message = c"a condition has either numbers from first to last, or a name, or a set";
            return Err(refused(message));
        }
    };
    match (field.kind(), values) {
        (_, Values::Set(_)) | (ValueKind::Names, Values::Name(_)) => {}
        (ValueKind::Numbers, Values::Range { first, last }) => {
            if last < first {
                return Err(refused(c"the last number is less than the first"));
            }
            if last > field.greatest() {
                return Err(refused(c"the field has no number so great"));
            }
        }
        _ => {
            return Err(refused(
                c"the field has no such values: addresses come in sets",
            ))
        }
    }
    if mask.is_some() && field != Field::Mark {
        return Err(refused(c"only a mark is masked"));
    }
    Ok(Condition {
        field,
        not,
        mask: mask.unwrap_or(u32::MAX),
        values,
    })
}

/// Writes a condition.
///
/// # Errors
/// If there is no room.
pub fn write_condition(writer: &mut Writer<'_>, kind: u16, one: &Condition) -> Result<(), NoRoom> {
    writer.nest(kind, |writer| {
        writer.u32(kind::FIELD, one.field as u32)?;
        if one.not {
            writer.flag(kind::NOT)?;
        }
        if one.mask != u32::MAX {
            writer.u32(kind::MASK, one.mask)?;
        }
        match one.values {
            Values::Range { first, last } => {
                writer.u64(kind::FIRST, first)?;
                writer.u64(kind::LAST, last)
            }
            Values::Name(name) => {
                let text = name.split(|&byte| byte == 0).next();
                writer.string(kind::NAME, text.unwrap_or_default())
            }
            Values::Set(number) => writer.u32(kind::SET, number.into()),
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::attribute::Attributes;
    use super::super::message::tests::{specified, written};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let names = specified("MUTEX_PROXY_A_CONDITION_");
        let numbers = [
            ("FIELD", kind::FIELD),
            ("NOT", kind::NOT),
            ("MASK", kind::MASK),
            ("FIRST", kind::FIRST),
            ("LAST", kind::LAST),
            ("NAME", kind::NAME),
            ("SET", kind::SET),
        ];
        assert_eq!(numbers.map(|(name, _)| name).to_vec(), names);
        assert!(numbers.iter().map(|(_, number)| *number).eq(1..=7));
    }

    fn read(bytes: &[u8]) -> Result<Condition, Refusal> {
        read_condition(&Attributes::new(bytes).next().unwrap().unwrap())
    }

    fn refused(write: impl Fn(&mut Writer<'_>) -> Result<(), NoRoom>) -> &'static core::ffi::CStr {
        let bytes = written(|writer| writer.nest(1, |writer| write(writer)));
        read(&bytes).unwrap_err().message
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let field = |writer: &mut Writer<'_>, field: Field| writer.u32(kind::FIELD, field as u32);
        let either = c"a condition has either numbers from first to last, or a name, or a set";
        let values = c"the field has no such values: addresses come in sets";
        assert_eq!(refused(|_| Ok(())), c"a condition needs a field");
        assert_eq!(refused(|w| w.u32(1, 99)), c"there is no such field");
        assert_eq!(refused(|w| field(w, Field::User)), either);
        assert_eq!(
            refused(|w| {
                field(w, Field::User)?;
                w.u64(kind::FIRST, 1)?;
                w.u32(kind::SET, 1)
            }),
            either
        );
        for wrong in [Field::Source, Field::Program] {
            assert_eq!(
                refused(|w| {
                    field(w, wrong)?;
                    w.u64(kind::FIRST, 1)
                }),
                values
            );
        }
        assert_eq!(
            refused(|w| {
                field(w, Field::Mark)?;
                w.string(kind::NAME, b"a")
            }),
            values
        );
        assert_eq!(
            refused(|w| {
                field(w, Field::Dscp)?;
                w.u64(kind::FIRST, 64)
            }),
            c"the field has no number so great"
        );
        assert_eq!(
            refused(|w| {
                field(w, Field::Dscp)?;
                w.u64(kind::FIRST, 6)?;
                w.u64(kind::LAST, 5)
            }),
            c"the last number is less than the first"
        );
        assert_eq!(
            refused(|w| {
                field(w, Field::User)?;
                w.u32(kind::MASK, 1)?;
                w.u64(kind::FIRST, 6)
            }),
            c"only a mark is masked"
        );
        assert_eq!(
            refused(|w| {
                field(w, Field::Program)?;
                w.string(kind::NAME, b"")
            }),
            c"a name has 1 to 15 bytes"
        );
    }

    /// Any that can be said.
    pub fn any_condition() -> impl Strategy<Value = Condition> {
        let field = prop::sample::select(&Field::ALL[..]);
        (
            field,
            any::<bool>(),
            any::<[u64; 2]>(),
            "[a-z]{1,15}",
            any::<bool>(),
            0_u16..4096,
        )
            .prop_map(|(field, not, numbers, text, is_set, set)| {
                let greatest = u128::from(field.greatest()) + 1;
                let [one, other] = numbers.map(|number| (u128::from(number) % greatest) as u64);
                let mut name = [0; 16];
                name[..text.len()].copy_from_slice(text.as_bytes());
                let values = match field.kind() {
                    ValueKind::Numbers if !is_set => Values::Range {
                        first: one.min(other),
                        last: one.max(other),
                    },
                    ValueKind::Names if !is_set => Values::Name(name),
                    _ => Values::Set(set),
                };
                let masked = field == Field::Mark && not;
                Condition {
                    field,
                    not,
                    mask: if masked { 0xff00 } else { u32::MAX },
                    values,
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(condition in any_condition()) {
            let bytes = written(|writer| write_condition(writer, 1, &condition));
            prop_assert_eq!(read(&bytes), Ok(condition));
        }
    }
}
