// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::path::Path;

use mutex_abi::proxy::{Action, Family, Protocol, Selection, HOOK_LOCAL_OUT};
use proptest::prelude::*;

use super::*;

mod conditions;
mod never;

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

/// A machine with a user, a group of users, a control group, a process and a file with networks.
struct Known;

impl System for Known {
    fn user(&self, name: &str) -> Result<u32, String> {
        match name {
            "alice" | "nobody" => Ok(1000),
            _ => Err(format!("no user is called `{name}`")),
        }
    }

    fn group(&self, name: &str) -> Result<u32, String> {
        match name {
            "staff" => Ok(50),
            _ => Err(format!("no group of users is called `{name}`")),
        }
    }

    fn control_group(&self, path: &str) -> Result<u64, String> {
        match path {
            "/user.slice" | "/work.slice" => Ok(77),
            _ => Err(format!("there is no control group `{path}`")),
        }
    }

    fn process(&self, number: u32) -> Result<u64, String> {
        match number {
            1234 => Ok(99),
            _ => Err(format!("there is no process {number}")),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/etc/far.txt") => Ok(b"203.0.113.0/24\n2001:db8::/32 # doc\n".to_vec()),
            Some("/etc/bad.txt") => Ok(b"203.0.113.0/24\nx\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn read(text: &str) -> anyhow::Result<ProxyFile> {
    ProxyFile::parse(
        "a.toml".to_owned(),
        text.to_owned(),
        Path::new("/etc"),
        &Known,
    )
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
const MISTAKES: [(&str, &str, &str); 54] = [
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
    ("direction = \"local\"", "direction = \"outwards\"", "a.toml:16:13: unknown value `outwards`"),
    ("direction = \"local\"", "direction = \"locale\"", "did you mean `local`?"),
    ("protocol = \"udp\"", "protocol = \"sctp\"", "a.toml:15:12: unknown value `sctp`"),
    ("ip = 4", "ip = 5", "a.toml:22:6: an IP version is 4 or 6"),
    ("ip = 4", "ip = 6", "a.toml:24:8: 198.51.100.0/24 is of IPv4, and the rule is for IPv6 alone"),
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
    ("select = \"failover\"", "select = \"first\"", "a.toml:3:10: unknown value `first`"),
    ("select = \"failover\"", "select = ", "a.toml:3:10: "),
    ("ports = 53", "ports = true", "a.toml:17:9: expected a number such as 80, a text such as \"8000-8099\", or a list of these, found `true`"),
    ("ports = 53", "ports = [53, 5.3]", "a.toml:17:14: expected a number such as 80, or a text such as \"8000-8099\", found the number `5.3`"),
    ("ports = 53", "ports = -1", "a.toml:17:9: the number -1 is less than 0 or too great"),
    ("from = \"198.51.100.0/24\"", "from = 7", "a.toml:24:8: expected a text in quotes, found the number `7`"),
    ("from = \"198.51.100.0/24\"", "from = [\"198.51.100.0/24\", \"2001:db8::/32\"]", "a.toml:24:28: 2001:db8::/32 is of IPv6, and the rule is for IPv4 alone"),
    ("\"192.0.2.11\"", "\"[[::1]]:80\"", "a.toml:2:31: `[[::1]]:80` is no address with a port"),
    ("\"192.0.2.11\"", "\"[192.0.2.11]\"", "is no address with a port"),
    ("\"192.0.2.11\"", "\"::ffff:192.0.2.11\"", "say 192.0.2.11 by itself"),
    ("\"192.0.2.11\"", "\"224.0.0.1\"", "224.0.0.1 is a group's"),
    ("\"192.0.2.11\"", "\"255.255.255.255\"", "is everybody's"),
    ("\"192.0.2.11\"", "\"fe80::1%eth0\"", "a.toml:2:31: "),
    ("\"192.0.2.11\"", "\"[2001:db8::1%3]:80\"", "a.toml:2:31: `[2001:db8::1%3]:80` names a link by `%`"),
    ("from = \"198.51.100.0/24\"", "not-from = [\"private\", \"2001:db8::/32\"]", "a.toml:24:24: 2001:db8::/32 is of IPv6, and the rule is for IPv4 alone"),
    ("from = \"198.51.100.0/24\"", "not-to = \"::1\"", "a.toml:24:10: ::1 is of IPv6, and the rule is for IPv4 alone"),
    ("from = \"198.51.100.0/24\"", "to = \"fe80::1%eth0\"", "a.toml:24:6: `fe80::1%eth0` names a link by `%`"),
    ("from = \"198.51.100.0/24\"", "to = \"::ffff:192.0.2.1\"", "a.toml:24:6: no packet has an address of `::ffff:192.0.2.1`: say 192.0.2.1 by itself"),
    ("from = \"198.51.100.0/24\"", "from = true", "a.toml:24:8: expected a text in quotes, or a list of these, found `true`"),
    ("from = \"198.51.100.0/24\"", "from = 1979-05-27", "a.toml:24:8: expected a text in quotes, or a list of these, found a date or time"),
    ("ip = 4", "ip = \"4\"", "a.toml:22:6: expected a whole number from 0 to 255, found the text \"4\""),
    ("ip = 4", "process = -1", "a.toml:22:11: expected a whole number from 0 to 4294967295, found the number `-1`"),
    ("select = \"failover\"", "select = 3", "a.toml:3:10: expected a text in quotes"),
    ("[\"192.0.2.10:8080\", \"192.0.2.11\"]", "\"192.0.2.11\"", "a.toml:2:11: expected a list, found the text"),
    ("servers = [\"[2001:db8::1]:53\", \"192.0.2.53:53\"]", "", "a.toml:5:1: missing field `servers`"),
    ("[upstreams.web]", "[upstreams]\nx = 1\n[upstreams.web]", "a.toml:2:5: expected a table, found the number `1`"),
    ("[upstreams.web]", "sets = 1\n[upstreams.web]", "a.toml:1:8: expected a table, found the number `1`"),
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
fn a_single_rule_s_table_is_told_how_a_list_is_written() {
    let error = read("[rule]\naction = \"drop\"\n").unwrap_err();
    let expected = "a.toml:1:1: expected a list, found a table; a table of a list has a header in double brackets, such as `[[name]]`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_long_name_is_told_at_once_and_not_repeated() {
    let groups: String = (0..200)
        .map(|number| format!("[upstreams.g{number}]\nservers = [\"192.0.2.1\"]\n"))
        .collect();
    let long = "x".repeat(1_000_000);
    let begin = std::time::Instant::now();
    for rule in [
        format!("via = \"{long}\""),
        format!("to = \"@{long}\""),
        format!("{long} = 1"),
    ] {
        let error = read(&format!("{groups}[[rule]]\n{rule}\n")).unwrap_err();
        assert!(
            error.to_string().len() < 1000,
            "{}",
            error.to_string().len()
        );
    }
    let took = begin.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

/// The files of a document, as they stand there; whatever they are called.
fn files_of(document: &str) -> Vec<&str> {
    let blocks = document.split("```toml").skip(1);
    let texts = blocks.filter_map(|block| block.split_once('\n'));
    texts
        .map(|(_name, text)| text.split("```").next().unwrap_or_default())
        .collect()
}

#[test]
fn the_files_of_the_documents_are_good() {
    let files = files_of(include_str!("../../../../docs/mprox.md"));
    let recipes = files_of(include_str!("../../../../docs/recipes.md"));
    assert!(recipes.len() > 8);
    for text in files.iter().chain(&recipes) {
        read(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    // Of the first one it shows what is said.
    let first = read(files[0]).unwrap().configuration;
    assert_eq!((first.rules.len(), first.groups[0].upstreams.len()), (4, 2));
}

#[test]
fn more_than_the_kernel_takes_is_told() {
    let ports = |count| {
        (0..count)
            .map(|port| (2 * port).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let hosts = |count| {
        let hosts = (0..count).map(|host: u32| format!("\"10.{}.{}.1\"", host / 250, host % 250));
        hosts.collect::<Vec<_>>().join(",")
    };
    let text = |ports: String, hosts: String| {
        format!(
            "[[rule]]\nports = [{ports}]\nfrom = [{hosts}]\nto = [{hosts}]\ninterface = [\"a\", \"b\"]\naction = \"drop\"\n"
        )
    };
    let error = read(&text(ports(16), hosts(16))).unwrap_err().to_string();
    assert!(
        error.starts_with("a.toml:1:1: with this rule's networks"),
        "{error}"
    );
    // Longer lists are sets, and need not be made rules.
    let configuration = read(&text(ports(1000), hosts(1000))).unwrap().configuration;
    assert_eq!(
        (configuration.rules.len(), configuration.sets.len()),
        (2, 3)
    );
    let servers = (0..256)
        .map(|host| format!("\"192.0.2.{host}:1\""))
        .collect::<Vec<_>>()
        .join(",");
    let groups: String = (0..17)
        .map(|number| format!("[upstreams.g{number}]\nservers = [{servers}]\n"))
        .collect();
    let error = read(&format!("{groups}[[rule]]\nvia = \"g1\"\nip = 4\n"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("all upstreams together have more than 4096 servers"),
        "{error}"
    );
    let sets: String = (0..4097)
        .map(|number| format!("[sets.s{number}]\nports = 1\n"))
        .collect();
    let error = read(&format!("rule = []\n{sets}")).unwrap_err();
    assert!(error.to_string().starts_with("a.toml:"), "{error}");
    assert!(error.to_string().ends_with("there are more than 4096 sets"));
    let error = read(&format!(
        "[upstreams.a]\nservers = [{servers}, \"192.0.3.1:1\"]\n[[rule]]\nvia = \"a\"\nip = 4\n"
    ));
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("2:11: there are more than 256 servers"),
        "{error}"
    );
    let groups: String = (0..257)
        .map(|number| format!("[upstreams.g{number}]\nservers = [\"192.0.2.1\"]\n"))
        .collect();
    let error = read(&format!("{groups}[[rule]]\nvia = \"g1\"\nip = 4\n"));
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("there are more than 256 groups of upstreams"),
        "{error}"
    );
    let rules = "[[rule]]\nusers = [1, 3]\naction = \"drop\"\n".repeat(4097);
    let error = read(&rules).unwrap_err().to_string();
    assert!(error.contains("there are more than 4096 "), "{error}");
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
