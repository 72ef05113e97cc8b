// SPDX-License-Identifier: MIT OR Apache-2.0

//! The matrix as a person reads it.

use mutexlab_draw::table::{number, Align, Field, Style, Table};
use mutexlab_judge::matrix::split::{Part, Split};
use mutexlab_judge::matrix::Matrix;
use mutexlab_model::verdict::Verdict;

/// The tables, and what went wrong.
pub fn text(matrix: &Matrix<'_>) -> String {
    let mut text = format!("{}\n\n{}", rows(matrix), legend(matrix));
    for row in &matrix.kernels {
        for trouble in &row.troubles {
            text += &format!("  {} {trouble}\n", Style::Bad.paint(&row.kernel));
        }
        if let Some(stand_in) = &row.stand_in {
            text += &format!(
                "  {} {} is not of a pinned source, but of {}\n",
                Style::Bad.paint("warning:"),
                row.kernel,
                stand_in.describe()
            );
        }
    }
    if matrix.splits.iter().any(|split| split.more.is_some()) {
        text += &format!(
            "\n{}\n\n{}\n{}",
            Style::Bold.paint(&format!(
                "What a packet costs on {}, and how much more on the others, in instructions",
                matrix.reference
            )),
            splits(&matrix.splits),
            Style::Dim.paint(
                "  kernel's own: the path with no subject, which nothing that is loaded changes. in hooks: \
                 what the\n  subject and the kernel's functions that it calls take. elsewhere: what it \
                 causes or saves outside\n  the hooks. The three add up to the path; docs/kernels.md says \
                 what they can tell.\n",
            )
        );
    }
    text
}

/// The kernels, with the first traffic's cost.
fn rows(matrix: &Matrix<'_>) -> Table {
    let mut table = Table::new(&[
        ("kernel", Align::Left),
        ("Linux", Align::Left),
        ("verdict", Align::Left),
        ("tests", Align::Left),
        ("cells", Align::Right),
        ("nft-dnat", Align::Right),
        ("module", Align::Right),
        ("module / nft-dnat", Align::Right),
    ]);
    for row in &matrix.kernels {
        let style = if row.verdict == Verdict::Ok {
            Style::Good
        } else {
            Style::Bad
        };
        let tests = match &row.tested {
            None => "–".to_owned(),
            Some(on) if row.tests.is_well() => format!("{} ok on {on}", row.tests.passed),
            Some(on) => format!(
                "{} ok, {} bad on {on}",
                row.tests.passed,
                row.tests.failed + row.tests.not_run
            ),
        };
        let first = matrix
            .splits
            .iter()
            .find(|split| split.kernel == row.kernel);
        let cost = |value: Option<f64>| value.map_or("–".into(), |value| number(value).into());
        let (theirs, ours) = (
            first.map(|split| split.cost.nft_dnat.hooks),
            first.map(|split| split.cost.module.hooks),
        );
        let ratio = theirs
            .filter(|&theirs| theirs > 0.0)
            .and_then(|theirs| Some(ours? / theirs));
        table.row([
            row.kernel.as_str().into(),
            row.release.as_deref().unwrap_or("–").into(),
            Field::styled(row.verdict.name(), style),
            tests.as_str().into(),
            format!("{}/{}", row.cells_ok, row.cells).as_str().into(),
            cost(theirs),
            cost(ours),
            ratio.map_or("–".into(), |ratio| format!("{ratio:.2}").as_str().into()),
        ]);
    }
    table
}

/// What the costs in the rows are of.
fn legend(matrix: &Matrix<'_>) -> String {
    let Some(first) = matrix.splits.first() else {
        return String::new();
    };
    let line = format!(
        "  nft-dnat and module: instructions a packet spends in the hooks ({}, {}).\n",
        first.details.way.name(),
        name(first)
    );
    Style::Dim.paint(&line)
}

fn name(split: &Split) -> String {
    let traffic = &split.details;
    format!(
        "{} {} {}",
        traffic.family.name(),
        traffic.protocol.name(),
        traffic.payload
    )
}

fn splits(splits: &[Split]) -> Table {
    let mut table = Table::new(&[
        ("way", Align::Left),
        ("traffic", Align::Left),
        ("kernel", Align::Left),
        ("kernel's own", Align::Right),
        ("nft-dnat: in hooks", Align::Right),
        ("elsewhere", Align::Right),
        ("module: in hooks", Align::Right),
        ("elsewhere", Align::Right),
        ("path with module", Align::Right),
    ]);
    let mut last = None;
    for split in splits {
        let is_new = last.replace(&split.traffic) != Some(&split.traffic);
        let title = |text: &str| if is_new { text.into() } else { "".into() };
        let signed = split.more.is_some();
        let cost = split.more.unwrap_or(split.cost);
        let value = |value: f64| -> Field {
            let sign = if signed && value.round() > 0.0 {
                "+"
            } else {
                ""
            };
            format!("{sign}{}", number(value)).as_str().into()
        };
        let part = |part: Part| [value(part.hooks), value(part.elsewhere)];
        let [nft_hooks, nft_elsewhere] = part(cost.nft_dnat);
        let [module_hooks, module_elsewhere] = part(cost.module);
        table.row([
            title(split.details.way.name()),
            title(&name(split)),
            split.kernel.as_str().into(),
            value(cost.none),
            nft_hooks,
            nft_elsewhere,
            module_hooks,
            module_elsewhere,
            value(cost.with_module()),
        ]);
    }
    table
}
