// SPDX-License-Identifier: MIT OR Apache-2.0

//! What on a machine hinders the proxy, or is good to know: by files below a directory that stands for `/`, and by what others said.

use std::fs;
use std::path::{Path, PathBuf};

use mprox_client::Stats;
use serde::Serialize;
use serde_json::Value;

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What mends it, or what follows of it.
    pub mend: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it has to be.
    Good,
    /// Good to know: it hinders some uses.
    Note,
    /// Nothing, or not what is wanted, is redirected as it is.
    Hinders,
    /// It cannot be told.
    Unknown,
}

/// What the kernel said of the proxy.
#[derive(Clone, Debug)]
pub enum Proxy {
    /// The module's family is not there.
    NoModule,
    /// It is, and does not talk to this user.
    NoRight,
    /// It talks, and nobody has a context here.
    Idle,
    /// What it counts.
    Active(Box<Stats>),
    /// Something else is wrong.
    Failed(String),
}

/// What `nft -j list ruleset` said.
#[derive(Clone, Debug)]
pub enum Ruleset {
    /// There is no nft here, or it failed: why.
    Unknown(String),
    /// What it printed.
    Listed(String),
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Good,
            found: found.into(),
            mend: None,
        }
    }

    fn bad(
        what: &'static str,
        state: State,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// All that is looked at, below `root`.
pub fn findings(root: &Path, proxy: &Proxy, ruleset: &Ruleset) -> Vec<Finding> {
    let machine = Root(root.to_owned());
    let mut all = of_proxy(proxy, &machine);
    all.extend(machine.forwarding());
    all.extend(machine.reverse_path());
    all.push(machine.control_groups());
    all.extend(of_ruleset(ruleset));
    all.extend(machine.old_tables());
    all.extend(machine.programs());
    all
}

fn of_proxy(proxy: &Proxy, machine: &Root) -> Vec<Finding> {
    const MODULE: &str = "module";
    match proxy {
        Proxy::NoModule => vec![Finding::bad(
            MODULE,
            State::Hinders,
            "mutex_proxy.ko is not loaded",
            "modprobe mutex_proxy",
        )],
        Proxy::NoRight => vec![
            Finding::good(MODULE, "mutex_proxy.ko is loaded"),
            Finding::bad(
                "right",
                State::Hinders,
                "this user has not CAP_NET_ADMIN in the network namespace",
                "sudo, or `setcap cap_net_admin+ep` for a copy of mprox of one's own",
            ),
        ],
        Proxy::Failed(why) => vec![Finding::bad(
            MODULE,
            State::Unknown,
            format!("the kernel cannot be asked: {why}"),
            "the kernel's log may tell more: dmesg",
        )],
        Proxy::Idle => vec![
            Finding::good(MODULE, "mutex_proxy.ko is loaded"),
            Finding::bad(
                "rules",
                State::Note,
                "nobody has rules in this network namespace",
                "mprox apply FILE, or mprox run FILE",
            ),
        ],
        Proxy::Active(stats) => {
            let mut all = vec![Finding::good(
                MODULE,
                "mutex_proxy.ko is loaded, with rules",
            )];
            all.push(table(stats, machine));
            all.extend(losses(stats));
            all
        }
    }
}

/// How full the table of flows is.
fn table(stats: &Stats, machine: &Root) -> Finding {
    const TABLE: &str = "table of flows";
    let most = machine.number("sys/module/mutex_proxy/parameters/max_flows");
    let flows = stats.flows_current;
    match most {
        Some(most) if flows >= most - most / 10 => Finding::bad(
            TABLE,
            State::Hinders,
            format!("{flows} of {most} flows: new connections drop others, or are dropped"),
            "a greater max_flows: echo NUMBER > /sys/module/mutex_proxy/parameters/max_flows",
        ),
        Some(most) => Finding::good(TABLE, format!("{flows} of {most} flows")),
        None => Finding::good(TABLE, format!("{flows} flows")),
    }
}

/// What was dropped since the first context opened.
fn losses(stats: &Stats) -> Vec<Finding> {
    let kinds = [
        (
            stats.dropped_table_full,
            "because the table was full",
            "a greater max_flows, a parameter of the module",
        ),
        (
            stats.dropped_no_memory,
            "for want of memory",
            "a lesser max_flows, or more memory",
        ),
        (
            stats.dropped_no_port,
            "since no source port was free at the upstream",
            "more upstreams, or addresses of upstreams",
        ),
        (
            stats.dropped_no_route,
            "since no route leads to the upstream",
            "`mprox show` has the upstreams, `ip route get ADDRESS` their routes",
        ),
    ];
    let lost = kinds.into_iter().filter(|(count, ..)| *count > 0);
    lost.map(|(count, why, mend)| {
        let found = format!("{count} packets were dropped {why}");
        Finding::bad("losses", State::Note, found, mend)
    })
    .collect()
}

/// Files of a machine.
struct Root(PathBuf);

impl Root {
    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path)).into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn forwarding(&self) -> Vec<Finding> {
        let versions = [
            ("IPv4 forwarding", "ipv4/ip_forward", "net.ipv4.ip_forward"),
            (
                "IPv6 forwarding",
                "ipv6/conf/all/forwarding",
                "net.ipv6.conf.all.forwarding",
            ),
        ];
        versions
            .map(
                |(what, path, key)| match self.number(&format!("proc/sys/net/{path}")) {
                    Some(1..) => Finding::good(what, "on"),
                    Some(0) => Finding::bad(
                        what,
                        State::Note,
                        "off: others' connections do not pass this machine, redirected or not",
                        format!("for a router: sysctl -w {key}=1"),
                    ),
                    None => Finding::bad(
                        what,
                        State::Note,
                        format!("the kernel has no {key}"),
                        "without this IP version its rules match nothing",
                    ),
                },
            )
            .to_vec()
    }

    // ip-sysctl.rst: the greater of `all` and the interface's counts.
    fn reverse_path(&self) -> Option<Finding> {
        const CONF: &str = "proc/sys/net/ipv4/conf";
        let of = |name: &str| {
            self.number(&format!("{CONF}/{name}/rp_filter"))
                .unwrap_or(0)
        };
        let all = of("all");
        let strict: Vec<String> = (self.names(CONF).into_iter())
            .filter(|name| !matches!(name.as_str(), "all" | "default" | "lo"))
            .filter(|name| all.max(of(name)) == 1)
            .collect();
        (!strict.is_empty()).then(|| {
            Finding::bad(
                "reverse path filter",
                State::Note,
                format!("strict on {}", strict.join(", ")),
                "an upstream has to answer through the interface by which it is reached; else: sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2",
            )
        })
    }

    fn control_groups(&self) -> Finding {
        const WHAT: &str = "control groups";
        let mounts = self.text("proc/self/mounts").unwrap_or_default();
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let place = lines.find_map(|mut words| {
            let place = words.nth(1)?;
            (words.next()? == "cgroup2").then_some(place)
        });
        match place {
            Some(place) => Finding::good(WHAT, format!("version 2, at {place}")),
            None => Finding::bad(
                WHAT,
                State::Note,
                "version 2 is not mounted",
                "for `cgroups` in a file, and for mprox exec: mount -t cgroup2 none /sys/fs/cgroup",
            ),
        }
    }

    fn old_tables(&self) -> Option<Finding> {
        let files = ["proc/net/ip_tables_names", "proc/net/ip6_tables_names"];
        let names: Vec<String> = (files.iter())
            .filter_map(|path| self.text(path))
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|name| matches!(name.as_str(), "nat" | "mangle" | "raw"))
            .collect();
        (!names.is_empty()).then(|| {
            Finding::bad(
                "iptables",
                State::Note,
                format!("tables of the old kind are in use: {}", names.join(", ")),
                "iptables-legacy-save shows them; `raw` comes before the proxy, the others see its packets translated and untracked",
            )
        })
    }

    fn programs(&self) -> Vec<Finding> {
        let known = [
            (
                "firewalld",
                "its reverse path filter for IPv6 may drop answers of upstreams: IPv6_rpfilter=no, or a rule before the proxy",
            ),
            (
                "dockerd",
                "rules for what containers connect to are for `direction = \"forwarded\"`, or are made in the container's network namespace",
            ),
        ];
        let processes = self.names("proc");
        let running = |program: &str| {
            let mut numbers = processes
                .iter()
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            numbers
                .any(|number| self.text(&format!("proc/{number}/comm")).as_deref() == Some(program))
        };
        known
            .into_iter()
            .filter(|(program, _)| running(program))
            .map(|(program, mend)| {
                Finding::bad(program, State::Note, format!("{program} is running"), mend)
            })
            .collect()
    }
}

/// Statements of nftables that matter, as libnftables-json(5) has them.
const STATEMENTS: [(&str, State, &str); 6] = [
    (
        "flow",
        State::Note,
        "connections that go where they go pass the proxy by once they are in a flowtable: neither counted nor blocked any more",
    ),
    (
        "dnat",
        State::Note,
        "it comes after the proxy, and does not see what that has redirected",
    ),
    (
        "redirect",
        State::Note,
        "it comes after the proxy, and does not see what that has redirected",
    ),
    (
        "tproxy",
        State::Note,
        "at a priority above -250 it sees connections that the proxy has redirected; below, the proxy does not see its own",
    ),
    (
        "masquerade",
        State::Note,
        "it does not see redirected connections: an upstream outside gets the client's own address",
    ),
    (
        "snat",
        State::Note,
        "it does not see redirected connections: an upstream outside gets the client's own address",
    ),
];

fn of_ruleset(ruleset: &Ruleset) -> Vec<Finding> {
    const WHAT: &str = "nftables";
    let unknown = |why: &str| {
        let mend = "`nft list ruleset`, as root, shows what else changes packets";
        vec![Finding::bad(WHAT, State::Unknown, why, mend)]
    };
    let text = match ruleset {
        Ruleset::Unknown(why) => return unknown(why),
        Ruleset::Listed(text) => text,
    };
    let Ok(parsed) = serde_json::from_str::<Value>(text) else {
        return unknown("what nft prints is no JSON");
    };
    let rules = parsed["nftables"].as_array().into_iter().flatten();
    let rules: Vec<&Value> = rules.filter_map(|item| item.get("rule")).collect();
    let mut all = Vec::new();
    for (name, state, mend) in STATEMENTS {
        let has = |rule: &&&Value| {
            let statements = rule["expr"].as_array().into_iter().flatten();
            statements.into_iter().any(|one| one.get(name).is_some())
        };
        let places: Vec<String> = rules
            .iter()
            .filter(has)
            .map(|rule| {
                let word = |key: &str| rule[key].as_str().unwrap_or("?").to_owned();
                format!("{} {} {}", word("family"), word("table"), word("chain"))
            })
            .collect();
        if let Some(first) = places.first() {
            let more = match places.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let found = format!("`{name}` in {first}{more}");
            all.push(Finding::bad(WHAT, state, found, mend));
        }
    }
    if all.is_empty() {
        let count = rules.len();
        all.push(Finding::good(
            WHAT,
            format!("{count} rules, none of which rewrites or goes around the proxy"),
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const FINE: [(&str, &str); 5] = [
        ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
        ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
        ("proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n"),
        (
            "proc/self/mounts",
            "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
        ),
    ];

    fn listed(text: &str) -> Ruleset {
        Ruleset::Listed(text.to_owned())
    }

    const NO_RULES: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}]}"#;

    fn active(change: impl FnOnce(&mut Stats)) -> Proxy {
        let mut stats = Stats::default();
        change(&mut stats);
        Proxy::Active(Box::new(stats))
    }

    #[test]
    fn a_machine_on_which_all_is_fine() {
        let root = machine(&FINE);
        let all = findings(root.path(), &active(|_| {}), &listed(NO_RULES));
        assert!(all.iter().all(|one| one.state == State::Good), "{all:#?}");
        assert!(all.len() > 5);
    }

    /// What is found if that file is so, or the kernel or nft say that.
    fn found(files: &[(&str, &str)], proxy: &Proxy, ruleset: &Ruleset) -> Vec<(State, String)> {
        let files = [&FINE[..], files].concat();
        let root = machine(&files);
        let all = findings(root.path(), proxy, ruleset);
        let bad = all.into_iter().filter(|one| one.state != State::Good);
        bad.map(|one| {
            assert!(one.mend.is_some(), "{one:?}");
            (one.state, format!("{}: {}", one.what, one.found))
        })
        .collect()
    }

    #[test]
    fn each_trouble_is_found() {
        use State::{Hinders, Note, Unknown};
        let fine = active(|_| {});
        let none = listed(NO_RULES);
        let rule = |statement: &str| {
            listed(&format!(
                r#"{{"nftables": [{{"rule": {{"family": "ip", "table": "nat", "chain": "pre", "expr": [{{"match": {{}}}}, {{{statement}}}]}}}}]}}"#
            ))
        };
        let proxy_file = "sys/module/mutex_proxy/parameters/max_flows";
        for (files, proxy, ruleset, state, text) in [
            (&[][..], &Proxy::NoModule, &none, Hinders, "not loaded"),
            (&[], &Proxy::NoRight, &none, Hinders, "CAP_NET_ADMIN"),
            (&[], &Proxy::Idle, &none, Note, "nobody has rules"),
            (
                &[],
                &Proxy::Failed("x".into()),
                &none,
                Unknown,
                "cannot be asked: x",
            ),
            (
                &[(proxy_file, "1000")],
                &active(|stats| stats.flows_current = 900),
                &none,
                Hinders,
                "900 of 1000 flows",
            ),
            (
                &[],
                &active(|stats| stats.dropped_no_route = 3),
                &none,
                Note,
                "3 packets were dropped since no route",
            ),
            (
                &[("proc/sys/net/ipv4/ip_forward", "0")],
                &fine,
                &none,
                Note,
                "IPv4 forwarding: off",
            ),
            (
                &[("proc/sys/net/ipv4/conf/eth0/rp_filter", "1")],
                &fine,
                &none,
                Note,
                "strict on eth0",
            ),
            (
                &[("proc/self/mounts", "x /y cgroup rw 0 0")],
                &fine,
                &none,
                Note,
                "version 2 is not mounted",
            ),
            (
                &[("proc/net/ip_tables_names", "filter\nnat\n")],
                &fine,
                &none,
                Note,
                "tables of the old kind are in use: nat",
            ),
            (
                &[("proc/77/comm", "dockerd\n")],
                &fine,
                &none,
                Note,
                "dockerd is running",
            ),
            (
                &[],
                &fine,
                &Ruleset::Unknown("there is no nft here".into()),
                Unknown,
                "there is no nft here",
            ),
            (&[], &fine, &listed("{"), Unknown, "no JSON"),
            (
                &[],
                &fine,
                &rule(r#""dnat": {"addr": "192.0.2.1"}"#),
                Note,
                "`dnat` in ip nat pre",
            ),
            (
                &[],
                &fine,
                &rule(r#""flow": {"op": "add", "flowtable": "@f"}"#),
                Note,
                "`flow` in ip nat pre",
            ),
        ] {
            let all = found(files, proxy, ruleset);
            assert!(
                all.len() == 1 && all[0].0 == state && all[0].1.contains(text),
                "{text}: {all:#?}"
            );
        }
    }
}
