// SPDX-License-Identifier: MIT OR Apache-2.0

use mprox_client::{Condition, Element, Field, ValueKind, Values};

use super::*;

fn condition(field: Field, not: bool, values: Values) -> Condition {
    Condition {
        field,
        not,
        mask: u32::MAX,
        values,
    }
}

fn one(number: u64) -> Values {
    Values::Range {
        first: number,
        last: number,
    }
}

#[test]
fn rules_say_who_and_what() {
    let text = r#"
        [sets.far]
        networks = "198.51.100.0/24"
        networks-file = "far.txt"

        [sets.web]
        ports = [443, 80, 81]

        [[rule]]
        name = "who"
        users = ["alice", 1001, "5-7"]
        not-groups = "staff"
        cgroups = "/user.slice"
        process = 1234
        programs = ["curl", "wget"]
        to = "@far"
        ports = "@web"
        action = "reject"

        [[rule]]
        name = "what"
        mark = "0x100/0xff00"
        dscp = "ef"
        source-ports = 53
        not-interface = "eth9"
        interface = ["eth0", "eth1"]
        not-to = "10.0.0.0/8"
        ip = 4
        action = "drop"
    "#;
    let configuration = read(text).unwrap().configuration;
    let sets: Vec<_> = configuration
        .sets
        .iter()
        .map(|set| (set.label.as_str(), set.kind, set.elements.len()))
        .collect();
    assert_eq!(
        sets,
        [
            ("far", ValueKind::Addresses, 3),
            ("web", ValueKind::Numbers, 2),
            ("", ValueKind::Numbers, 2),
            ("", ValueKind::Names, 2),
            ("", ValueKind::Addresses, 1),
        ]
    );
    let users = [Element::Number([5, 7]), Element::Number([1000, 1001])];
    assert_eq!(configuration.sets[2].elements, users);
    let who: Vec<_> = configuration.rules[..2].to_vec();
    assert!(who
        .iter()
        .all(|rule| rule.action == Action::Reject && rule.hooks == HOOK_LOCAL_OUT));
    assert_eq!([who[0].family, who[1].family], [Family::V4, Family::V6]);
    let asked = [
        condition(Field::User, false, Values::Set(2)),
        condition(Field::Group, true, one(50)),
        condition(Field::ControlGroup, false, one(77)),
        condition(Field::Process, false, one(99)),
        condition(Field::Program, false, Values::Set(3)),
        condition(Field::DestinationPort, false, Values::Set(1)),
        condition(Field::Destination, false, Values::Set(0)),
    ];
    assert!(who.iter().all(|rule| rule.conditions.iter().eq(asked)));
    let what = &configuration.rules[2..];
    let interfaces: Vec<_> = what.iter().map(|rule| &rule.interface[..5]).collect();
    assert_eq!(interfaces, [b"eth0\0", b"eth1\0"]);
    let mut eth9 = [0; 16];
    eth9[..4].copy_from_slice(b"eth9");
    let asked = [
        condition(Field::Destination, true, Values::Set(4)),
        condition(Field::SourcePort, false, one(53)),
        condition(Field::Interface, true, Values::Name(eth9)),
        Condition {
            mask: 0xff00,
            ..condition(Field::Mark, false, one(0x100))
        },
        condition(Field::Dscp, false, one(46)),
    ];
    assert!(what.iter().all(|rule| rule.conditions.iter().eq(asked)));
}

#[test]
fn many_networks_are_a_set_and_are_read_at_once() {
    let networks: Vec<_> = (0..100_000_u32)
        .map(|number| format!("\"{}/31\"", std::net::Ipv4Addr::from(number << 2)))
        .collect();
    let text = format!(
        "[[rule]]\nto = [{}, \"private\"]\naction = \"drop\"\n",
        networks.join(",")
    );
    let begin = std::time::Instant::now();
    let configuration = read(&text).unwrap().configuration;
    let took = begin.elapsed();
    let [set] = &configuration.sets[..] else {
        panic!("{}", configuration.sets.len());
    };
    // Of private networks' none touches these, and of IPv6 there is one.
    assert_eq!(set.elements.len(), 100_000 + 4 + 1);
    let [four, six] = &configuration.rules[..] else {
        panic!("{:?}", configuration.rules);
    };
    assert!(four
        .conditions
        .iter()
        .eq([condition(Field::Destination, false, Values::Set(0))]));
    assert!(six.conditions.is_empty() && six.destination_prefix == 7);
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}

#[test]
fn what_sets_and_conditions_cannot_be_is_told() {
    let rule = "[[rule]]\naction = \"drop\"\n";
    for (text, expected) in [
        ("[sets.a]\n", "a.toml:1:1: there is nothing in the set"),
        (
            "[sets.a]\nports = 1\nusers = 2\n",
            "a.toml:1:1: a set is of one sort of things",
        ),
        ("[sets.a]\nports = []\n", "a.toml:2:9: the list is empty"),
        (
            "[sets.a]\nnetworks-file = \"none.txt\"\n",
            "a.toml:2:17: cannot read /etc/none.txt",
        ),
        (
            "[sets.a]\nnetworks-file = \"bad.txt\"\n",
            "a.toml:2:17: /etc/bad.txt:2:1: `x` is no network",
        ),
        (
            "[sets.a]\nusers = \"bob\"\n",
            "a.toml:2:9: no user is called `bob`",
        ),
        (
            "[sets.a]\ncgroups = \"x\"\n",
            "a.toml:2:11: `x` is no path of a control group",
        ),
        (
            "[sets.a]\nprograms = \"sixteen-letters!\"\n",
            "is no name of a process",
        ),
    ] {
        let error = read(&format!("{text}{rule}")).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    for (line, expected) in [
        ("to = \"@alowed\"", "a.toml:5:6: no set is called `alowed`; did you mean `allowed`?"),
        ("to = \"@allowed\"", "a.toml:5:6: the set `allowed` has ports, and here are networks asked for"),
        ("users = \"@allowed\"", "a.toml:5:9: the set `allowed` has ports, and here are users asked for"),
        ("ports = [\"@allowed\", 1]", "a set stands alone"),
        ("not-ports = [1, \"@allowed\"]", "a.toml:5:17: a set stands alone"),
        ("users = 1\ndirection = \"forwarded\"", "a.toml:6:13: whose connections are forwarded nobody knows"),
        ("process = 7", "a.toml:5:11: there is no process 7"),
        ("cgroups = \"/none\"", "a.toml:5:11: there is no control group `/none`"),
        ("mark = \"1/2\"", "a.toml:5:8: `1/2` has bits that the mask leaves out"),
        ("dscp = \"ff\"", "a.toml:5:8: `ff` is no code point"),
        ("source-ports = 65536", "a.toml:5:16: 65536 is more than 65535"),
        (
            "users = 1\ngroups = 1\nprograms = \"a\"\nmark = 1\ndscp = 1\nnot-to = \"::1\"\nnot-from = \"::1\"\nnot-ports = 1\nsource-ports = 1",
            "a.toml:3:1: the rule asks for more than the kernel takes of one, 8 conditions",
        ),
    ] {
        let text = format!("[sets.allowed]\nports = 1\n{rule}{line}\n");
        let error = read(&text).expect_err(line).to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_set_without_a_network_of_the_rule_s_ip_version_is_told() {
    let with = |ip: &str| {
        read(&format!(
            "[sets.six]\nnetworks = \"2001:db8::/32\"\n[[rule]]\n{ip}\nto = \"@six\"\naction = \"drop\"\n"
        ))
    };
    let error = with("ip = 4").unwrap_err().to_string();
    let expected =
        "a.toml:5:6: the set has no network that it could match, and the rule is for IPv4 alone";
    assert_eq!(error, expected);
    for ip in ["", "ip = 6"] {
        let rules = with(ip).unwrap().configuration.rules;
        assert!(rules.len() == 1 && rules[0].family == Family::V6);
    }
}
