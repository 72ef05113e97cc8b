// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is tried again: what our own machinery spoilt, once; never what says something about the module.

use mutexlab_model::verdict::Verdict;

use crate::lab::{Course, Lab, TESTS};

/// Runs the tests with guests that behave so: the exit code, what was said, and the laboratory.
fn test(courses: &[Course]) -> (Option<i32>, String, Lab) {
    let lab = Lab::new(courses);
    let arguments = [&["test", "--ktap", "report.ktap"][..], &TESTS].concat();
    let (code, said) = lab.run(&arguments);
    (code, said, lab)
}

fn ktap(lab: &Lab) -> String {
    std::fs::read_to_string(lab.path("repository/report.ktap")).unwrap()
}

fn bench(courses: &[Course]) -> (Option<i32>, String, Lab) {
    let lab = Lab::new(courses);
    let (code, said) = lab.run(&["bench", "scenarios/trial.toml", "--jobs", "1"]);
    (code, said, lab)
}

#[test]
fn tests_that_lose_their_guest_have_another_one_and_that_is_told() {
    let (code, said, lab) = test(&[Course::Dies, Course::Well]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.guests(), 2);
    // Who had ended does not run again.
    let tally = lab.tally();
    let mut once = tally.clone();
    once.sort();
    once.dedup();
    assert_eq!((tally.len(), once.len()), (3, 3), "{tally:?}");
    let ktap = ktap(&lab);
    let told = ktap.matches("second try; the first ended as infra").count();
    assert_eq!(told, 2, "{ktap}");
    assert!(!ktap.contains("not ok"), "{ktap}");
}

#[test]
fn tests_that_lose_two_guests_have_no_third() {
    let (code, said, lab) = test(&[Course::Dies, Course::Dies, Course::Well]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(lab.guests(), 2);
    assert_eq!(ktap(&lab).matches("not ok").count(), 2, "{said}");
    assert!(said.contains("infra"), "{said}");
}

#[test]
fn a_test_with_a_wrong_result_does_not_run_again() {
    let (code, said, lab) = test(&[Course::Wrong, Course::Well]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!((lab.guests(), lab.tally().len()), (1, 3), "{said}");
    assert!(said.contains("a packet went astray"), "{said}");
}

#[test]
fn a_test_whose_kernel_complains_does_not_run_again() {
    for (course, verdict) in [(Course::Warns, "splat"), (Course::Panics, "panic")] {
        let (code, said, lab) = test(&[course, Course::Well]);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!((lab.guests(), lab.tally().len()), (1, 1), "{said}");
        assert!(said.contains(verdict), "{said}");
    }
}

#[test]
fn cells_that_lose_their_guest_have_another_one_and_that_is_recorded() {
    let (code, said, lab) = bench(&[Course::Dies, Course::Well]);
    assert_eq!(code, Some(0), "{said}");
    let results = lab.results();
    let [first, second] = &results.boots[..] else {
        panic!("{:?}", results.boots);
    };
    assert_eq!(first.verdict, Verdict::Infra);
    assert_eq!(second.retry_of.as_ref(), Some(&first.id));
    assert_eq!((results.cells.len(), lab.tally().len()), (4, 4));
}

#[test]
fn a_cell_that_the_agent_could_not_measure_is_measured_once_more() {
    let (code, said, lab) = bench(&[Course::Cannot, Course::Well]);
    assert_eq!(code, Some(0), "{said}");
    let tally = lab.tally();
    assert_eq!((lab.guests(), tally.len()), (2, 5), "{tally:?}");
    assert_eq!(tally.first(), tally.last());
    let (code, said, lab) = bench(&[Course::Cannot, Course::Cannot, Course::Well]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(lab.guests(), 2);
}

#[test]
fn cells_with_another_bad_verdict_are_not_measured_again() {
    for (course, verdict) in [
        (Course::Wrong, Verdict::Failed),
        (Course::Warns, Verdict::Splat),
        (Course::Panics, Verdict::Panic),
        (Course::OtherKernel, Verdict::Boot),
    ] {
        let (code, said, lab) = bench(&[course, Course::Well]);
        assert_eq!(code, Some(1), "{said}");
        let results = lab.results();
        assert_eq!((lab.guests(), results.boots.len()), (1, 1), "{said}");
        assert_eq!(results.cells.len(), 4, "{said}");
        assert_eq!(results.cells[0].verdict, verdict, "{said}");
    }
}
