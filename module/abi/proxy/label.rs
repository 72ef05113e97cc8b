// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What people call a rule or a group.

/// Most bytes of a label.
pub const LABEL_MAX: usize = 31;

/// A text of UTF-8 without control characters, which means nothing to the proxy; empty if there is none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Label {
    // Filled up with zeros.
    bytes: [u8; LABEL_MAX],
}

impl Label {
    /// None.
    pub const NONE: Self = Self {
        bytes: [0; LABEL_MAX],
    };

    /// This text; `None` if it cannot be one.
    pub fn new(text: &[u8]) -> Option<Self> {
        if core::str::from_utf8(text)
            .ok()?
            .chars()
            .any(char::is_control)
        {
            return None;
        }
        let mut label = Self::NONE;
        for (to, from) in label.bytes.get_mut(..text.len())?.iter_mut().zip(text) {
            *to = *from;
        }
        Some(label)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let mut parts = self.bytes.split(|&byte| byte == 0);
        core::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default()
    }
}

impl core::fmt::Debug for Label {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_texts() {
        for good in ["", "web", "é ü", "x".repeat(LABEL_MAX).as_str()] {
            assert_eq!(Label::new(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in [
            &b"a\0b"[..],
            b"\n",
            b"\xff",
            b"\x1b[1m",
            &[b'x'; LABEL_MAX + 1],
        ] {
            assert_eq!(Label::new(bad), None, "{bad:?}");
        }
    }
}
