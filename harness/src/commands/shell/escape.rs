// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way out of a guest that does not let one out.

use std::time::{Duration, Instant};

/// Ctrl-].
const KEY: u8 = 0x1d;
/// How often it must be pressed, which nobody does by mistake.
const TIMES: usize = 3;
/// Within which time.
const WITHIN: Duration = Duration::from_secs(1);

/// Looks for the way out in what is typed.
#[derive(Debug, Default)]
pub struct Escape {
    /// When the key was pressed, with no other one in between.
    pressed: Vec<Instant>,
}

impl Escape {
    /// Whether somebody wants out, who has typed `bytes` now.
    pub fn is_in(&mut self, bytes: &[u8], now: Instant) -> bool {
        for &byte in bytes {
            if byte != KEY {
                self.pressed.clear();
                continue;
            }
            self.pressed.retain(|&before| now - before <= WITHIN);
            self.pressed.push(now);
            if self.pressed.len() == TIMES {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_in_a_second_is_out() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut escape = Escape::default();
        assert!(!escape.is_in(b"\x1d", at(0)));
        assert!(!escape.is_in(b"\x1d", at(500)));
        assert!(escape.is_in(b"\x1d", at(1000)));
        assert!(Escape::default().is_in(b"ls\x1d\x1d\x1d", at(0)));
    }

    #[test]
    fn other_keys_in_between_and_long_pauses_count_anew() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut escape = Escape::default();
        assert!(!escape.is_in(b"\x1d\x1da\x1d\x1d", at(0)));
        assert!(!escape.is_in(b"\x1d", at(1001)));
        assert!(!escape.is_in(b"\x1d", at(2000)));
        assert!(escape.is_in(b"\x1d", at(2001)));
    }
}
