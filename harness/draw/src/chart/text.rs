// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much room text takes: the page is drawn before any font is known.

/// The width of text of the given size. An estimate that errs on the wide side: its widths are
/// those of DejaVu Sans, the widest font that browsers take for `system-ui`.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(em).sum::<f64>() * size
}

/// The width of a character, in units of the font's size.
fn em(char: char) -> f64 {
    match char {
        'i' | 'l' | 'j' | '\'' => 0.28,
        '.' | ',' | ':' | ';' | '|' | '!' | ' ' => 0.34,
        'f' | 't' | 'r' | '-' | '(' | ')' | '[' | ']' | '/' | 'I' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '\u{2013}' | '\u{2212}' => 0.98,
        '0'..='9' | 'a'..='z' => 0.64,
        'A'..='Z' => 0.72,
        _ => 0.84,
    }
}

/// The text, cut to fit into `room`, with an ellipsis if it had to be.
pub fn fit(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for char in text.chars() {
        let longer = format!("{kept}{char}\u{2026}");
        if width(&longer, size) > room {
            break;
        }
        kept.push(char);
    }
    kept.truncate(kept.trim_end().len());
    kept + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_fits_is_kept_and_nothing_is_too_wide(text in "[ -~é]{0,40}", room in 12.0..400.0) {
            let fitted = fit(&text, 12.0, room);
            prop_assert!(width(&fitted, 12.0) <= room);
            prop_assert_eq!(fitted == text, width(&text, 12.0) <= room);
        }
    }
}
