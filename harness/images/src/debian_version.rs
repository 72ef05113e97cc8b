// SPDX-License-Identifier: MIT OR Apache-2.0

//! Versions of Debian's packages, ordered as dpkg orders them: deb-version(7).

use std::cmp::Ordering;

/// A package's version: `[epoch:]upstream[-revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianVersion(String);

impl DebianVersion {
    /// From its text, which may be any: nonsense is ordered somehow.
    pub fn new(text: &str) -> DebianVersion {
        DebianVersion(text.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (u64, &str, &str) {
        let (epoch, rest) = match self.0.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, self.0.as_str()),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl Ord for DebianVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (self.parts(), other.parts());
        ours.0
            .cmp(&theirs.0)
            .then_with(|| compare(ours.1, theirs.1))
            .then_with(|| compare(ours.2, theirs.2))
    }
}

impl PartialOrd for DebianVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares runs of other characters and runs of digits in turn.
fn compare(mut ours: &str, mut theirs: &str) -> Ordering {
    while !ours.is_empty() || !theirs.is_empty() {
        let (our_text, our_rest) = split(ours, |byte| !byte.is_ascii_digit());
        let (their_text, their_rest) = split(theirs, |byte| !byte.is_ascii_digit());
        let (our_digits, our_rest) = split(our_rest, |byte| byte.is_ascii_digit());
        let (their_digits, their_rest) = split(their_rest, |byte| byte.is_ascii_digit());
        let order = compare_text(our_text, their_text)
            .then_with(|| number(our_digits).cmp(&number(their_digits)));
        if order != Ordering::Equal {
            return order;
        }
        (ours, theirs) = (our_rest, their_rest);
    }
    Ordering::Equal
}

fn split(text: &str, is_part: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|byte| !is_part(byte))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// No digits are zero.
fn number(digits: &str) -> u64 {
    digits.parse().unwrap_or(0)
}

/// By character: `~` comes before the end, the end before letters, letters before the rest.
fn compare_text(ours: &str, theirs: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => 256 + i32::from(other),
    };
    let (mut ours, mut theirs) = (ours.bytes(), theirs.bytes());
    loop {
        let (our, their) = (ours.next(), theirs.next());
        match weight(our).cmp(&weight(their)) {
            Ordering::Equal if our.is_none() && their.is_none() => return Ordering::Equal,
            Ordering::Equal => {}
            order => return order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_by_dpkg() {
        // Each pair was compared by `dpkg --compare-versions`.
        for (less, more) in [
            ("7.3.4-1~bpo13+1", "7.3.4-1"),
            ("7.2.6-1~bpo13+1", "7.2.13-1"),
            ("6.12.9-1", "6.12.117-1~deb12u1"),
            ("6.12.117-1~deb12u1", "6.12.117-1"),
            ("6.12.117-1", "6.12.117-1+b1"),
            ("6.12.117-1", "6.12.118-1"),
            ("7.3~rc7-1~exp1", "7.3-1"),
            ("7.3-1", "7.3.1-1"),
            ("7.3.4-1", "1:7.2-1"),
            ("7.3.a-1", "7.3.+-1"),
        ] {
            let (less, more) = (DebianVersion::new(less), DebianVersion::new(more));
            assert!(less < more, "{less:?} {more:?}");
            assert!(more > less, "{less:?} {more:?}");
        }
        assert_eq!(
            DebianVersion::new("7.3-01").cmp(&DebianVersion::new("7.3-1")),
            Ordering::Equal
        );
    }
}
