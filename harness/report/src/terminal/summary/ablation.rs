// SPDX-License-Identifier: MIT OR Apache-2.0

//! What parameters cost or save: every variant of a subject against its first.

use std::collections::BTreeMap;

use super::{missing, traffics, Group};
use mutexlab_draw::table::{number, Align, Field, Style, Table};
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::Traffic;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::HOOK_MEAN;
use mutexlab_results::record::CellRecord;

/// With more variants than this their percentiles are left to the results file.
const FEW: usize = 8;

/// The variants of a subject, in the order of the plan; the first is the default.
pub struct Variants<'a> {
    pub subject: &'a Subject,
    names: Vec<&'a str>,
}

/// Those of all subjects of a group, in the order of the plan.
pub fn variants<'a>(group: &Group<'a>) -> Vec<Variants<'a>> {
    let mut all: Vec<Variants<'_>> = Vec::new();
    for cell in group {
        let name = cell.variant();
        match all.iter_mut().find(|known| *known.subject == cell.subject) {
            Some(known) if known.names.contains(&name) => {}
            Some(known) => known.names.push(name),
            None => all.push(Variants {
                subject: &cell.subject,
                names: vec![name],
            }),
        }
    }
    all
}

/// Whether a cell's variant is one of few of its subject, or the first of many.
pub fn is_shown(variants: &[Variants<'_>], cell: &CellRecord) -> bool {
    let mut of_subject = variants
        .iter()
        .filter(|known| *known.subject == cell.subject);
    of_subject
        .all(|Variants { names, .. }| names.len() <= FEW || names.first() == Some(&cell.variant()))
}

/// The table of a subject's variants; `None` if there is but one.
pub fn table(group: &Group<'_>, variants: &Variants<'_>) -> Option<Table> {
    let (default, others) = variants
        .names
        .split_first()
        .filter(|(_, others)| !others.is_empty())?;
    let traffics = traffics(group);
    let mut head = vec![("instead of the default".to_owned(), Align::Left)];
    head.extend(
        traffics
            .iter()
            .map(|traffic| (traffic.name(), Align::Right)),
    );
    let head: Vec<(&str, Align)> = head
        .iter()
        .map(|(text, align)| (text.as_str(), *align))
        .collect();
    let mut table = Table::new(&head);
    let find = |variant: &str, traffic: &Traffic| {
        group
            .iter()
            .find(|cell| cell.variant() == variant && cell.traffic == *traffic)
            .copied()
    };
    let defaults: Vec<Option<&CellRecord>> = traffics
        .iter()
        .map(|traffic| find(default, traffic))
        .collect();
    table.row(
        std::iter::once("(all defaults)".into()).chain(
            defaults
                .iter()
                .map(|cell| mean(*cell).map_or_else(missing, |mean| number(mean).into())),
        ),
    );
    for variant in others {
        let name = changed(default, variant);
        let deltas = traffics.iter().zip(&defaults).map(|(traffic, default)| {
            match (find(variant, traffic), mean(*default)) {
                (Some(cell), _) if cell.verdict != Verdict::Ok => {
                    Field::styled(cell.verdict.name(), Style::Bad)
                }
                (cell, Some(default)) => {
                    mean(cell).map_or_else(missing, |mean| delta(mean - default))
                }
                _ => missing(),
            }
        });
        table.row(std::iter::once(name.into()).chain(deltas));
    }
    Some(table)
}

fn mean(cell: Option<&CellRecord>) -> Option<f64> {
    cell.filter(|cell| cell.verdict == Verdict::Ok)?
        .metric(HOOK_MEAN)
}

fn delta(by: f64) -> Field {
    if by == 0.0 {
        return Field::styled("0", Style::Dim);
    }
    let sign = if by > 0.0 { "+" } else { "" };
    Field::from(format!("{sign}{}", number(by)))
}

/// The parameters in which a variant differs from the default.
fn changed(default: &str, variant: &str) -> String {
    let parse = |variant: &str| -> BTreeMap<String, String> {
        variant
            .split(',')
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let default = parse(default);
    parse(variant)
        .iter()
        .filter(|(name, value)| default.get(*name) != Some(*value))
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named() {
        assert_eq!(changed("module,a=1,b=0", "module,a=0,b=0"), "a=0");
        assert_eq!(changed("module,a=1,b=0", "module,a=0,b=7"), "a=0, b=7");
        assert_eq!(changed("module", "module"), "");
    }
}
