// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;
use mutexlab_results::lens_metrics::LAST_MISSES;
use mutexlab_results::metric::{Better, Kind, Unit};
use mutexlab_results::sample::{exact, run, sampled, MetricOfTest};

fn of<'a>(a: &'a Run, b: &'a Run) -> Difference<'a> {
    Difference::of(a, b, &Shown::default())
}

#[test]
fn one_instruction_more_is_worse() {
    let a = run(&[
        ("a", &[&[exact("hook.mean", 7.0)]]),
        ("b", &[&[exact("hook.mean", 9.0)]]),
    ]);
    let b = run(&[
        ("a", &[&[exact("hook.mean", 8.0)]]),
        ("b", &[&[exact("hook.mean", 9.0)]]),
    ]);
    let found = of(&a, &b);
    assert_eq!(
        (found.cells, found.changed_cells, found.exit_code()),
        (2, 1, 1)
    );
    assert_eq!(found.findings.len(), 1);
    assert_eq!(found.findings[0].cell, "a");
    assert_eq!(found.findings[0].judgement, Judgement::Regressed);
    let back = of(&b, &a);
    assert_eq!(back.findings[0].judgement, Judgement::Improved);
    assert_eq!(back.exit_code(), 0);
}

#[test]
fn more_is_better_where_it_is_and_neither_where_it_is_not() {
    let with = |better, value| {
        let metric = MetricOfTest {
            better,
            ..exact("a", value)
        };
        run(&[("a", &[&[metric]])])
    };
    for (better, judgement, code) in [
        (Better::Higher, Judgement::Improved, 0),
        (Better::Lower, Judgement::Regressed, 1),
        (Better::Neither, Judgement::Changed, 0),
    ] {
        let (a, b) = (with(better, 1.0), with(better, 2.0));
        let found = of(&a, &b);
        assert_eq!(found.findings[0].judgement, judgement);
        assert_eq!(found.exit_code(), code);
    }
}

#[test]
fn what_matters_comes_first() {
    let boots = |value: f64| {
        [
            sampled("s", value),
            sampled("s", value + 1.0),
            sampled("s", value),
        ]
    };
    let [s1, s2, s3] = boots(100.0);
    let a = run(&[
        ("dead", &[&[exact("hook.mean", 1.0)]]),
        ("large", &[&[exact("p50", 10.0), exact("hook.mean", 10.0)]]),
        ("sampled", &[&[s1], &[s2], &[s3]]),
        ("small", &[&[exact("hook.mean", 1000.0)]]),
    ]);
    let [s1, s2, s3] = boots(200.0);
    let mut b = run(&[
        ("dead", &[&[exact("hook.mean", 1.0)]]),
        ("large", &[&[exact("p50", 11.0), exact("hook.mean", 12.0)]]),
        ("sampled", &[&[s1], &[s2], &[s3]]),
        ("small", &[&[exact("hook.mean", 1001.0)]]),
    ]);
    let dead = b.cells.get_mut("dead").unwrap().boots.get_mut(&1).unwrap();
    dead.verdict = Verdict::Splat;
    let found = of(&a, &b);
    let told: Vec<_> = found
        .findings
        .iter()
        .map(|finding| (finding.cell, finding.change.metric()))
        .collect();
    assert_eq!(
        told,
        [
            ("dead", None),
            ("large", Some("hook.mean")),
            ("large", Some("p50")),
            ("small", Some("hook.mean")),
            ("sampled", Some("s")),
        ]
    );
    assert_eq!(found.changed_cells, 4);
}

#[test]
fn an_exact_metric_that_varies_is_told() {
    let a = run(&[("a", &[&[exact("m", 7.0)], &[exact("m", 7.0)]])]);
    let b = run(&[("a", &[&[exact("m", 7.0)], &[exact("m", 8.0)]])]);
    let found = of(&a, &b);
    let varies = Change::Varies {
        metric: "m",
        unit: Unit::InstructionsPerPacket,
        from: vec![7.0, 7.0],
        to: vec![7.0, 8.0],
    };
    assert_eq!(found.findings[0].change, varies);
    assert_eq!(found.exit_code(), 1);
}

#[test]
fn few_boots_and_small_effects_tell_nothing() {
    let of_boots = |values: &[f64]| {
        let boots: Vec<_> = values.iter().map(|&value| [sampled("s", value)]).collect();
        let boots: Vec<&[_]> = boots.iter().map(|boot| boot.as_slice()).collect();
        run(&[("a", &boots)])
    };
    let judgement = |a: &[f64], b: &[f64]| {
        let (a, b) = (of_boots(a), of_boots(b));
        let shown = Shown {
            all: true,
            ..Shown::default()
        };
        let found = Difference::of(&a, &b, &shown);
        (found.findings[0].judgement, found.undecided)
    };
    let undecided = (Judgement::Undecided, 1);
    assert_eq!(judgement(&[1.0, 1.0], &[9.0, 9.0]), undecided);
    assert_eq!(judgement(&[1.0; 3], &[9.0; 3]), (Judgement::Regressed, 0));
    assert_eq!(
        judgement(&[100.0; 3], &[100.9; 3]),
        (Judgement::Unchanged, 0)
    );
    let noisy = judgement(&[1.0, 50.0, 99.0], &[60.0, 20.0, 90.0]);
    assert_eq!(noisy, (Judgement::Unchanged, 0));
}

#[test]
fn what_only_one_has_is_listed() {
    let a = run(&[("a", &[&[exact("m", 1.0), exact("n", 1.0)]]), ("x", &[&[]])]);
    let b = run(&[("a", &[&[exact("m", 1.0), exact("o", 1.0)]]), ("y", &[&[]])]);
    let found = of(&a, &b);
    assert_eq!(
        (found.only_a.as_slice(), found.only_b.as_slice()),
        (&["x"][..], &["y"][..])
    );
    assert_eq!(found.metrics_only_a, ["n"]);
    assert_eq!(found.metrics_only_b, ["o"]);
    assert!(found.findings.is_empty());
}

#[test]
fn a_cell_that_was_not_measured_is_no_pass() {
    let a = run(&[("a", &[&[exact("m", 1.0)]])]);
    let mut b = a.clone();
    b.cells
        .get_mut("a")
        .unwrap()
        .boots
        .get_mut(&1)
        .unwrap()
        .verdict = Verdict::Infra;
    let found = of(&a, &b);
    assert_eq!(
        (
            found.exit_code(),
            found.changed_cells,
            found.unjudged_cells()
        ),
        (2, 0, 1)
    );
    let found = of(&b, &b);
    assert_eq!((found.bad_in_both.len(), found.unjudged_cells()), (1, 1));
}

fn any_run() -> impl Strategy<Value = Run> {
    let metric = (0..4_usize, -1e6..1e6_f64, any::<bool>()).prop_map(|(name, value, is_exact)| {
        let name = ["hook.mean", "a", "b", "c"][name];
        if is_exact {
            exact(name, value)
        } else {
            sampled(name, value)
        }
    });
    let boot = prop::collection::vec(metric, 0..4);
    let cell = prop::collection::vec(boot, 1..5);
    prop::collection::vec(cell, 1..6).prop_map(|cells| {
        let boots: Vec<Vec<&[_]>> = cells
            .iter()
            .map(|cell| cell.iter().map(Vec::as_slice).collect())
            .collect();
        let names = ["a", "b", "c", "d", "e"];
        let cells: Vec<_> = names
            .into_iter()
            .zip(boots.iter().map(Vec::as_slice))
            .collect();
        run(&cells)
    })
}

proptest! {
    #[test]
    fn a_run_does_not_differ_from_itself(run in any_run()) {
        let found = of(&run, &run);
        let varies = |finding: &Finding<'_>| matches!(finding.change, Change::Varies { .. });
        prop_assert!(found.findings.iter().all(varies), "{:?}", found.findings);
        prop_assert!(found.only_a.is_empty() && found.metrics_only_b.is_empty());
    }

    #[test]
    fn what_differs_one_way_differs_the_other(a in any_run(), b in any_run()) {
        let (there, back) = (of(&a, &b), of(&b, &a));
        prop_assert_eq!(there.changed_cells, back.changed_cells);
        prop_assert_eq!(there.count(Judgement::Regressed), back.count(Judgement::Improved));
        prop_assert_eq!(there.undecided, back.undecided);
        prop_assert_eq!(there.only_a, back.only_b);
    }
}

#[test]
fn modelled_metrics_change_by_a_hundredth() {
    let judgement = |from, to| {
        let metric = |value| MetricOfTest {
            name: LAST_MISSES,
            better: Better::Lower,
            kind: Kind::Modelled,
            value,
        };
        let (a, b) = (metric(from), metric(to));
        let (a, b) = (run(&[("a", &[&[a]])]), run(&[("a", &[&[b]])]));
        let all = Shown {
            all: true,
            ..Shown::default()
        };
        Difference::of(&a, &b, &all).findings[0].judgement
    };
    assert_eq!(judgement(2.0, 2.0), Judgement::Unchanged);
    assert_eq!(judgement(2.0, 2.015), Judgement::Unchanged);
    assert_eq!(judgement(2.0, 2.1), Judgement::Regressed);
    assert_eq!(judgement(2.1, 2.0), Judgement::Improved);
    // Of no account for each packet, much as it is of what there was.
    assert_eq!(judgement(0.0, 0.005), Judgement::Unchanged);
}
