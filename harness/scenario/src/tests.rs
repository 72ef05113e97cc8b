// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use proptest::prelude::*;

use mutexlab_model::subject::Subject;

use super::file::parse;
use super::*;
use crate::parameter::Choices;
use crate::plan::Plan;
use mutexlab_model::traffic::{Checksum, Cloned};

const GOOD: &str = r#"
question = "?"
mode = "virtual"
kernels = ["7.3"]
cpus = [1]
subjects = ["none", "module"]
[parameters]
cache = [true, false]
[traffic]
ways = ["forward"]
families = ["v4"]
protocols = ["udp"]
payloads = [64]
round-trips = 10
warm-up = 1
"#;

fn error(from: &str, to: &str) -> String {
    let text = GOOD.replace(from, to);
    assert_ne!(text, GOOD, "{from:?} does not occur");
    planned(text).unwrap_err()
}

#[test]
fn a_good_scenario_is_understood() {
    let scenario = parse(GOOD, "a.toml").unwrap();
    assert_eq!(scenario.boots, 1);
    assert_eq!(
        *scenario.subjects,
        [Subject::NONE, Subject::MODULE].map(Named::from)
    );
    assert_eq!(scenario.parameters.module["cache"][1].to_string(), "N");
}

#[test]
fn a_misspelt_key_is_found_and_put_right() {
    let text = error("payloads", "payload");
    assert!(
        text.starts_with("a.toml:13:1: unknown field `payload`"),
        "{text}"
    );
    assert!(text.ends_with("did you mean `payloads`?"), "{text}");
    let text = error("\nkernels", "\nkernel");
    assert!(text.starts_with("a.toml:4:1:"), "{text}");
    assert!(text.ends_with("did you mean `kernels`?"), "{text}");
}

#[test]
fn a_misspelt_value_is_found_and_put_right() {
    let text = error("\"forward\"", "\"foward\"");
    assert!(text.starts_with("a.toml:10:9:"), "{text}");
    assert!(text.ends_with("did you mean `forward`?"), "{text}");
}

#[test]
fn a_parameter_that_the_module_does_not_have_is_found() {
    let there = ["cache_size".to_owned(), "pool".to_owned()];
    let fault = |text: &str| {
        let file = ScenarioFile::parse("a".into(), "a.toml".into(), text.into()).unwrap();
        let fault = file.scenario.check_parameters(&there).unwrap_err();
        file.explain(&fault).to_string()
    };
    let text = GOOD.replace("cache =", "pool = [1]\ncache_sise =");
    assert_eq!(
        fault(&text),
        "a.toml:9:14: the module has no parameter `cache_sise`; did you mean `cache_size`?"
    );
    let text = GOOD.replace("cache =", "pool =") + "[[exclude]]\nparameters = { pol = 1 }\n";
    assert_eq!(
        fault(&text),
        "a.toml:17:22: the module has no parameter `pol`; did you mean `pool`?"
    );
}

#[test]
fn a_subject_has_parameters_of_its_own() {
    let text = GOOD.replace("\"none\"", "\"nft-filter\"").replace(
        "[traffic]",
        "width = { from = 1, to = 4, times = 2 }\n\
         [parameters.nft-filter]\nrules = { from = 10, to = 20, step = 10 }\nset = [true]\n[traffic]",
    );
    let Parameters { module, owned } = parse(&text, "a.toml").unwrap().parameters;
    let texts = |choices: &Choices, name: &str| -> Vec<String> {
        choices[name]
            .iter()
            .map(ParameterValue::to_string)
            .collect()
    };
    assert_eq!(module.len(), 2);
    assert_eq!(texts(&module, "width"), ["1", "2", "4"]);
    assert_eq!(owned.len(), 1);
    assert_eq!(texts(&owned["nft-filter"], "rules"), ["10", "20"]);
    assert_eq!(texts(&owned["nft-filter"], "set"), ["Y"]);
}

#[test]
fn an_owner_of_parameters_is_a_subject_that_is_measured() {
    let add = |table: &str| error("[traffic]", &format!("{table}\n[traffic]"));
    assert_eq!(
        add("[parameters.non]\na = [1]"),
        "a.toml:9:1: subjects does not list `non`; did you mean `none`?"
    );
    assert_eq!(
        add("[parameters.module]\na = [1]"),
        "a.toml:9:1: the module's parameters stand in [parameters] itself"
    );
    assert_eq!(
        add("[parameters.none]\na = []"),
        "a.toml:10:5: parameters.none.a is empty, so there is nothing to measure"
    );
    for (table, part) in [
        ("[parameters.none]\na = 1\nb = [2]", "`a` is a number"),
        ("[parameters.none]\na = \"1\"", "a list, or a range"),
        ("b = { from = 1, too = 2 }", "unknown field `too`"),
        ("b = { from = 3, to = 2 }", "is empty"),
        ("b = 1", "or a subject's parameters"),
    ] {
        let text = add(table);
        assert!(text.contains(part), "{text}");
        assert!(
            text.starts_with("a.toml:9:") || text.starts_with("a.toml:10:"),
            "{text}"
        );
    }
}

#[test]
fn every_fault_is_shown_where_it_is() {
    for (from, to, place) in [
        ("[1]", "[1, 1]", "5:12"),
        ("[1]", "[1, 0]", "5:12"),
        ("[64]", "[64, 15]", "13:17"),
        ("[64]", "[]", "13:12"),
        ("= 10", "= 0", "14:15"),
        (", \"module\"", "", "7:1"),
    ] {
        let text = error(from, to);
        assert!(text.starts_with(&format!("a.toml:{place}: ")), "{text}");
    }
}

#[test]
fn a_key_far_from_all_others_is_not_guessed() {
    assert!(!error("\nkernels", "\nxyzzy").contains("did you mean"));
}

#[test]
fn a_missing_key_is_named() {
    assert!(error("cpus = [1]", "").contains("missing field `cpus`"));
}

#[test]
fn nonsense_is_refused() {
    for (from, to, part) in [
        ("[\"7.3\"]", "[]", "kernels is empty"),
        ("[1]", "[1, 1]", "twice"),
        ("[1]", "[0]", "at least one CPU"),
        ("[64]", "[15]", "between 16 and"),
        ("[64]", "[1401]", "between 16 and"),
        ("= 10", "= 0", "at least 1"),
        (", \"module\"", "", "parameters are the module's"),
        ("[true, false]", "[]", "parameters.cache is empty"),
        ("cpus =", "seeds = []\ncpus =", "seeds is empty"),
        ("cpus =", "seeds = [3, 3]\ncpus =", "twice"),
        (
            "cpus =",
            "seeds = [1, 2]\nboots = 2\ncpus =",
            "leave `boots` out",
        ),
        (
            "\"virtual\"",
            "\"wall\"\nseeds = [1]",
            "no two boots are the same",
        ),
    ] {
        let text = error(from, to);
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn flows_are_one_unless_told() {
    let flows = |text: &str| parse(text, "a.toml").unwrap().traffic.all_flows(4);
    assert_eq!(flows(GOOD), [(1, None)]);
    let text = GOOD.replace("[64]", "[64]\nflows = [1, 1_000, 1_000_000]");
    assert_eq!(
        flows(&text),
        [1, 1_000, 1_000_000].map(|flows| (flows, None))
    );
    let four = NonZeroU32::new(4);
    let text = GOOD.replace("[64]", "[64]\nflows-per-cpu = [1, 3]");
    assert_eq!(flows(&text), [(4, four), (12, four)]);
    let text = GOOD.replace("[64]", "[64]\nflows = [2]\nflows-per-cpu = [1]");
    assert_eq!(flows(&text), [(2, None), (4, four)]);
    let text = GOOD
        .replace("[64]", "[64]\nflows = [1]")
        .replace("[\"forward\"]", "[\"forward\", \"local\"]");
    assert!(parse(&text, "a.toml").is_ok());
}

/// What is planned of a scenario, or what is wrong with it.
fn planned(text: String) -> Result<Plan, String> {
    let file = ScenarioFile::parse("a".into(), "a.toml".into(), text);
    let file = file.map_err(|error| format!("{error:#}"))?;
    Plan::new(&file.scenario).map_err(|fault| format!("{:#}", file.explain(&fault)))
}

#[test]
fn bad_numbers_of_flows_are_shown_where_they_are() {
    for (flows, place, part) in [
        ("[1, 0]", "14:13", "0 flows are not between 1 and 1000000"),
        ("[1000001]", "14:10", "1000001 flows are not between"),
        ("[1, -1]", "14:13", "found the number `-1`"),
        ("[]", "", "traffic.flows is empty"),
        ("[1, 1]", "", "traffic.flows lists 1 twice"),
    ] {
        let text = error("[64]", &format!("[64]\nflows = {flows}"));
        assert!(text.starts_with(&format!("a.toml:{place}")), "{text}");
        assert!(text.contains(part), "{text}");
    }
    let text = GOOD
        .replace("[64]", "[64]\nflows = [1, 2]")
        .replace("[\"forward\"]", "[\"forward\", \"local\"]");
    let error = planned(text.clone()).unwrap_err();
    assert!(
        error.starts_with("a.toml:14:13: with the way \"local\" there can be only 1 flow"),
        "{error}"
    );
    assert!(planned(text + "[[exclude]]\nway = \"local\"\nflows = 2\n").is_ok());
}

#[test]
fn flows_are_spread_in_closed_loops_of_single_packets_on_the_wire() {
    let good = GOOD.replace("[64]", "[64]\nflows-per-cpu = [1]");
    assert!(parse(&good, "a.toml").is_ok());
    let key = "14:17: flows are spread over CPUs in closed loops";
    for (from, to, part) in [
        (
            "[1]\nround",
            "[2, 0]\nround",
            "14:21: 0 flows for each of 1 CPUs",
        ),
        ("[1]\nround", "[1000001]\nround", "14:18: 1000001 flows for"),
        ("[1]\nround", "[]\nround", "traffic.flows-per-cpu is empty"),
        (
            "[1]\nround",
            "[1, 1]\nround",
            "traffic.flows-per-cpu lists 1 twice",
        ),
        (
            "[1]\nsubjects",
            "[1, 64]\nsubjects",
            "15:15: 10 round trips do not reach each of 64 CPUs",
        ),
        ("[\"forward\"]", "[\"forward\", \"local\"]", key),
        ("warm-up", "burst = 2\nwarm-up", key),
        (
            "flows-per-cpu = [1]",
            "steering = [\"asymmetric\"]",
            "14:12: steering is of flows that are spread over CPUs",
        ),
        ("warm-up", "rates = [1]\npackets = 1\nwarm-up", key),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from:?} does not occur");
        let error = format!("{:#}", parse(&text, "a.toml").unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn kinds_of_packets_are_of_closed_loops_on_the_wire() {
    let plain = parse(GOOD, "a.toml").unwrap();
    assert_eq!(*plain.traffic.checksum, [Checksum::None]);
    assert_eq!(*plain.traffic.cloned, [Cloned::No]);
    let given = "[64]\nchecksum = [\"none\", \"partial\", \"unnecessary\"]\ncloned = [\"no\"]";
    let all = parse(&GOOD.replace("[64]", given), "a.toml").unwrap();
    assert_eq!(all.traffic.checksum.len(), 3);
    for (to, part) in [
        (
            "[64]\nchecksum = [\"complete\"]",
            "unknown value `complete`",
        ),
        ("[64]\nchecksum = []", "traffic.checksum is empty"),
        (
            "[64]\ncloned = [\"no\", \"no\"]",
            "traffic.cloned lists No twice",
        ),
    ] {
        let text = error("[64]", to);
        assert!(text.contains(part), "{text}");
    }
    // What there can be none of is refused when cells are planned, unless it is excluded.
    let cloned = "[64]\nchecksum = [\"unnecessary\"]\ncloned = [\"header\"]";
    let file = parse(&GOOD.replace("[64]", cloned), "a.toml").unwrap();
    let fault = Plan::new(&file).unwrap_err();
    assert!(
        fault.message.contains("nobody else holds"),
        "{}",
        fault.message
    );
}

#[test]
fn bursts_are_of_one_flow_of_forwarded_udp() {
    assert_eq!(parse(GOOD, "a.toml").unwrap().traffic.burst, 1);
    let text = GOOD.replace("[64]", "[64]\nflows = [1]\nburst = 128");
    assert_eq!(parse(&text, "a.toml").unwrap().traffic.burst, 128);
    for (from, to, part) in [
        ("[64]", "[64]\nburst = 0", "a burst of 0: 1, or"),
        ("[64]", "[64]\nburst = 129", "at most 128"),
        ("[64]", "[\"imix\"]\nburst = 2", "all of one size"),
        (
            "[64]",
            "[1000]\nburst = 66",
            "66 payloads of 1000 are more than",
        ),
        (
            "[\"udp\"]",
            "[\"udp\", \"tcp\"]\nburst = 2",
            "forwarded UDP only",
        ),
        (
            "[\"forward\"]",
            "[\"local\"]\nburst = 2",
            "forwarded UDP only",
        ),
    ] {
        let text = error(from, to);
        assert!(text.contains(part), "{text}");
    }
    let text = error("[64]", "[64]\nflows = [1, 2]\nburst = 2");
    assert!(
        text.starts_with("a.toml:14:13: of bursts there can be only 1 flow"),
        "{text}"
    );
}

#[test]
fn the_scenarios_of_the_repository_are_good() {
    let directory = mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR")))
        .unwrap()
        .join("scenarios");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let file = ScenarioFile::load(&path).unwrap();
            let plan = crate::plan::Plan::new(&file.scenario);
            assert!(
                plan.is_ok_and(|plan| plan.cells() > 0),
                "{}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 0);
}

proptest! {
    #[test]
    fn any_damage_is_explained(
        at: prop::sample::Index,
        length in 0_usize..9,
        new in prop_oneof![any::<String>(), "[\\[\\]=\"'`#, a-z0-9\né]{0,6}"],
    ) {
        let at = at.index(GOOD.len());
        let mut damaged = GOOD.to_owned();
        damaged.replace_range(at..GOOD.len().min(at + length), &new);
        if let Err(error) = parse(&damaged, "a.toml") {
            let explanation = format!("{error:#}");
            prop_assert!(explanation.starts_with("a.toml"), "{}", explanation);
        }
    }
}
