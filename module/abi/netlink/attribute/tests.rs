// SPDX-License-Identifier: GPL-2.0 OR MIT

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
