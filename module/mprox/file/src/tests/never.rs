// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;

#[test]
fn a_rule_that_never_matches_is_told_with_the_one_before_it() {
    let after = |rules: &str| read(&format!("{GOOD}{rules}"));
    let error = after("[[rule]]\nto = [\"10.2.0.0/16\", \"127.0.0.1\"]\naction = \"direct\"\n");
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("a.toml:28:1: this rule can never match")
            && error.ends_with("the 1st rule before it, `lan`"),
        "{error}"
    );
    // Of these, one is nobody's.
    after("[[rule]]\nto = [\"10.2.0.0/16\", \"192.0.2.1\"]\naction = \"direct\"\n").unwrap();
    // It is not the only thing that the two have.
    after("[[rule]]\nprotocol = \"udp\"\nports = 53\nvia = \"both\"\n").unwrap();
    let error =
        after("[[rule]]\ndirection = \"local\"\nprotocol = \"udp\"\nports = 53\nvia = \"both\"\n");
    assert!(error
        .unwrap_err()
        .to_string()
        .contains("the 2nd rule before it, `dns`"));
}

#[test]
fn a_rule_that_asks_for_more_does_not_hide_one_that_asks_for_less() {
    let pair = |first: &str, second: &str| {
        read(&format!(
            "[[rule]]\n{first}\naction = \"drop\"\n[[rule]]\n{second}\naction = \"direct\"\n"
        ))
    };
    pair("users = 1000", "").unwrap();
    pair("users = 1000", "users = 1001").unwrap();
    let error = pair("direction = \"local\"", "users = 1000").unwrap_err();
    assert!(error.to_string().contains("can never match"), "{error}");
    let error = pair("users = 1000", "users = 1000\nports = 80").unwrap_err();
    assert!(error.to_string().contains("can never match"), "{error}");
}

#[test]
fn a_rule_is_told_that_several_before_it_cover_together() {
    let file = |rules: &[&str]| {
        let rules = rules
            .iter()
            .map(|rule| format!("[[rule]]\n{rule}\naction = \"drop\"\n"));
        read(&rules.collect::<String>()).map(|_| ())
    };
    let told = |rules: &[&str]| file(rules).expect_err(rules[0]).to_string();
    let halves = ["name = \"a\"\nto = \"10.0.0.0/9\"", "to = \"10.128.0.0/9\""];
    let whole = "to = \"10.0.0.0/8\"";
    assert_eq!(
        told(&[halves[0], halves[1], whole]),
        "a.toml:8:1: this rule can never match: all of its connections are those of 2 rules before it: the 1st, `a`; the 2nd"
    );
    file(&[halves[0], "to = \"10.128.0.0/10\"", whole]).unwrap();
    let quarters: Vec<_> = (0..5)
        .map(|number| format!("ports = \"{}-{}\"", number * 10, number * 10 + 9))
        .collect();
    let mut rules: Vec<_> = quarters.iter().map(String::as_str).collect();
    rules.push("ports = \"0-49\"");
    let error = told(&rules);
    assert!(
        error.ends_with("those of 5 rules before it: the 1st; the 2nd; the 3rd; and 2 others"),
        "{error}"
    );
    let sets = |number: u32| {
        let all = (0..20).map(|one| format!("\"10.0.{}.0/24\"", 2 * (number + one)));
        format!("[{}]", all.collect::<Vec<_>>().join(","))
    };
    for (before, covered) in [
        // Each protocol, each direction, each version.
        (
            &["protocol = \"tcp\"", "protocol = \"udp\""][..],
            "ports = 1",
        ),
        (&["direction = \"local\"", "direction = \"forwarded\""], ""),
        (&["ip = 4", "ip = 6"], "from = \"private\""),
        // The same list, and what is in it.
        (&["users = [1, 5]"], "users = [5, 1]"),
        (&["users = [1, 5]"], "users = 5"),
        (&["users = \"1-9\""], "users = [1, 5]"),
        (&["programs = [\"a\", \"b\"]"], "programs = \"b\""),
        (&["not-users = 5"], "not-users = \"1-9\""),
        (
            &[&format!("to = {}", sets(0))],
            &format!("to = {}", sets(0)),
        ),
        (&[&format!("to = {}", sets(0))], "to = \"10.0.2.7\""),
        (&["source-ports = [1, 9]"], "source-ports = 9\nusers = 7"),
    ] {
        let rules = [before, &[covered]].concat();
        let error = told(&rules);
        assert!(error.contains("can never match"), "{error}");
    }
    for (before, not_covered) in [
        (&["protocol = \"tcp\""][..], "ports = 1"),
        (&["protocol = \"tcp\"\nusers = 1", "protocol = \"udp\""], ""),
        (
            &[
                "protocol = \"tcp\"\nports = 1",
                "protocol = \"udp\"\nports = 2",
            ],
            "ports = [1, 2]",
        ),
        (&["users = [1, 5]"], "users = [1, 6]"),
        (&["users = 5"], "users = [1, 5]"),
        (&["users = 5"], "groups = 5"),
        (&["not-users = \"1-9\""], "not-users = 5"),
        (&["users = 5"], "not-users = 5"),
        (&["mark = 1"], "mark = \"1/1\""),
        (
            &[&format!("to = {}", sets(0))],
            &format!("to = {}", sets(1)),
        ),
        (&[&format!("to = {}", sets(0))], "to = \"10.0.3.7\""),
        (&[&format!("from = {}", sets(0))], "to = \"10.0.2.7\""),
    ] {
        file(&[before, &[not_covered]].concat()).unwrap();
    }
}
