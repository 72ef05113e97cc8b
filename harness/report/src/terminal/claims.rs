// SPDX-License-Identifier: MIT OR Apache-2.0

//! Verdicts as a person reads them: on a terminal, or as Markdown.

use std::fmt::Write;

use mutexlab_draw::table::{Align, Field, Style, Table};
use mutexlab_judge::claims::claim::{Evidence, Gain, Holds, Judged, Unit};

/// How they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Terminal,
    /// For a pull request.
    Markdown,
}

/// Where lines of reasons end on a terminal.
const WIDTH: usize = 100;

impl Format {
    /// All verdicts: a table of them, and what each was taken from.
    pub fn text(self, judged: &[Judged]) -> String {
        let mut text = self.table(&overview(judged));
        for one in judged {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{}", self.heading(one));
            for paragraph in &one.why {
                text.push_str(&self.paragraph(paragraph));
            }
            text.push_str(&self.table(&self.details(one)));
        }
        text
    }

    fn table(self, table: &Table) -> String {
        match self {
            Self::Terminal => table.to_string(),
            Self::Markdown => format!("\n{}\n", table.markdown()),
        }
    }

    fn heading(self, judged: &Judged) -> String {
        let (text, verdict) = (judged.text, judged.verdict);
        match self {
            Self::Terminal => {
                let line = format!("\"{text}\": {}", style(verdict).paint(&verdict.to_string()));
                format!("{}\n\n", Style::Bold.paint(&line))
            }
            Self::Markdown => format!("### \"{text}\": {verdict}\n\n"),
        }
    }

    fn paragraph(self, text: &str) -> String {
        match self {
            Self::Terminal => format!("{}\n", indented(text)),
            Self::Markdown => format!("{text}\n\n"),
        }
    }
}

const fn style(verdict: Holds) -> Style {
    match verdict {
        Holds::Held => Style::Good,
        Holds::NotHeld => Style::Bad,
        Holds::CannotTell => Style::Dim,
    }
}

fn overview(judged: &[Judged]) -> Table {
    let mut table = Table::new(&[
        ("claim", Align::Left),
        ("measured", Align::Left),
        ("verdict", Align::Left),
    ]);
    for one in judged {
        table.row([
            one.text.into(),
            one.measured.as_str().into(),
            Field::styled(one.verdict.to_string(), style(one.verdict)),
        ]);
    }
    table
}

/// How a line of the details stands below others.
#[derive(Clone, Copy)]
enum Depth {
    Metric,
    Variants,
    Place,
}

impl Format {
    fn label(self, depth: Depth, text: &str) -> String {
        match (self, depth) {
            (Self::Terminal, Depth::Metric) => text.to_owned(),
            (Self::Terminal, Depth::Variants) => format!("  {text}"),
            (Self::Terminal, Depth::Place) => format!("    {text}"),
            (Self::Markdown, Depth::Metric) => format!("**{text}**"),
            (Self::Markdown, Depth::Variants) => text.to_owned(),
            (Self::Markdown, Depth::Place) => format!("… {text}"),
        }
    }

    /// What a verdict was taken from. The first evidence, which decides, has all its pairs, and so
    /// have those of few.
    fn details(self, judged: &Judged) -> Table {
        const FEW: usize = 5;
        let wanted = judged.claim.wanted();
        let mut table = Table::new(&[
            ("compared", Align::Left),
            ("off", Align::Right),
            ("on", Align::Right),
            (
                match wanted {
                    Gain::Times(_) => "off / on",
                    Gain::Less(_) => "gain",
                },
                Align::Right,
            ),
        ]);
        let mut metric = String::new();
        for (index, evidence) in judged.evidence.iter().enumerate() {
            let named = format!("{}, {}", evidence.metric, evidence.unit);
            if named != metric {
                table.row([self.label(Depth::Metric, &named).into()]);
                metric = named;
            }
            let variants = format!("{} → {}", evidence.off, evidence.on);
            let variants = self.label(Depth::Variants, &variants);
            if index > 0 && evidence.pairs.len() > FEW {
                table.row(fields(variants, evidence, wanted));
                continue;
            }
            if let [pair] = evidence.pairs.as_slice() {
                let label = format!("{variants}, {}", pair.at);
                table.row(fields(label, evidence, wanted));
                continue;
            }
            table.row([variants.into()]);
            for pair in &evidence.pairs {
                let one = Evidence {
                    pairs: vec![pair.clone()],
                    ..evidence.clone()
                };
                table.row(fields(self.label(Depth::Place, &pair.at), &one, wanted));
            }
        }
        table
    }
}

fn fields(label: String, evidence: &Evidence, wanted: Gain) -> [Field; 4] {
    let gain = match evidence.unit {
        Unit::Instructions | Unit::InstructionsPerPacket | Unit::CyclesPerPacket => {
            wanted.range(evidence.gains(wanted))
        }
        Unit::PerPacket => String::new(),
    };
    [
        label,
        evidence.range(|pair| pair.off),
        evidence.range(|pair| pair.on),
        gain,
    ]
    .map(Field::from)
}

/// A paragraph, with its lines broken between words.
fn indented(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + word.chars().count() >= WIDTH {
            let _ = writeln!(lines, "  {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(lines, "  {line}");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_judge::claims::claim::{Claim, Pair, Unseen};

    fn judged() -> Judged {
        let evidence = |off: f64| Evidence {
            metric: "a lookup".to_owned(),
            unit: Unit::Instructions,
            off: "table".to_owned(),
            on: "cache".to_owned(),
            pairs: vec![Pair {
                at: "place 1".to_owned(),
                off,
                on: 50.0,
            }],
        };
        let unseen = Unseen {
            could_help: false,
            could_hurt: false,
        };
        let why = vec!["word ".repeat(40)];
        Judged::new(
            Claim::Lookup,
            evidence(60.0),
            vec![evidence(2000.0)],
            unseen,
            why,
        )
    }

    #[test]
    fn everything_is_said_within_the_width() {
        let text = Format::Terminal.text(&[judged()]);
        for wanted in ["1.20x", "not held", "40.00x", "2,000", "place 1"] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        let reasons = text.lines().filter(|line| line.contains("word"));
        assert!(reasons.clone().count() == 2);
        assert!(reasons.into_iter().all(|line| line.len() <= WIDTH + 2));
    }

    #[test]
    fn markdown_has_tables() {
        let text = Format::Markdown.text(&[judged()]);
        assert!(text.contains("| claim | measured | verdict |"));
        assert!(text.contains("### \"lookups are 3-10x faster by cache hits\": not held"));
    }
}
