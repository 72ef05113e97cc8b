// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `mprox` says before something is changed, and of what it finds.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use mprox_client::{Client, ContextName};
use nix::sys::socket::{
    self, setsockopt, sockopt, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage,
};

use super::setup::{client_address, original, Setup, FAMILIES};
use super::tool::{ensure_says, succeeds};
use super::GuestTest;
use mutexlab_guest::net::layout::{ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::MPROX;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "mprox-why",
            "mprox why names the rule that then matches, for connections of every sort",
            why,
        ),
        GuestTest::single(
            "mprox-diff",
            "mprox diff says what mprox apply then changes, and ends as diff does",
            diff,
        ),
        GuestTest::single(
            "mprox-doctor",
            "mprox doctor finds what it was given to find",
            doctor,
        ),
    ]
}

const FILE: &str = "/tmp/home.toml";

/// What it prints, and its exit code.
fn ends(setup: &Setup, arguments: &[&str]) -> Result<(String, Option<i32>)> {
    let output = setup.layout.router.run(|| {
        let output = Command::new(MPROX).args(arguments).output();
        output.context("cannot run mprox")
    })?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        String::from_utf8_lossy(&said).into_owned(),
        output.status.code(),
    ))
}

/// Rules of which the last one that could match is never the only one.
fn rules() -> String {
    format!(
        r#"
[upstreams.proxy]
servers = ["198.51.100.2:7007", "[2001:db8:2::2]:7007"]

[sets.some]
networks = ["198.51.100.2/32", "2001:db8:2::2/128"]

[[rule]]
name = "some"
to = "@some"
ports = [7, 9]
action = "direct"

[[rule]]
name = "in"
ip = 4
protocol = "udp"
interface = "{}"
ports = "5-8"
via = "proxy"

[[rule]]
name = "marked"
mark = "0x10/0xf0"
ports = 7
action = "reject"

[[rule]]
name = "root"
users = "root"
protocol = "tcp"
ports = 8
action = "reject"

[[rule]]
name = "own"
direction = "local"
interface = "{}"
ports = "7-8"
not-users = 7
via = "proxy"

[[rule]]
name = "rest"
ports = 7
via = "proxy"

[[rule]]
name = "six"
ip = 6
from = "2001:db8:1::/64"
ports = 10
action = "drop"
"#,
        ROUTER_CLIENT_LINK.name, ROUTER_SERVER_LINK.name
    )
}

/// A connection that is asked about, and then begun.
struct Case {
    way: Way,
    protocol: Protocol,
    to: SocketAddr,
    mark: u32,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for way in [Way::Forward, Way::Local] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for port in [7, 8, 9, 10] {
                    let mut to = original(family);
                    to.set_port(port);
                    let case = |to, mark| Case {
                        way,
                        protocol,
                        to,
                        mark,
                    };
                    cases.push(case(to, 0));
                    if port == 7 {
                        let mut some = super::setup::upstream(family);
                        some.set_port(port);
                        cases.push(case(some, 0));
                        // Of what passes through, the mark is the machine's own to give.
                        if way == Way::Local {
                            cases.push(case(to, 0x1f));
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Begins it; what becomes of it does not matter, and a rule may say that it is refused.
fn begin(setup: &Setup, case: &Case) -> Result<()> {
    let from = client_address(case.way, family(case.to));
    let version = match case.to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match case.protocol {
        Protocol::Udp => SockType::Datagram,
        Protocol::Tcp => SockType::Stream,
    };
    setup.client(case.way).run(|| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket::socket(version, kind, flags, None)?;
        setsockopt(&socket, sockopt::Mark, &case.mark).context("cannot mark a socket")?;
        let number = socket.as_raw_fd();
        socket::bind(number, &SockaddrStorage::from(from)).context("cannot bind a socket")?;
        let _ = socket::connect(number, &SockaddrStorage::from(case.to));
        if case.protocol == Protocol::Udp {
            let _ = socket::send(number, b"x", MsgFlags::empty());
        }
        Ok(())
    })
}

fn family(address: SocketAddr) -> Family {
    match address {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    }
}

fn counts(client: &mut Client) -> Result<Vec<u64>> {
    let name = ContextName::new(b"home").context("no name")?;
    Ok(client.counted(Some(&name))?.of_rules)
}

fn why() -> Result<()> {
    let setup = Setup::new()?;
    fs::write(FILE, rules()).context(FILE)?;
    succeeds(&setup, &["apply", FILE])?;
    let mut client = setup.layout.router.run(|| Ok(Client::open()?))?;
    let mut decided = 0;
    for case in cases() {
        let from = client_address(case.way, family(case.to)).ip().to_string();
        let (to, mark) = (case.to.to_string(), case.mark.to_string());
        let protocol = match case.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let mut words = vec![
            "why",
            &from,
            "→",
            &to,
            "--protocol",
            protocol,
            "--mark",
            &mark,
            "--json",
        ];
        match case.way {
            Way::Forward => words.extend(["--in", ROUTER_CLIENT_LINK.name]),
            Way::Local => words.extend(["--in", ROUTER_SERVER_LINK.name, "--uid", "0"]),
        }
        let said = succeeds(&setup, &words)?;
        ensure!(said.contains("\"maybe\":[]"), "{words:?}: {said}");
        let number = said.split("\"rule\":{\"number\":").nth(1);
        let number = number.and_then(|rest| rest.split(',').next());
        let expected: Option<usize> = number.map(str::parse).transpose()?;
        let before = counts(&mut client)?;
        begin(&setup, &case)?;
        let after = counts(&mut client)?;
        let changed: Vec<usize> = (1..)
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| before != after)
            .map(|(number, _)| number)
            .collect();
        ensure!(
            changed.iter().copied().eq(expected),
            "{words:?}: expected rule {expected:?}, and {changed:?} matched: {said}"
        );
        decided += usize::from(expected.is_some());
    }
    ensure!(decided > 20, "only {decided} were decided by a rule");
    let said = succeeds(
        &setup,
        &[
            "why",
            "192.0.2.2",
            "198.51.100.3:7",
            "--protocol",
            "udp",
            "--file",
            FILE,
        ],
    )?;
    ensure_says(&said, "may match: rule in")?;
    ensure_says(&said, "it depends on the interface")?;
    ensure_says(&said, &format!("at {FILE}:"))?;
    ensure_says(&said, "route: 198.51.100.2 dev")?;
    succeeds(&setup, &["delete", "home"])?;
    drop(client);
    setup.finish()
}

fn diff() -> Result<()> {
    let setup = Setup::new()?;
    fs::write(FILE, rules()).context(FILE)?;
    let (said, code) = ends(&setup, &["diff", FILE])?;
    ensure!(code == Some(1), "a new context: {code:?}, {said}");
    ensure_says(
        &said,
        "home: there is no such context yet\n+ upstreams proxy",
    )?;
    succeeds(&setup, &["apply", FILE])?;
    let (said, code) = ends(&setup, &["diff", FILE])?;
    ensure!(
        code == Some(0) && said == "home: nothing would change\n",
        "applied: {code:?}, {said}"
    );
    let other = rules()
        .replace("198.51.100.2/32", "198.51.100.2/31")
        .replace("ports = \"5-8\"", "ports = \"5-9\"");
    fs::write(FILE, other).context(FILE)?;
    let (said, code) = ends(&setup, &["diff", FILE])?;
    ensure!(
        code == Some(1) && said.lines().count() == 5,
        "changed: {code:?}, {said}"
    );
    ensure_says(
        &said,
        "- set some: 198.51.100.2\n+ set some: 198.51.100.2-198.51.100.3",
    )?;
    ensure_says(&said, "ports 5-8")?;
    let (said, code) = ends(&setup, &["diff", "--json", FILE])?;
    ensure!(code == Some(1), "{code:?}, {said}");
    ensure_says(&said, "\"same\":false")?;
    succeeds(&setup, &["apply", FILE])?;
    let (said, code) = ends(&setup, &["diff", FILE])?;
    ensure!(code == Some(0), "applied again: {code:?}, {said}");
    let (said, code) = ends(&setup, &["diff", "/tmp/no-such-file.toml"])?;
    ensure!(code == Some(2), "trouble: {code:?}, {said}");
    succeeds(&setup, &["delete", "home"])?;
    setup.finish()
}

fn doctor() -> Result<()> {
    let setup = Setup::new()?;
    let (said, code) = ends(&setup, &["doctor"])?;
    ensure!(code == Some(0), "{code:?}, {said}");
    ensure_says(&said, "nobody has rules in this network namespace")?;
    fs::write(FILE, rules()).context(FILE)?;
    succeeds(&setup, &["apply", FILE])?;
    let (said, code) = ends(&setup, &["doctor"])?;
    ensure!(code == Some(0), "{code:?}, {said}");
    ensure_says(&said, "mutex_proxy.ko is loaded, with rules")?;
    ensure_says(&said, "table of flows: 0 of")?;
    ensure_says(&said, "IPv4 forwarding: on")?;
    let forward = |value| setup.layout.router.set_sysctl("ipv4/ip_forward", value);
    forward("0")?;
    let (said, _) = ends(&setup, &["doctor", "--json"])?;
    forward("1")?;
    ensure_says(&said, "\"what\":\"IPv4 forwarding\",\"state\":\"note\"")?;
    succeeds(&setup, &["delete", "home"])?;
    setup.finish()?;
    Ok(())
}
