// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parser's messages, in the words of who wrote the text and not of who wrote the program.

/// Characters of a quoted text that are shown at most.
const MAX_QUOTED: usize = 200;
/// Characters that are shown of a longer one.
const SHOWN: usize = 60;

/// What serde and `toml` say, with the names that TOML's own documentation has for types; `text` is what they say it of.
pub(crate) fn plain(message: &str, text: &str) -> String {
    // Of an enum of `toml`'s deserializer, of whose variants none has any content here.
    if message == "wanted string or table" {
        return "expected a text in quotes".to_owned();
    }
    // Those of an enum are its only values in a text.
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown value {rest}");
    }
    let wrong = ["invalid type: ", "invalid value: "];
    let pair = wrong.iter().find_map(|prefix| {
        // What is expected is the program's, and has no such words; what is found is the text's.
        message.strip_prefix(prefix)?.rsplit_once(", expected ")
    });
    let Some((found, expected)) = pair else {
        return message.to_owned();
    };
    // `toml` hands dates and times to serde as tables.
    let found = match found {
        "map" if text.starts_with(|first: char| first.is_ascii_digit()) => "a date or time",
        found => found,
    };
    let hint = match (found, expected) {
        ("map", "a sequence") => {
            "; a table of a list has a header in double brackets, such as `[[name]]`"
        }
        _ => "",
    };
    format!(
        "expected {}, found {}{hint}",
        wanted(expected),
        there(found)
    )
}

// serde names types of Rust.
fn wanted(expected: &str) -> String {
    let whole = |most: u64| format!("a whole number from 0 to {most}");
    match expected {
        "a map" => "a table".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        // TOML's numbers are of 64 bits with their sign.
        "u64" | "usize" => whole(i64::MAX.unsigned_abs()),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ if expected.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn there(found: &str) -> String {
    match found {
        "map" => return "a table".to_owned(),
        "sequence" => return "a list".to_owned(),
        _ => {}
    }
    let words = [
        ("integer ", "the number "),
        ("floating point ", "the number "),
        ("boolean ", ""),
        ("string ", "the text "),
    ];
    let value = words
        .iter()
        .find_map(|(theirs, ours)| Some(format!("{ours}{}", found.strip_prefix(theirs)?)));
    let value = value.unwrap_or_else(|| found.to_owned());
    // Of a number that is too long for TOML.
    value.replace("` as i128", "`").replace("` as u128", "`")
}

/// A message without what is too long of the texts that it quotes, so that who reads it finds what it says.
pub(crate) fn shortened(message: &str) -> String {
    let mut told = String::with_capacity(message.len().min(1024));
    let mut rest = message;
    while let Some(begin) = rest.find(['`', '"']) {
        let (before, quoted) = rest.split_at(begin);
        let (mark, quoted) = quoted.split_at(1);
        let (text, behind) = quoted.split_once(mark).unwrap_or((quoted, ""));
        let closing = &quoted[text.len()..quoted.len() - behind.len()];
        told.push_str(before);
        told.push_str(mark);
        match text.char_indices().nth(MAX_QUOTED) {
            None => told.push_str(text),
            Some(_) => {
                told.extend(text.chars().take(SHOWN));
                told.push('…');
            }
        }
        told.push_str(closing);
        rest = behind;
    }
    told + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_toml_has_for_them() {
        for (theirs, ours) in [
            (
                "invalid type: integer `3`, expected a map",
                "expected a table, found the number `3`",
            ),
            (
                "invalid type: boolean `true`, expected struct RuleText",
                "expected a table, found `true`",
            ),
            (
                "invalid type: map, expected a sequence",
                "expected a list, found a table; a table of a list has a header in double brackets, such as `[[name]]`",
            ),
            (
                "invalid type: sequence, expected a string",
                "expected a text in quotes, found a list",
            ),
            (
                "invalid value: integer `300`, expected u8",
                "expected a whole number from 0 to 255, found the number `300`",
            ),
            (
                "invalid type: floating point `1.5`, expected u32",
                "expected a whole number from 0 to 4294967295, found the number `1.5`",
            ),
            (
                "invalid type: string \"a, expected b\", expected a sequence",
                "expected a list, found the text \"a, expected b\"",
            ),
            (
                "invalid type: integer `99999999999999999999` as i128, expected a boolean",
                "expected `true` or `false`, found the number `99999999999999999999`",
            ),
            ("wanted string or table", "expected a text in quotes"),
            (
                "unknown variant `a`, expected `b` or `c`",
                "unknown value `a`, expected `b` or `c`",
            ),
            ("duplicate key", "duplicate key"),
        ] {
            assert_eq!(plain(theirs, "…"), ours);
        }
        let date = plain("invalid type: map, expected a string", "1979-05-27");
        assert_eq!(date, "expected a text in quotes, found a date or time");
    }

    #[test]
    fn long_texts_are_not_repeated() {
        let long = "é".repeat(1_000_000);
        let told = shortened(&format!("nothing is called `{long}`; did you mean `é`?"));
        let expected = format!(
            "nothing is called `{}…`; did you mean `é`?",
            "é".repeat(SHOWN)
        );
        assert_eq!(told, expected);
        let path = "/x".repeat(MAX_QUOTED);
        for kept in [
            "`a` is \"b\", or a `",
            "",
            "``",
            &format!("cannot read {path}: no such file"),
        ] {
            assert_eq!(shortened(kept), kept);
        }
    }
}
