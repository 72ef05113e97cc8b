// SPDX-License-Identifier: MIT OR Apache-2.0

//! The outcomes of a run as KTAP, version 1 (the kernel's Documentation/dev-tools/ktap.rst): a
//! test for each kernel, with those that ran on it as subtests.

use std::fmt::Write;

use super::record::Record;
use super::text::details;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_results::outcome::{Outcome, State, Tally};

/// All of a run.
pub fn text(outcomes: &Record) -> String {
    let suites = outcomes.suites();
    let mut text = format!("KTAP version 1\n1..{}\n", suites.len());
    for (index, suite) in suites.iter().enumerate() {
        let of_suite = outcomes.of_suite(suite);
        let count = of_suite.clone().count();
        text += &format!("  KTAP version 1\n  1..{count}\n");
        for (index, outcome) in of_suite.clone().enumerate() {
            subtest(&mut text, index + 1, outcome);
        }
        let tally = Tally::of(of_suite);
        let result = if tally.is_well() { "ok" } else { "not ok" };
        let directive = if tally.skipped == count {
            " # SKIP"
        } else {
            ""
        };
        text += &format!("{result} {} {}{directive}\n", index + 1, hashless(suite));
    }
    text
}

fn subtest(text: &mut String, number: usize, outcome: &Outcome) {
    let name = hashless(&outcome.test);
    if !outcome.state.passed() {
        for line in details(outcome) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  # {name}: {}", one_line(&line));
        }
    } else if let Some(first) = &outcome.first_try {
        let _ = writeln!(text, "  # {name}: {}", one_line(first));
    }
    let (result, diagnosis) = match &outcome.state {
        State::Ended(ending) if ending.is_ok() => ("ok", String::new()),
        State::Ended(ending) => ("not ok", diagnosis(ending)),
        State::Skipped(why) => ("ok", format!(" # SKIP {}", hashless(why))),
        // SKIP would be taken for well.
        state => {
            let why = hashless(state.why_not_run().unwrap_or_default());
            ("not ok", format!(" # ERROR not run: {why}"))
        }
    };
    let _ = writeln!(text, "  {result} {number} {name}{diagnosis}");
}

/// What follows the name of a test that failed; the reason's first line will do, the others are
/// above it.
fn diagnosis(ending: &Ending) -> String {
    let reason = hashless(ending.reason.lines().next().unwrap_or_default());
    match ending.verdict {
        Verdict::Hang => format!(" # TIMEOUT {reason}"),
        Verdict::Boot | Verdict::Infra => format!(" # ERROR {}: {reason}", ending.verdict),
        verdict => format!(" # {verdict}: {reason}"),
    }
}

/// Part of a result's line, in which there must be no hash sign but the one that ends the name: the
/// kernel's kunit.py takes a failure for skipped whose reason has "# SKIP" anywhere.
fn hashless(text: &str) -> String {
    one_line(text).replace('#', "_")
}

/// Without what a terminal or a parser would take for something else.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::outcome::tests::of_every_kind;
    use super::super::reports::Reports;
    use super::*;
    use crate::outcome::Outcomes;

    /// A test as the document has it.
    #[derive(Debug, PartialEq)]
    struct Test {
        ok: bool,
        name: String,
        directive: Option<String>,
        diagnostics: Vec<String>,
        subtests: Vec<Test>,
    }

    const DIRECTIVES: [&str; 5] = ["SKIP", "TODO", "XFAIL", "TIMEOUT", "ERROR"];

    /// Reads one level by the document's rules, and panics where one is broken.
    fn level<'a>(
        lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
        depth: usize,
    ) -> Vec<Test> {
        let indent = "  ".repeat(depth);
        let own = |line: &'a str| {
            line.strip_prefix(&indent)
                .unwrap_or_else(|| panic!("{line:?} at depth {depth}"))
        };
        assert_eq!(own(lines.next().unwrap()), "KTAP version 1");
        let plan = own(lines.next().unwrap());
        let planned: usize = plan.strip_prefix("1..").unwrap().parse().unwrap();
        let mut tests: Vec<Test> = Vec::new();
        let mut diagnostics = Vec::new();
        let mut subtests = Vec::new();
        while tests.len() < planned {
            let line = own(lines.peek().expect("fewer tests than planned"));
            if line == "  KTAP version 1" {
                subtests = level(lines, depth + 1);
                continue;
            }
            lines.next();
            if let Some(text) = line.strip_prefix("# ") {
                diagnostics.push(text.to_owned());
                continue;
            }
            let (ok, rest) = match line.strip_prefix("not ok ") {
                Some(rest) => (false, rest),
                None => (
                    true,
                    line.strip_prefix("ok ")
                        .unwrap_or_else(|| panic!("{line:?}")),
                ),
            };
            let (number, rest) = rest.split_once(' ').unwrap();
            assert_eq!(number.parse(), Ok(tests.len() + 1), "{line}");
            let (name, data) = match rest.split_once(" # ") {
                Some((name, data)) => (name, Some(data)),
                None => (rest, None),
            };
            assert!(!name.contains('#'), "{line}");
            // The document allows it, kunit.py does not.
            assert!(data.is_none_or(|data| !data.contains('#')), "{line}");
            let word = data.and_then(|data| data.split(' ').next());
            let directive = word
                .filter(|word| DIRECTIVES.contains(word))
                .map(str::to_owned);
            if matches!(directive.as_deref(), Some("TIMEOUT" | "ERROR")) {
                assert!(!ok, "{line}");
            }
            // "If one of the subtests fail, the parent test should also fail."
            let fails = |test: &Test| !test.ok && test.directive.as_deref() != Some("SKIP");
            if !subtests.is_empty() {
                assert_eq!(ok, !subtests.iter().any(fails), "{line}");
            }
            tests.push(Test {
                ok,
                name: name.to_owned(),
                directive,
                diagnostics: std::mem::take(&mut diagnostics),
                subtests: std::mem::take(&mut subtests),
            });
        }
        tests
    }

    fn parse(text: &str) -> Vec<Test> {
        let mut lines = text.lines().peekable();
        let tests = level(&mut lines, 0);
        assert_eq!(lines.next(), None, "more than was planned");
        tests
    }

    #[test]
    fn it_reads_back_by_the_rules_of_the_document() {
        let text = text(&of_every_kind());
        let tests = parse(&text);
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["7.3:debug", "6.12"]);
        let told: Vec<_> = tests[0]
            .subtests
            .iter()
            .map(|test| (test.name.as_str(), test.ok, test.directive.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("passes", true, None),
                ("splats", false, None),
                ("hangs", false, Some("TIMEOUT")),
                ("breaks", false, Some("ERROR")),
                ("never-comes", false, Some("ERROR")),
                ("lost", false, Some("ERROR")),
            ]
        );
        assert_eq!(
            tests[0].subtests[1].diagnostics,
            [
                "splats: KASAN: <use> & \"free\" # SKIP",
                "splats: second line",
                "splats: console log: results/logs/run/7.3-debug.console.log",
            ]
        );
        let skipped = &tests[1].subtests[1];
        assert_eq!(
            (skipped.ok, skipped.directive.as_deref()),
            (true, Some("SKIP"))
        );
        assert!(tests[1].ok && tests[1].directive.is_none());
    }

    #[test]
    fn a_suite_of_which_all_is_skipped_is_skipped() {
        let mut outcomes = Outcomes::new(Timestamp::UNIX_EPOCH, Reports::default());
        outcomes.skip("6.12", "a", "needs a debug kernel");
        let tests = parse(&text(&outcomes));
        assert_eq!(tests[0].directive.as_deref(), Some("SKIP"));
        assert_eq!(parse("KTAP version 1\n1..0\n"), []);
    }

    #[test]
    fn names_cannot_break_the_form() {
        let mut outcomes = Outcomes::new(Timestamp::UNIX_EPOCH, Reports::default());
        outcomes.plan("a\nok 1 b", "c # SKIP d");
        let tests = parse(&text(&outcomes));
        assert_eq!(tests[0].name, "a ok 1 b");
        assert_eq!(tests[0].subtests[0].name, "c _ SKIP d");
        assert!(!tests[0].subtests[0].ok);
    }
}
