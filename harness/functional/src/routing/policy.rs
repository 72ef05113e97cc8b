// SPDX-License-Identifier: MIT OR Apache-2.0

//! Policy rules: by mark, by TOS, by port, and tables that are asked before the main one.

use anyhow::{Context as _, Result};

use super::super::setup::{sized, upstream, WAYS};
use super::super::GuestTest;
use super::by_family;
use super::fate::{Link, Outcome, Trace};
use super::lab::{beside_nft, each, server_on_second, Datagram, Lab, Redirect};
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{ORIGINAL_PORT, UPSTREAM_PORT};

/// The table of every policy here.
const TABLE: u32 = 100;
/// The mark that leads there.
const MARK: u32 = 5;
/// The TOS that leads there.
const TOS: u8 = 0x10;
/// How many of them come before something changes, and after.
pub const FEW: usize = 3;
/// Where nftables marks packets: before the module, between it and NAT.
const PRIORITIES: [i32; 6] = [-300, -275, -249, -200, -150, -101];

pub const FIRST: Outcome = Outcome::Took(Link::First);
pub const SECOND: Outcome = Outcome::Took(Link::Second);

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    [
        by_family(
            "route-marks-by-priority",
            "marks set at any priority of prerouting and output lead redirected packets, as with nft",
            marks_by_priority,
        ),
        by_family(
            "route-marks-blackhole",
            "what a mark leads into a blackhole is dropped, redirected or not, as with nft",
            marks_into_a_blackhole,
        ),
        by_family(
            "route-mark-changes",
            "a mark of nft's that changes within a flow takes its packets along, as with nft",
            mark_changes,
        ),
        by_family(
            "route-socket-mark-changes",
            "a mark of a socket of the router's that changes takes its packets along, as with nft",
            socket_mark_changes,
        ),
        by_family(
            "route-tos-changes",
            "a TOS that changes within a flow takes its packets along, as with nft",
            tos_changes,
        ),
        by_family(
            "route-rule-dport",
            "policy rules see the upstream's port and not the original's, as with nft",
            rule_by_port,
        ),
        by_family(
            "route-earlier-table",
            "a route in a table that is asked before the main one reaches flows that have begun, as with nft",
            earlier_table,
        ),
        by_family(
            "route-rule-in-flow",
            "a policy rule that comes or goes reaches flows that have begun, as with nft",
            rule_in_flow,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([GuestTest::single(
        "route-of-a-tos",
        "a TOS that changes within a flow takes its packets to the route of that TOS, as with nft",
        route_of_a_tos,
    )])
    .collect()
}

/// A table of nftables that marks what the clients' sockets send.
fn marking(priority: i32) -> String {
    format!(
        "table inet marking {{
    chain incoming {{
        type filter hook prerouting priority {priority};
        iifname \"clients\" udp sport 40000-40099 meta mark set {MARK}
    }}
    chain own {{
        type route hook output priority {priority};
        udp sport 40000-40099 meta mark set {MARK}
    }}
}}
"
    )
}

/// Sends `count` datagrams of one flow.
pub fn send(lab: &mut Lab, trace: &mut Trace, datagram: &Datagram, count: usize) -> Result<()> {
    for _ in 0..count {
        let fate = lab.send(datagram).with_context(|| datagram.to_string())?;
        trace.saw(datagram.to_string(), fate);
    }
    Ok(())
}

/// Lets the flow's last datagram be answered.
pub fn answer(lab: &mut Lab, trace: &mut Trace, datagram: &Datagram) -> Result<()> {
    let what = format!("answer, {:?}, flow {}", datagram.way, datagram.flow);
    let fate = lab.answer(datagram.way, datagram.flow);
    match fate.with_context(|| what.clone())? {
        Some(fate) => trace.saw(what, fate),
        None => trace.did(format!("{what}: nobody to give it")),
    }
    Ok(())
}

/// Does an `ip` command, and sends [`FEW`] datagrams of a flow that has begun.
pub fn change_way(
    lab: &mut Lab,
    trace: &mut Trace,
    datagram: &Datagram,
    command: &str,
) -> Result<()> {
    lab.ip(&format!("{command}\n"))?;
    trace.did(command);
    send(lab, trace, datagram, FEW)
}

/// Sends [`FEW`] datagrams, the first of them answered: the flow is established.
fn begin(lab: &mut Lab, trace: &mut Trace, datagram: &Datagram) -> Result<()> {
    send(lab, trace, datagram, 1)?;
    answer(lab, trace, datagram)?;
    send(lab, trace, datagram, FEW - 1)
}

/// What [`begin`] sees if all takes the first link, and then `rest`.
fn begun(rest: &[(Outcome, usize)]) -> Vec<Outcome> {
    let mut all = vec![FIRST; FEW + 1];
    all[1] = Outcome::Answered;
    for &(outcome, count) in rest {
        all.extend(vec![outcome; count]);
    }
    all
}

/// For both places of the client: does `scenario` with the flow of a datagram, where nft must do what
/// `expected` says.
fn everywhere(
    family: Family,
    scenario: impl Fn(&mut Lab, &mut Trace, &Datagram) -> Result<()>,
    expected: &[Outcome],
) -> Result<()> {
    of_ways(family, &WAYS, scenario, expected)
}

fn of_ways(
    family: Family,
    ways: &[Way],
    scenario: impl Fn(&mut Lab, &mut Trace, &Datagram) -> Result<()>,
    expected: &[Outcome],
) -> Result<()> {
    each(
        ways,
        |way| format!("{way:?}"),
        |&&way| {
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| scenario(lab, trace, &Datagram::of(way, 0)),
                |trace| trace.ensure(expected),
            )
        },
    )
}

/// Datagrams of a flow, fewer on a kernel with checkers.
fn datagrams() -> Result<usize> {
    sized(20, 5)
}

fn marks_by_priority(family: Family) -> Result<()> {
    let datagrams = datagrams()?;
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.add_second_table(TABLE)?;
            lab.ip(&format!("rule add fwmark {MARK} lookup {TABLE}\n"))?;
            for (flow, priority) in (0..).zip(PRIORITIES) {
                lab.nft(&marking(priority))?;
                trace.did(format!("marked at priority {priority}"));
                let datagram = Datagram { flow, ..*datagram };
                send(lab, trace, &datagram, datagrams)?;
                lab.nft("delete table inet marking\n")?;
            }
            Ok(())
        },
        &vec![SECOND; datagrams * PRIORITIES.len()],
    )
}

fn marks_into_a_blackhole(family: Family) -> Result<()> {
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.ip(&format!(
                "rule add fwmark {MARK} lookup {TABLE}\nroute add blackhole default table {TABLE}\n"
            ))?;
            lab.nft(&marking(-150))?;
            send(lab, trace, datagram, FEW)?;
            let direct = Datagram {
                to: Some(upstream(lab.family())),
                flow: 1,
                ..*datagram
            };
            send(lab, trace, &direct, 1)
        },
        &[Outcome::Dropped; FEW + 1],
    )
}

fn mark_changes(family: Family) -> Result<()> {
    let datagrams = datagrams()?;
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.add_second_table(TABLE)?;
            lab.ip(&format!("rule add fwmark {MARK} lookup {TABLE}\n"))?;
            begin(lab, trace, datagram)?;
            lab.nft(&marking(-300))?;
            trace.did("marked");
            send(lab, trace, datagram, datagrams)?;
            lab.nft("delete table inet marking\n")?;
            trace.did("no longer marked");
            send(lab, trace, datagram, FEW)
        },
        &begun(&[(SECOND, datagrams), (FIRST, FEW)]),
    )
}

fn socket_mark_changes(family: Family) -> Result<()> {
    let rule = format!("fwmark {MARK}");
    there_and_back(family, &[Way::Local], &rule, |usual| Datagram {
        mark: MARK,
        ..usual
    })
}

fn tos_changes(family: Family) -> Result<()> {
    let rule = format!("tos {TOS:#x}");
    there_and_back(family, &WAYS, &rule, |usual| Datagram { tos: TOS, ..usual })
}

/// Without a policy rule: routes are cached. IPv6 has no routes by TOS.
fn route_of_a_tos() -> Result<()> {
    let family = Family::V4;
    let (to, gateway) = (upstream(family).ip(), server_on_second(family));
    let route = format!("route add {to} tos {TOS:#x} via {gateway} dev second\n");
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.ip(&route)?;
            begin(lab, trace, datagram)?;
            for tos in [TOS, 0, TOS] {
                send(lab, trace, &Datagram { tos, ..*datagram }, FEW)?;
            }
            Ok(())
        },
        &begun(&[(SECOND, FEW), (FIRST, FEW), (SECOND, FEW)]),
    )
}

/// Datagrams of a flow that has begun become such as `rule` leads over the second link, and then as they were.
fn there_and_back(
    family: Family,
    ways: &[Way],
    rule: &str,
    other: impl Fn(Datagram) -> Datagram,
) -> Result<()> {
    let datagrams = datagrams()?;
    of_ways(
        family,
        ways,
        |lab, trace, datagram| {
            lab.add_second_table(TABLE)?;
            lab.ip(&format!("rule add {rule} lookup {TABLE}\n"))?;
            begin(lab, trace, datagram)?;
            send(lab, trace, &other(*datagram), datagrams)?;
            send(lab, trace, datagram, FEW)
        },
        &begun(&[(SECOND, datagrams), (FIRST, FEW)]),
    )
}

fn rule_by_port(family: Family) -> Result<()> {
    let datagrams = datagrams()?;
    let mut expected = Vec::new();
    for link in [SECOND, FIRST] {
        expected.extend([link, Outcome::Answered]);
        expected.extend(vec![link; datagrams - 1]);
    }
    // Who looks the way of a packet of the machine's own up again after NAT does not say the ports.
    of_ways(
        family,
        &[Way::Forward],
        |lab, trace, datagram| {
            lab.add_second_table(TABLE)?;
            for (flow, port) in (0..).zip([UPSTREAM_PORT, ORIGINAL_PORT]) {
                let rule = format!("pref 50 ipproto 17 dport {port} lookup {TABLE}\n");
                lab.ip(&format!("rule add {rule}"))?;
                trace.did(format!("rule {}", rule.trim_end()));
                let datagram = Datagram { flow, ..*datagram };
                send(lab, trace, &datagram, 1)?;
                answer(lab, trace, &datagram)?;
                send(lab, trace, &datagram, datagrams - 1)?;
                lab.ip(&format!("rule del {rule}"))?;
            }
            Ok(())
        },
        &expected,
    )
}

fn earlier_table(family: Family) -> Result<()> {
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.ip(&format!("rule add pref 50 lookup {TABLE}\n"))?;
            begin(lab, trace, datagram)?;
            let to = upstream(lab.family()).ip();
            let gateway = server_on_second(lab.family());
            for change in [
                format!("route add {to} via {gateway} dev second table {TABLE}"),
                format!("route del {to} table {TABLE}"),
                format!("route add blackhole {to} table {TABLE}"),
            ] {
                change_way(lab, trace, datagram, &change)?;
            }
            Ok(())
        },
        &begun(&[(SECOND, FEW), (FIRST, FEW), (Outcome::Dropped, FEW)]),
    )
}

fn rule_in_flow(family: Family) -> Result<()> {
    everywhere(
        family,
        |lab, trace, datagram| {
            lab.add_second_table(TABLE)?;
            begin(lab, trace, datagram)?;
            let to = upstream(lab.family()).ip();
            for (verb, action) in [
                ("add", "lookup 100"),
                ("del", "lookup 100"),
                ("add", "blackhole"),
                ("del", "blackhole"),
            ] {
                let change = format!("rule {verb} pref 50 to {to} {action}");
                change_way(lab, trace, datagram, &change)?;
            }
            Ok(())
        },
        &begun(&[
            (SECOND, FEW),
            (FIRST, FEW),
            (Outcome::Dropped, FEW),
            (FIRST, FEW),
        ]),
    )
}
