// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers as plots and tables show them.

use crate::table;

/// With thousands apart; a digit behind the point where it says something.
pub fn plain(value: f64) -> String {
    let text = table::number(value);
    let text = text.strip_suffix(".0").unwrap_or(&text);
    match text.strip_prefix('-') {
        Some("0") => "0".to_owned(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text.to_owned(),
    }
}

/// With its sign, of which zero has none.
pub fn signed(value: f64) -> String {
    let text = plain(value);
    if text == "0" || value < 0.0 {
        text
    } else {
        format!("+{text}")
    }
}

/// From the least to the greatest, with their signs; none if there is nothing.
pub fn range(values: impl Iterator<Item = f64>) -> Option<String> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    (low <= high).then(|| {
        let (low, high) = (signed(low), signed(high));
        if low == high {
            low
        } else {
            format!("{low} to {high}")
        }
    })
}

/// A change in percent, with its sign.
pub fn percent(part: f64, whole: f64) -> Option<String> {
    (whole != 0.0).then(|| {
        let percent = 100.0 * part / whole.abs();
        let text = format!("{percent:+.1} %");
        match text.strip_prefix('-') {
            Some("0.0 %") => "0 %".to_owned(),
            Some(rest) => format!("\u{2212}{rest}"),
            None if text == "+0.0 %" => "0 %".to_owned(),
            None => text,
        }
    })
}

/// How many times `of` this is: `8.2`, `12`, `0.12`.
pub fn ratio(value: f64, of: f64) -> Option<String> {
    (of > 0.0 && value > 0.0).then(|| {
        let ratio = value / of;
        let digits = match ratio {
            ratio if ratio >= 20.0 => 0,
            ratio if ratio >= 2.0 => 1,
            _ => 2,
        };
        format!("{ratio:.digits$}")
    })
}

/// For ticks: short, with `k` and `M` from 10,000 on, and `decimals` below.
pub fn tick(value: f64, decimals: usize) -> String {
    let (value, decimals, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, 2, "G"),
        size if size >= 1e6 => (value / 1e6, 2, "M"),
        size if size >= 1e4 => (value / 1e3, 1, "k"),
        _ => (value, decimals, ""),
    };
    let text = format!("{value:.decimals$}");
    let text = if suffix.is_empty() {
        if decimals == 0 {
            plain(value)
        } else {
            text
        }
    } else {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let text = match text.strip_prefix('-') {
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    };
    text + suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_signed() {
        for (value, text) in [
            (0.0, "0"),
            (-0.01, "0"),
            (12.0, "+12"),
            (-1500.0, "\u{2212}1,500"),
        ] {
            assert_eq!(signed(value), text);
        }
        for (value, decimals, text) in [
            (0.0, 0, "0"),
            (0.25, 2, "0.25"),
            (5000.0, 0, "5,000"),
            (12_500.0, 0, "12.5k"),
            (1_000_000.0, 0, "1M"),
            (-20.0, 0, "\u{2212}20"),
        ] {
            assert_eq!(tick(value, decimals), text);
        }
        assert_eq!(percent(-3.0, 60.0).unwrap(), "\u{2212}5.0 %");
        assert_eq!(percent(0.0, 60.0).unwrap(), "0 %");
        assert_eq!(percent(1.0, 0.0), None);
        assert_eq!(ratio(1470.0, 179.0).unwrap(), "8.2");
        assert_eq!(ratio(1470.0, 0.0), None);
    }
}
