// SPDX-License-Identifier: MIT OR Apache-2.0

//! The console's parser against whole consoles: `console/NAME.txt` must give what
//! `console/NAME.expected` has. After a change that is meant to change them, write them anew with
//! `BLESS=1 cargo test --test console`, and read the difference.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use mutexlab_machine::console::Scanner;

/// Every report: its kind, and its lines.
fn reports(console: &str) -> String {
    let mut scanner = Scanner::default();
    for line in console.lines() {
        scanner.line(line);
    }
    let mut text = String::new();
    for report in scanner.reports() {
        writeln!(text, "{}:", report.kind).unwrap();
        for line in &report.text {
            writeln!(text, "    {line}").unwrap();
        }
    }
    text
}

#[test]
fn consoles_give_the_expected_reports() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let found = reports(&fs::read_to_string(&path).unwrap());
        let expected = path.with_extension("expected");
        if mutexlab::environment::text("BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        assert_eq!(
            found,
            fs::read_to_string(&expected).unwrap(),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 7, "only {seen} consoles");
}
