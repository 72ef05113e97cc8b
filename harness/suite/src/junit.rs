// SPDX-License-Identifier: MIT OR Apache-2.0

//! The outcomes of a run as JUnit's XML. There is no standard; what is written is what both schemas
//! allow that others refer to: Ant's (<https://github.com/windyroad/JUnit-Schema>) and that of
//! Jenkins' xUnit plugin (`junit-10.xsd`).
//!
//! Written here, since it is five elements: a crate would bring a whole XML library for them.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::utsname;

use super::record::Record;
use super::text::details;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_results::outcome::{Outcome, State, Tally};

/// Stands for a host whose name is not known, as Ant has it.
const UNKNOWN_HOST: &str = "localhost";

/// All of a run.
pub fn text(outcomes: &Record) -> String {
    let host = utsname::uname()
        .ok()
        .and_then(|names| names.nodename().to_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| UNKNOWN_HOST.to_owned());
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for (id, name) in outcomes.suites().into_iter().enumerate() {
        let of_suite = outcomes.of_suite(name);
        suite(&mut text, id, name, &host, outcomes.started, of_suite);
    }
    text + "</testsuites>\n"
}

fn suite<'a>(
    text: &mut String,
    id: usize,
    name: &str,
    host: &str,
    started: Timestamp,
    outcomes: impl Iterator<Item = &'a Outcome> + Clone,
) {
    let count = |tag: Tag| {
        let of_tag = |outcome: &&Outcome| Tag::of(&outcome.state) == Some(tag);
        outcomes.clone().filter(of_tag).count()
    };
    let took = outcomes.clone().filter_map(|outcome| outcome.took).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  <testsuite name=\"{}\" package=\"mutexlab\" id=\"{id}\" tests=\"{}\" failures=\"{}\" \
         errors=\"{}\" skipped=\"{}\" time=\"{}\" timestamp=\"{}\" hostname=\"{}\">\n    \
         <properties/>",
        attribute(name),
        outcomes.clone().count(),
        count(Tag::Failure),
        count(Tag::Error),
        count(Tag::Skipped),
        seconds(took),
        // The schemas want no time zone; it is UTC.
        started.strftime("%Y-%m-%dT%H:%M:%S"),
        attribute(host),
    );
    let Tally { not_run, .. } = Tally::of(outcomes.clone());
    let mut told = Vec::new();
    for outcome in outcomes {
        case(text, name, outcome);
        // Of one that passed, Ant's schema has no better place for it.
        let passed = outcome.state.passed();
        let first = outcome.first_try.as_ref().filter(|_| passed);
        told.extend(first.map(|first| format!("{}: {first}", outcome.test)));
    }
    if not_run > 0 {
        told.push(format!("{not_run} tests that should have run did not"));
    }
    let _ = writeln!(
        text,
        "    <system-out>{}</system-out>\n    <system-err></system-err>\n  </testsuite>",
        content(&told.join("\n"))
    );
}

fn case(text: &mut String, suite: &str, outcome: &Outcome) {
    let _ = write!(
        text,
        "    <testcase name=\"{}\" classname=\"mutexlab.{}\" time=\"{}\"",
        attribute(&outcome.test),
        // A dot would begin a package.
        attribute(&suite.replace('.', "_")),
        seconds(outcome.took.unwrap_or_default()),
    );
    let Some(tag) = Tag::of(&outcome.state) else {
        *text += "/>\n";
        return;
    };
    let (kind, message) = match &outcome.state {
        State::Ended(ending) => (
            ending.verdict.name(),
            ending.reason.lines().next().unwrap_or_default(),
        ),
        State::Skipped(why) => ("skip", why.as_str()),
        state => ("not-run", state.why_not_run().unwrap_or_default()),
    };
    let message = attribute(message);
    let _ = match tag {
        Tag::Skipped => writeln!(text, ">\n      <skipped message=\"{message}\"/>"),
        Tag::Failure | Tag::Error => writeln!(
            text,
            ">\n      <{tag} type=\"{kind}\" message=\"{message}\">{}</{tag}>",
            content(&details(outcome).join("\n")),
            tag = tag.name(),
        ),
    };
    *text += "    </testcase>\n";
}

/// What a test case has in it that did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// What was looked at is wrong.
    Failure,
    /// It could not be looked at.
    Error,
    Skipped,
}

impl Tag {
    fn of(state: &State) -> Option<Self> {
        Some(match state {
            State::Ended(Ending { verdict, .. }) => match verdict {
                Verdict::Ok => return None,
                Verdict::Failed | Verdict::Splat | Verdict::Panic | Verdict::Hang => Self::Failure,
                Verdict::Noisy | Verdict::Boot | Verdict::Infra => Self::Error,
            },
            State::Skipped(_) => Self::Skipped,
            State::Pending | State::NotRun(_) => Self::Error,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Text between tags.
fn content(text: &str) -> String {
    escaped(text, false)
}

/// Text between double quotes, in which a parser would make a space of a line's end.
fn attribute(text: &str) -> String {
    escaped(text, true)
}

fn escaped(text: &str, in_attribute: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if in_attribute => escaped.push_str("&quot;"),
            '\n' | '\t' if in_attribute => {
                let _ = write!(escaped, "&#{};", u32::from(char));
            }
            '\n' | '\t' => escaped.push(char),
            // XML 1.0 has no way to write these: section 2.2, Char.
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::super::outcome::tests::of_every_kind;
    use super::*;

    fn elements<'a>(node: Node<'a, 'a>) -> Vec<Node<'a, 'a>> {
        node.children().filter(Node::is_element).collect()
    }

    fn required<'a>(node: Node<'a, 'a>, name: &str) -> &'a str {
        let found = node.attribute(name);
        found.unwrap_or_else(|| panic!("<{}> has no {name}", node.tag_name().name()))
    }

    fn only(node: Node<'_, '_>, allowed: &[&str]) {
        for attribute in node.attributes() {
            assert!(allowed.contains(&attribute.name()), "{attribute:?}");
        }
    }

    fn number(node: Node<'_, '_>, name: &str) -> usize {
        required(node, name).parse().unwrap()
    }

    /// The rules of both schemas, those of Ant's being the narrower.
    fn check(text: &str) {
        let document = Document::parse(text).unwrap();
        let root = document.root_element();
        assert_eq!(root.tag_name().name(), "testsuites");
        for (id, suite) in elements(root).into_iter().enumerate() {
            assert_eq!(suite.tag_name().name(), "testsuite");
            only(
                suite,
                &[
                    "name",
                    "package",
                    "id",
                    "tests",
                    "failures",
                    "errors",
                    "skipped",
                    "time",
                    "timestamp",
                    "hostname",
                ],
            );
            assert!(!required(suite, "name").is_empty());
            assert!(!required(suite, "package").is_empty());
            assert!(!required(suite, "hostname").is_empty());
            assert_eq!(number(suite, "id"), id);
            // ISO8601_DATETIME_PATTERN
            let timestamp = required(suite, "timestamp");
            let digits = timestamp.replace(|char: char| char.is_ascii_digit(), "0");
            assert_eq!(digits, "0000-00-00T00:00:00");
            assert!(required(suite, "time").parse::<f64>().is_ok());
            // xs:sequence: properties, testcase*, system-out, system-err
            let children = elements(suite);
            let names: Vec<_> = children.iter().map(|node| node.tag_name().name()).collect();
            let (ends, cases) = (names.len() - 2, 1..names.len() - 2);
            assert_eq!(names[0], "properties");
            assert_eq!(names[ends..], ["system-out", "system-err"]);
            let cases = &children[cases];
            let mut counts = [0, 0, 0];
            for case in cases {
                assert_eq!(case.tag_name().name(), "testcase");
                only(*case, &["name", "classname", "time"]);
                assert!(!required(*case, "name").is_empty());
                assert!(!required(*case, "classname").is_empty());
                assert!(required(*case, "time").parse::<f64>().is_ok());
                // xs:choice, at most one
                let children = elements(*case);
                assert!(children.len() <= 1);
                for child in children {
                    let kinds = ["failure", "error", "skipped"];
                    let kind = child.tag_name().name();
                    let place = kinds.iter().position(|&known| known == kind).unwrap();
                    counts[place] += 1;
                    if kind == "skipped" {
                        only(child, &["message"]);
                    } else {
                        only(child, &["message", "type"]);
                        assert!(!required(child, "type").is_empty());
                    }
                }
            }
            assert_eq!(number(suite, "tests"), cases.len());
            let told = ["failures", "errors", "skipped"].map(|name| number(suite, name));
            assert_eq!(told, counts);
        }
    }

    #[test]
    fn it_follows_the_schemas() {
        let outcomes = of_every_kind();
        let text = text(&outcomes);
        check(&text);
        let document = Document::parse(&text).unwrap();
        let find = |suite: &str, name: &str| {
            let suite = document
                .descendants()
                .find(|node| node.has_tag_name("testsuite") && required(*node, "name") == suite)
                .unwrap();
            let case = suite
                .children()
                .find(|node| node.has_tag_name("testcase") && required(*node, "name") == name);
            elements(case.unwrap()).into_iter().next()
        };
        assert!(find("7.3:debug", "passes").is_none());
        let splat = find("7.3:debug", "splats").unwrap();
        assert_eq!(splat.tag_name().name(), "failure");
        assert_eq!(
            splat.attribute("message"),
            Some("KASAN: <use> & \"free\" # SKIP")
        );
        assert_eq!(
            splat.text(),
            Some(
                "KASAN: <use> & \"free\" # SKIP\nsecond line\u{fffd}\n\
                 console log: results/logs/run/7.3-debug.console.log"
            )
        );
        for name in ["never-comes", "lost"] {
            let case = find("7.3:debug", name).unwrap();
            assert_eq!(case.attribute("type"), Some("not-run"));
            assert_eq!(case.tag_name().name(), "error");
        }
        let skipped = find("6.12", "splats").unwrap();
        assert_eq!(skipped.tag_name().name(), "skipped");
    }

    #[test]
    fn nothing_breaks_out_of_an_attribute() {
        assert_eq!(attribute("a\"b\nc\0"), "a&quot;b&#10;c\u{fffd}");
        assert_eq!(content("]]>\u{ffff}"), "]]&gt;\u{fffd}");
    }
}
