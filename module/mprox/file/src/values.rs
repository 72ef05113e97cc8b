// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists of a file become values of conditions: numbers, names and addresses, in order and without repetition.

use mutex_abi::proxy::rule::is_name;
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{Family, Field, NAME_SIZE};
use toml_mistake::{Mistake, Place};

use crate::networks::Network;
use crate::rules::{in_list, mistake};
use crate::system::System;
use crate::text::{NumberText, OneOrMany};

/// What a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Networks,
    Ports,
    Interfaces,
    Users,
    Groups,
    ControlGroups,
    Programs,
}

impl Sort {
    /// What rules call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Networks => "networks",
            Self::Ports => "ports",
            Self::Interfaces => "interfaces",
            Self::Users => "users",
            Self::Groups => "groups",
            Self::ControlGroups => "cgroups",
            Self::Programs => "programs",
        }
    }

    fn greatest(self) -> u64 {
        match self {
            Self::Ports => Field::DestinationPort.greatest(),
            _ => Field::User.greatest(),
        }
    }
}

const EMPTY: &str = "the list is empty, so the rule can never match";

/// Numbers: in order, with some number between one range and the next.
pub(crate) fn numbers(
    at: &[Place],
    sort: Sort,
    texts: &OneOrMany<NumberText>,
    system: &dyn System,
) -> Result<Vec<(u64, u64)>, Mistake> {
    let mut all = Vec::new();
    for (place, text) in texts.all() {
        let range = number(sort, text, system).map_err(|message| in_list(at, place, message))?;
        all.push(range);
    }
    joined(at, all)
}

/// Ranges that were said in any order.
pub(crate) fn joined(at: &[Place], mut all: Vec<(u64, u64)>) -> Result<Vec<(u64, u64)>, Mistake> {
    if all.is_empty() {
        return Err(mistake(at, EMPTY));
    }
    all.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

fn number(sort: Sort, text: &NumberText, system: &dyn System) -> Result<(u64, u64), String> {
    let text = match text {
        NumberText::One(number) => {
            let number = u64::from(*number);
            return match number <= sort.greatest() {
                true => Ok((number, number)),
                false => Err(format!("{number} is more than {}", sort.greatest())),
            };
        }
        NumberText::Text(text) => text,
    };
    let one = |text: &str| {
        let number = text.trim().parse::<u64>().ok();
        number.filter(|number| *number <= sort.greatest())
    };
    let range = match text.split_once('-') {
        None => one(text).map(|number| (number, number)),
        Some((first, last)) => one(first).zip(one(last)),
    };
    match (range, sort) {
        (Some((first, last)), _) if first > last => {
            Err(format!("the range `{text}` ends before it begins"))
        }
        (Some(range), _) => Ok(range),
        (None, Sort::Users) => system
            .user(text)
            .map(|number| (number.into(), number.into())),
        (None, Sort::Groups) => system
            .group(text)
            .map(|number| (number.into(), number.into())),
        (None, _) => Err(format!(
            "`{text}` is no port such as 80, and no range such as \"8000-8099\""
        )),
    }
}

/// A mark, and the bits of it that count.
pub(crate) fn mark(text: &NumberText) -> Result<(u32, u32), String> {
    let text = match text {
        NumberText::One(mark) => return Ok((*mark, u32::MAX)),
        NumberText::Text(text) => text,
    };
    let wrong = || format!("`{text}` is no mark such as 1, \"0x1\" or \"0x100/0xff00\"");
    let one = |text: &str| {
        let text = text.trim();
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).map_err(|_| wrong()),
            None => text.parse().map_err(|_| wrong()),
        }
    };
    let (mark, mask) = match text.split_once('/') {
        None => (one(text)?, u32::MAX),
        Some((mark, mask)) => (one(mark)?, one(mask)?),
    };
    match mark & !mask {
        0 => Ok((mark, mask)),
        _ => Err(format!(
            "`{text}` has bits that the mask leaves out: no packet has such a mark"
        )),
    }
}

/// A code point: RFC 2474 (`cs0` to `cs7`), RFC 2597 (`af11` to `af43`), RFC 3246 (`ef`), RFC 5865 (`va`), RFC 8622 (`le`).
pub(crate) fn dscp(text: &NumberText) -> Result<u8, String> {
    let text = match text {
        NumberText::One(number) => {
            let number = u8::try_from(*number).ok().filter(|number| *number < 64);
            return number.ok_or_else(|| "a code point is at most 63".to_owned());
        }
        NumberText::Text(text) => text.as_str(),
    };
    let digits: Vec<u8> = text
        .bytes()
        .skip(2)
        .map(|digit| digit.wrapping_sub(b'0'))
        .collect();
    match (text.get(..2), &digits[..]) {
        _ if text == "ef" => Ok(46),
        _ if text == "va" => Ok(44),
        _ if text == "le" => Ok(1),
        (Some("cs"), [class @ 0..=7]) => Ok(class * 8),
        (Some("af"), [class @ 1..=4, drop @ 1..=3]) => Ok(class * 8 + drop * 2),
        _ => Err(format!("`{text}` is no code point: 0 to 63, \"ef\", \"va\", \"le\", \"cs0\" to \"cs7\", \"af11\" to \"af43\"")),
    }
}

/// Names of interfaces or programs, in order.
pub(crate) fn names(
    at: &[Place],
    sort: Sort,
    texts: &OneOrMany<String>,
) -> Result<Vec<[u8; NAME_SIZE]>, Mistake> {
    let mut all = Vec::new();
    for (place, text) in texts.all() {
        let wrong = |message| in_list(at, place, message);
        let mut bytes = [0; NAME_SIZE];
        let fits = (1..NAME_SIZE).contains(&text.len()) && !text.contains('\0');
        if fits {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
        }
        match sort {
            Sort::Interfaces if !fits || !is_name(&bytes) => {
                return Err(wrong(format!("no interface can be called `{text}`")));
            }
            _ if !fits => {
                return Err(wrong(format!(
                    "`{text}` is no name of a process, which has 1 to 15 bytes: `ps -o comm` shows what is left of longer ones"
                )));
            }
            _ => all.push(bytes),
        }
    }
    if all.is_empty() {
        return Err(mistake(at, EMPTY));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Numbers of control groups.
pub(crate) fn control_groups(
    at: &[Place],
    texts: &OneOrMany<String>,
    system: &dyn System,
) -> Result<Vec<(u64, u64)>, Mistake> {
    let mut all = Vec::new();
    for (place, path) in texts.all() {
        if !path.starts_with('/') {
            let message =
                format!("`{path}` is no path of a control group, such as \"/user.slice\"");
            return Err(in_list(at, place, message));
        }
        let number = system.control_group(path);
        let number = number.map_err(|message| in_list(at, place, message))?;
        all.push((number, number));
    }
    joined(at, all)
}

/// Networks, none of which is in another, in order; those of IPv4 first.
pub(crate) fn networks(at: &[Place], texts: &OneOrMany<String>) -> Result<Vec<Network>, Mistake> {
    let mut all = Vec::new();
    for (place, text) in texts.all() {
        let networks = Network::parse_all(text);
        all.extend(networks.map_err(|message| in_list(at, place, message))?);
    }
    match all.is_empty() {
        true => Err(mistake(at, EMPTY)),
        false => Ok(apart(all)),
    }
}

/// Networks of a file's lines.
///
/// # Errors
/// The line and column that are wrong, both from 1 on, and how.
pub(crate) fn network_lines(bytes: &[u8]) -> Result<Vec<Network>, (usize, usize, String)> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let line = std::str::from_utf8(line).map_err(|error| {
            let good = line.get(..error.valid_up_to()).unwrap_or_default();
            let column = String::from_utf8_lossy(good).chars().count() + 1;
            (number, column, "this is not UTF-8".to_owned())
        })?;
        let text = line.split('#').next().unwrap_or_default();
        let column = text.chars().take_while(|char| char.is_whitespace()).count() + 1;
        let text = text.trim();
        if !text.is_empty() {
            all.push(Network::parse(text).map_err(|message| (number, column, message))?);
        }
    }
    Ok(all)
}

/// Each network once, and none that is in another, in order; those of IPv4 first.
pub(crate) fn apart(mut all: Vec<Network>) -> Vec<Network> {
    all.sort_unstable_by_key(|network| (network.family as u8, network.address, network.prefix));
    // A network is right behind those that it is in, or behind others that are in these.
    let mut kept: Vec<Network> = Vec::with_capacity(all.len());
    for network in all {
        if !kept.last().is_some_and(|last| last.has(&network)) {
            kept.push(network);
        }
    }
    kept
}

/// What is in a set of such networks, which are in order.
pub(crate) fn elements(networks: &[Network]) -> Vec<Element> {
    let mut all: Vec<Element> = Vec::new();
    for network in networks {
        let first = u128::from_be_bytes(network.address);
        let behind = match network.prefix {
            128 => 0,
            prefix => u128::MAX >> prefix,
        };
        let last = first | behind;
        // Neighbours are one element.
        match (network.family, all.last_mut()) {
            (Family::V4, Some(Element::V4([_, end])))
                if u64::from(*end) + 1 == (first >> 96) as u64 =>
            {
                *end = (last >> 96) as u32;
            }
            (Family::V4, _) => all.push(Element::V4([(first >> 96) as u32, (last >> 96) as u32])),
            (Family::V6, Some(Element::V6([_, end]))) if end.checked_add(1) == Some(first) => {
                *end = last
            }
            (Family::V6, _) => all.push(Element::V6([first, last])),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> NumberText {
        NumberText::Text(text.to_owned())
    }

    #[test]
    fn marks_and_code_points_are_read() {
        assert_eq!(mark(&NumberText::One(7)), Ok((7, u32::MAX)));
        assert_eq!(mark(&text("0x10")), Ok((16, u32::MAX)));
        assert_eq!(mark(&text("0x100/0xff00")), Ok((0x100, 0xff00)));
        for bad in ["", "x", "0x", "1/2/3", "0x100/0xff", "-1"] {
            assert!(mark(&text(bad)).is_err(), "{bad}");
        }
        for (name, point) in [
            ("ef", 46),
            ("va", 44),
            ("le", 1),
            ("cs0", 0),
            ("cs7", 56),
            ("af11", 10),
            ("af43", 38),
        ] {
            assert_eq!(dscp(&text(name)), Ok(point), "{name}");
        }
        assert_eq!(dscp(&NumberText::One(63)), Ok(63));
        assert!(dscp(&NumberText::One(64)).is_err());
        for bad in ["", "e", "cs8", "af14", "af51", "cs", "é", "af111"] {
            assert!(dscp(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_of_networks_are_read() {
        let read =
            network_lines(b"10.0.0.0/8 # ours\n\n# all\n10.1.0.0/16\r\n2001:db8::1\n").unwrap();
        let read: Vec<_> = read.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::1"]);
        let place = |bytes| network_lines(bytes).map_err(|(line, column, _)| (line, column));
        assert_eq!(place(b"::1\n  x\n"), Err((2, 3)));
        assert_eq!(place(b"::1\n\n\xff\n"), Err((3, 1)));
        assert_eq!(place(b"::1 # \xc3\xa9\xff\n"), Err((1, 8)));
    }

    fn has(element: &Element, address: u128) -> bool {
        match element {
            Element::V4([first, last]) => {
                (u128::from(*first)..=u128::from(*last)).contains(&(address >> 96))
            }
            Element::V6([first, last]) => (first..=last).contains(&&address),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_set_has_what_one_of_its_networks_has(
            networks in prop::collection::vec((any::<bool>(), any::<u8>(), 0_u8..=8), 0..30),
        ) {
            // Of the first byte alone, so that they meet.
            let networks: Vec<_> = networks
                .into_iter()
                .map(|(six, byte, prefix)| {
                    let mut address = [0; 16];
                    address[0] = (u16::from(byte) & !(0xff_u16 >> prefix)) as u8;
                    let family = if six { Family::V6 } else { Family::V4 };
                    Network { family, address, prefix }
                })
                .collect();
            let elements = elements(&apart(networks.clone()));
            for (family, byte) in [Family::V4, Family::V6].into_iter().flat_map(|family| (0..=255).map(move |byte| (family, byte))) {
                let mut address = [0; 16];
                address[0] = byte;
                let host = Network { family, address, prefix: 8 };
                let expected = networks.iter().any(|network| network.has(&host));
                let of_family = elements.iter().filter(|element| matches!(element, Element::V4(_)) == (family == Family::V4));
                let found: Vec<_> = of_family.collect();
                let address = u128::from_be_bytes(address);
                prop_assert_eq!(found.iter().any(|element| has(element, address)), expected);
            }
            // In order, and apart.
            let mut before: Option<(u8, u128)> = None;
            for element in &elements {
                let (family, first, last) = match element {
                    Element::V4([first, last]) => (4, u128::from(*first), u128::from(*last)),
                    Element::V6([first, last]) => (6, *first, *last),
                    _ => unreachable!(),
                };
                prop_assert!(before.is_none_or(|(of, end)| of < family || end.checked_add(1).is_some_and(|next| next < first)));
                before = Some((family, last));
            }
        }
    }
}
