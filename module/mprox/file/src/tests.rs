// SPDX-License-Identifier: MIT OR Apache-2.0

use mutex_abi::proxy::{Action, Family, Protocol, Selection, HOOK_LOCAL_OUT};
use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"[upstreams.web]
servers = ["192.0.2.10:8080", "192.0.2.11"]
select = "failover"

[upstreams.both]
servers = ["[2001:db8::1]:53", "192.0.2.53:53"]

[[rule]]
name = "lan"
to = ["private", "10.1.0.0/16", "local"]
action = "direct"

[[rule]]
name = "dns"
protocol = "udp"
direction = "local"
ports = 53
via = "both"

[[rule]]
name = "web"
ip = 4
protocol = "tcp"
from = "198.51.100.0/24"
ports = [443, 80, "8000-8010", "81-90"]
interface = "eth0"
via = "web"
"#;

fn read(text: &str) -> anyhow::Result<ProxyFile> {
    ProxyFile::parse("a.toml".to_owned(), text.to_owned())
}

#[test]
fn a_file_becomes_rules_and_groups() {
    let configuration = read(GOOD).unwrap().configuration;
    let [both, web] = &configuration.groups[..] else {
        panic!("{:?}", configuration.groups);
    };
    assert_eq!((both.label.as_str(), web.label.as_str()), ("both", "web"));
    assert_eq!(web.selection, Selection::Failover);
    let ports = |group: &mprox_client::Group| {
        let all = group.upstreams.iter().map(|one| (one.port, one.priority));
        all.collect::<Vec<_>>()
    };
    assert_eq!(ports(web), [(8080, 0), (0, 1)]);
    assert_eq!(both.upstreams[0].family, Family::V6);
    let rules = &configuration.rules;
    // 10.1.0.0/16 is in a class that is there already: four and five networks of IPv4, one and two of IPv6.
    let of = |label: &str| {
        let all = rules.iter().filter(|rule| rule.label.as_str() == label);
        all.collect::<Vec<_>>()
    };
    assert_eq!(of("lan").len(), 4 + 4 + 1 + 2);
    assert!(of("lan").iter().all(|rule| rule.action == Action::Direct));
    let dns = of("dns");
    assert_eq!(dns.len(), 2);
    assert!(dns.iter().all(|rule| rule.hooks == HOOK_LOCAL_OUT
        && rule.protocol == Some(Protocol::Udp)
        && (rule.port_first, rule.port_last, rule.group) == (53, 53, 0)));
    let web = of("web");
    let ranges: Vec<_> = web
        .iter()
        .map(|rule| (rule.port_first, rule.port_last))
        .collect();
    assert_eq!(ranges, [(80, 90), (443, 443), (8000, 8010)]);
    assert!(web.iter().all(|rule| rule.family == Family::V4
        && rule.source_prefix == 24
        && rule.interface.starts_with(b"eth0\0")));
    let nothing = read("rule = []").unwrap().configuration;
    assert_eq!(nothing, Default::default());
    for cut in [
        "",
        "# Nothing yet.",
        "[upstreams.a]\nservers = [\"192.0.2.1\"]\n",
    ] {
        let error = read(cut).unwrap_err().to_string();
        assert!(error.starts_with("a.toml: there is no rule"), "{error}");
    }
}

/// Each with its place and what is said, when `old` is `new` in the good file.
const MISTAKES: [(&str, &str, &str); 29] = [
    ("via = \"both\"", "via = \"boht\"", "a.toml:18:7: no upstreams are called `boht`; did you mean `both`?"),
    ("via = \"both\"", "", "a.toml:13:1: the rule does nothing: it needs `via"),
    ("via = \"both\"", "vai = \"both\"", "a.toml:18:1: unknown field `vai`"),
    ("via = \"both\"", "via = \"both\"\naction = \"direct\"", "a.toml:19:10: the rule has `via`, which redirects, and an action"),
    ("via = \"both\"", "via = \"web\"", "a.toml:18:7: `web` has no server with an address of IPv6"),
    ("ports = 53", "ports = 65536", "a.toml:17:9: "),
    ("ports = 53", "ports = \"53-\"", "a.toml:17:9: `53-` is no port such as 80"),
    ("ports = 53", "ports = \"54-53\"", "a.toml:17:9: the range `54-53` ends before it begins"),
    ("ports = 53", "ports = []", "a.toml:17:9: the list is empty"),
    ("\"8000-8010\"", "\"x\"", "a.toml:25:19: `x` is no port"),
    ("direction = \"local\"", "direction = \"outwards\"", "a.toml:16:13: unknown variant `outwards`"),
    ("direction = \"local\"", "direction = \"locale\"", "did you mean `local`?"),
    ("protocol = \"udp\"", "protocol = \"sctp\"", "a.toml:15:12: unknown variant `sctp`"),
    ("ip = 4", "ip = 5", "a.toml:22:6: an IP version is 4 or 6"),
    ("ip = 4", "ip = 6", "a.toml:20:1: this rule can never match: its networks and its IP version"),
    ("\"198.51.100.0/24\"", "\"198.51.100.1/24\"", "a.toml:24:8: `198.51.100.1/24` has bits set behind its prefix; the network is 198.51.100.0/24"),
    ("\"10.1.0.0/16\"", "\"10.1.0.0/33\"", "a.toml:10:18: the prefix is longer than the address, 32 bits"),
    ("\"private\"", "\"privat\"", "a.toml:10:7: no class of networks is called `privat`; did you mean `private`?"),
    ("\"private\"", "\"intranet\"", "there are `local`, `private` and `multicast`"),
    ("interface = \"eth0\"", "interface = \"a/b\"", "a.toml:26:13: no interface can be called `a/b`"),
    ("interface = \"eth0\"", "interface = \"\"", "a.toml:26:13: no interface can be called ``"),
    ("name = \"dns\"", "name = \"lan\"", "a.toml:14:8: the 1st rule is called `lan`, too"),
    ("name = \"dns\"", "name = \"a\\tb\"", "a.toml:14:8: a name has at most 31 bytes, and no control characters"),
    ("\"192.0.2.11\"", "\"192.0.2.11:0\"", "a.toml:2:31: port 0: leave the port out"),
    ("\"192.0.2.11\"", "\"example.org\"", "a.toml:2:31: `example.org` is no address with a port"),
    ("\"192.0.2.11\"", "\"0.0.0.0\"", "a.toml:2:31: nobody is at 0.0.0.0"),
    ("servers = [\"192.0.2.10:8080\", \"192.0.2.11\"]", "servers = []", "a.toml:2:11: there is no server"),
    ("select = \"failover\"", "select = \"first\"", "a.toml:3:10: unknown variant `first`"),
    ("select = \"failover\"", "select = ", "a.toml:3:10: "),
];

#[test]
fn mistakes_are_told_with_their_place() {
    for (old, new, expected) in MISTAKES {
        assert!(GOOD.contains(old), "{old}");
        let text = GOOD.replacen(old, new, 1);
        let error = read(&text).expect_err(new).to_string();
        assert!(error.contains(expected), "{new}: {error}");
        assert!(error.starts_with("a.toml:"), "{new}: {error}");
    }
}

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

/// The files of a document, as they stand there.
fn files_of(document: &str) -> Vec<&str> {
    let blocks = document.split("```toml\n").skip(1);
    blocks
        .map(|text| text.split("```").next().unwrap_or_default())
        .collect()
}

#[test]
fn the_files_of_the_document_are_good() {
    let files = files_of(include_str!("../../../../docs/mprox.md"));
    assert!(files.len() > 4);
    for text in &files {
        read(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    // Of the first one it shows what is said.
    let first = read(files[0]).unwrap().configuration;
    assert_eq!((first.rules.len(), first.groups[0].upstreams.len()), (4, 2));
}

#[test]
fn more_than_the_kernel_takes_is_told() {
    let ports: Vec<String> = (0..100).map(|port| (2 * port).to_string()).collect();
    let networks: Vec<String> = (0..50).map(|part| format!("\"192.0.{part}.1\"")).collect();
    let text = format!(
        "[[rule]]\nports = [{}]\nto = [{}]\naction = \"direct\"\n",
        ports.join(","),
        networks.join(",")
    );
    let error = read(&text).unwrap_err().to_string();
    assert!(
        error.contains("more than 4096 rules for the kernel"),
        "{error}"
    );
    // So many that they could not be made first.
    let many: Vec<String> = (0..1000).map(|port| (2 * port).to_string()).collect();
    let hosts = (0..1000).map(|host: u32| format!("\"10.{}.{}.1\"", host / 250, host % 250));
    let hosts = hosts.collect::<Vec<_>>().join(",");
    let text = format!(
        "[[rule]]\nports = [{}]\nfrom = [{hosts}]\nto = [{hosts}]\naction = \"direct\"\n",
        many.join(",")
    );
    let error = read(&text).unwrap_err().to_string();
    assert!(
        error.starts_with("a.toml:1:1: with this rule's networks"),
        "{error}"
    );
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_place() {
    let file = read(GOOD).unwrap();
    let refused = |item| mprox_client::Refused {
        errno: 22,
        message: Some("no".to_owned()),
        offset: None,
        item,
    };
    let told = |item| file.explain(&refused(item)).to_string();
    let rules = file.configuration.rules.len();
    let last = told(Some(mprox_client::Item::Rule(rules - 1)));
    assert_eq!(last, "a.toml:20:1: the kernel refuses it: no");
    let group = told(Some(mprox_client::Item::Group(0)));
    assert_eq!(group, "a.toml:5:1: the kernel refuses it: no");
    assert_eq!(told(None), "a.toml: the kernel refuses it: no");
}

proptest! {
    #[test]
    fn any_damage_is_explained(at: prop::sample::Index, with in "[\"\\[\\]{}=#\\.a-z0-9 \n]{0,3}", cut in 0_usize..8) {
        let at = at.index(GOOD.len());
        let end = (at + cut).min(GOOD.len());
        let text = format!("{}{with}{}", &GOOD[..at], &GOOD[end..]);
        if let Err(error) = read(&text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("a.toml:"), "{}", error);
        }
    }
}
