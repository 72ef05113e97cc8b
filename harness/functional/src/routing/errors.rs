// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the router itself answers, and what changes under a flow that has begun.

use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::super::setup::{original, upstream, WAYS};
use super::super::GuestTest;
use super::by_family;
use super::fate::{Outcome, Trace};
use super::lab::{beside_nft, each, server_on_second, Datagram, Lab, Redirect};
use super::policy::{answer, change_way, send, FEW, FIRST, SECOND};
use mutexlab_guest::net::layout::mac_of;
use mutexlab_model::traffic::{Family, Way};

/// MTU of a narrow link: IPv6 needs 1280.
const NARROW: u32 = 1300;
/// More than asking for a neighbour takes that is asked once, for a tenth of a second.
const RESOLVING: Duration = Duration::from_secs(2);
/// After this the router tells a client of a missing route of IPv4 again: ip_error() does so once a second.
const BETWEEN_ERRORS: Duration = Duration::from_millis(1200);
/// More than a packet takes through the router.
const QUIET: Duration = Duration::from_millis(200);

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    [
        by_family(
            "route-errors",
            "the router's own errors (TTL, unreachable, prohibited) about redirected packets are nft's",
            errors,
        ),
        by_family(
            "route-errors-flows",
            "first packets about which the router sends an error leave no flow, and the error is nft's",
            errors_leave_no_flow,
        ),
        by_family(
            "route-no-neighbour",
            "an upstream that nobody answers for is told of, as with nft",
            no_neighbour,
        ),
        by_family(
            "route-changes-in-flow",
            "blackholes, other routes and neighbours reach flows that have begun, as with nft",
            changes,
        ),
        by_family(
            "route-narrow-in-flow",
            "a link that becomes narrow is told of within a flow, as with nft",
            narrow,
        ),
        by_family(
            "route-forwarding-off",
            "a router that stops forwarding stops for flows that have begun, as with nft",
            forwarding_off,
        ),
        by_family(
            "route-device-goes",
            "a device goes under the routes kept with flows, and comes back",
            device_goes,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn report(family: Family, v4: (u8, u8), v6: (u8, u8)) -> Outcome {
    let (kind, code) = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    Outcome::Reported(kind, code)
}

/// For both places of the client.
fn of_ways(run: impl Fn(Way) -> Result<()>) -> Result<()> {
    each(WAYS, |way| format!("{way:?}"), |&way| run(way))
}

fn errors(family: Family) -> Result<()> {
    let expected = [
        report(family, (11, 0), (3, 0)),
        report(family, (3, 1), (1, 0)),
        report(family, (3, 13), (1, 1)),
    ];
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let datagram = Datagram::of(Way::Forward, 0);
            send(lab, trace, &Datagram { ttl: 1, ..datagram }, 1)?;
            let to = upstream(family).ip();
            for (flow, kind) in (1..).zip(["unreachable", "prohibit"]) {
                lab.ip(&format!("route add {kind} {to}\n"))?;
                trace.did(kind);
                if family == Family::V4 {
                    thread::sleep(BETWEEN_ERRORS);
                }
                send(lab, trace, &Datagram { flow, ..datagram }, 1)?;
                lab.ip(&format!("route del {kind} {to}\n"))?;
            }
            Ok(())
        },
        |trace| trace.ensure(&expected),
    )
}

/// The routes that report an error, each met by a first packet only.
fn errors_leave_no_flow(family: Family) -> Result<()> {
    let kinds = ["unreachable", "prohibit", "blackhole"];
    let expected = [
        report(family, (3, 1), (1, 0)),
        report(family, (3, 13), (1, 1)),
        Outcome::Dropped,
    ];
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let to = upstream(family).ip();
            for (flow, kind) in (0..).zip(kinds) {
                lab.ip(&format!("route add {kind} {to}\n"))?;
                trace.did(kind);
                if family == Family::V4 {
                    thread::sleep(BETWEEN_ERRORS);
                }
                send(lab, trace, &Datagram::of(Way::Forward, flow), 1)?;
                lab.ip(&format!("route del {kind} {to}\n"))?;
                if let Some(context) = &lab.context {
                    let flows = context.stats()?.flows_current;
                    ensure!(flows == 0, "{kind}: {flows} flows are left");
                }
            }
            Ok(())
        },
        |trace| trace.ensure(&expected),
    )
}

fn no_neighbour(family: Family) -> Result<()> {
    let mut nobody = upstream(family);
    nobody.set_ip(match family {
        Family::V4 => "198.51.100.77".parse()?,
        Family::V6 => "2001:db8:2::77".parse()?,
    });
    let redirect = Redirect {
        original: original(family),
        upstream: nobody,
    };
    let expected = [Outcome::Dropped, report(family, (3, 1), (1, 3))];
    beside_nft(
        family,
        &[redirect],
        |lab, trace| {
            let version = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            for (variable, value) in [
                ("retrans_time_ms", "100"),
                ("mcast_solicit", "1"),
                ("ucast_solicit", "1"),
            ] {
                let variable = format!("{version}/neigh/servers/{variable}");
                lab.layout().router.set_sysctl(&variable, value)?;
            }
            let datagram = Datagram::of(Way::Forward, 0);
            let label = lab.label(0);
            trace.saw("at once", lab.send_labelled(&datagram, label)?);
            thread::sleep(RESOLVING);
            trace.saw("later", lab.seen_of(label)?);
            Ok(())
        },
        |trace| trace.ensure(&expected),
    )
}

/// Begins a flow, and sends more of it after each change, which is an `ip` command.
fn with_changes(lab: &mut Lab, trace: &mut Trace, way: Way, changes: &[String]) -> Result<()> {
    let datagram = Datagram::of(way, 0);
    send(lab, trace, &datagram, 1)?;
    answer(lab, trace, &datagram)?;
    for change in changes {
        change_way(lab, trace, &datagram, change)?;
    }
    Ok(())
}

fn changes(family: Family) -> Result<()> {
    of_ways(|way| {
        let to = upstream(family).ip();
        let gateway = server_on_second(family);
        let other = "02:00:00:00:02:63";
        let same = mac_of(mutexlab_protocol::addresses::UPSTREAM);
        let changes = [
            (format!("route add blackhole {to}"), Outcome::Dropped),
            (format!("route del blackhole {to}"), FIRST),
            (format!("route add {to} via {gateway} dev second"), SECOND),
            (format!("route del {to}"), FIRST),
            (
                format!("neigh replace {to} lladdr {other} dev servers nud permanent"),
                Outcome::Dropped,
            ),
            (
                format!("neigh replace {to} lladdr {same} dev servers nud permanent"),
                FIRST,
            ),
            (
                format!("rule add pref 50 to {to} blackhole"),
                Outcome::Dropped,
            ),
            ("rule del pref 50".to_owned(), FIRST),
        ];
        let mut expected = vec![FIRST, Outcome::Answered];
        expected.extend(changes.iter().flat_map(|&(_, outcome)| [outcome; FEW]));
        let changes = changes.map(|(change, _)| change);
        beside_nft(
            family,
            &[Redirect::usual(family)],
            |lab, trace| with_changes(lab, trace, way, &changes),
            |trace| trace.ensure(&expected),
        )
    })
}

fn narrow(family: Family) -> Result<()> {
    let expected = [
        FIRST,
        Outcome::Answered,
        report(family, (3, 4), (2, 0)),
        FIRST,
    ];
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let datagram = Datagram::of(Way::Forward, 0);
            let long = Datagram {
                length: NARROW as usize,
                ..datagram
            };
            send(lab, trace, &long, 1)?;
            answer(lab, trace, &datagram)?;
            lab.ip(&format!("link set servers mtu {NARROW}\n"))?;
            trace.did("narrow");
            send(lab, trace, &long, 1)?;
            send(lab, trace, &datagram, 1)
        },
        |trace| trace.ensure(&expected),
    )
}

fn forwarding_off(family: Family) -> Result<()> {
    let expected = [
        [FIRST, Outcome::Answered].as_slice(),
        &[Outcome::Dropped; FEW],
        &[FIRST; FEW],
    ]
    .concat();
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            let datagram = Datagram::of(Way::Forward, 0);
            send(lab, trace, &datagram, 1)?;
            answer(lab, trace, &datagram)?;
            let variable = match family {
                Family::V4 => "ipv4/ip_forward",
                Family::V6 => "ipv6/conf/all/forwarding",
            };
            for value in ["0", "1"] {
                lab.layout().router.set_sysctl(variable, value)?;
                trace.did(format!("forwarding {value}"));
                if value == "0" {
                    lab.wait_for_silence(QUIET);
                } else {
                    lab.wait_for_fence();
                }
                send(lab, trace, &datagram, FEW)?;
            }
            Ok(())
        },
        |trace| trace.ensure(&expected),
    )
}

fn device_goes(family: Family) -> Result<()> {
    of_ways(|way| {
        let expected = [
            [SECOND, Outcome::Answered, SECOND].as_slice(),
            &[FIRST; FEW],
            &[SECOND; FEW],
        ]
        .concat();
        beside_nft(
            family,
            &[Redirect::usual(family)],
            |lab, trace| {
                let (to, gateway) = (upstream(family).ip(), server_on_second(family));
                let route = format!("route add {to} via {gateway} dev second\n");
                lab.ip(&route)?;
                let datagram = Datagram::of(way, 0);
                send(lab, trace, &datagram, 1)?;
                answer(lab, trace, &datagram)?;
                send(lab, trace, &datagram, 1)?;
                lab.delete_second_link().context("the link is held")?;
                trace.did("the second link goes");
                send(lab, trace, &datagram, FEW)?;
                lab.restore_second_link()?;
                lab.ip(&route)?;
                trace.did("it comes back");
                send(lab, trace, &datagram, FEW)
            },
            |trace| trace.ensure(&expected),
        )
    })
}
