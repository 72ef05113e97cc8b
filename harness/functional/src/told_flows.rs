// SPDX-License-Identifier: MIT OR Apache-2.0

//! Flows as the netlink family tells them, and those that are ended by it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{bail, ensure, Context as _, Result};
use mprox_client::{
    Client, ContextName, Endpoint, Family as Version, FlowFilter, FlowState, FlowsMeant, Prefix,
    Protocol as Transport, ToldFlow,
};
use nix::errno::Errno;

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, original, sized, upstream, Setup, FAMILIES};
use super::sockets::udp;
use super::tool::{ensure_says, fails, succeeds};
use super::GuestTest;
use mutexlab_guest::proxy::context::{self, Rule};
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{CLIENT, ORIGINAL, UPSTREAM};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "flows-told",
            "each flow is told with its ends, state and counters, and filters tell those that are meant",
            told,
        ),
        GuestTest::single(
            "flows-by-pages",
            "10,000 flows (2,000 on a debug kernel) are told once each, over many messages",
            || by_pages(sized(10_000, 2_000)?),
        ),
        GuestTest::single(
            "flows-ended",
            "flows that a filter means are forgotten, others go on, and what comes afterwards is new",
            ended,
        ),
        GuestTest::single(
            "mprox-flows",
            "mprox flows shows, filters and forgets connections",
            tool,
        ),
    ]
}

fn socket(family: Version, end: &Endpoint) -> SocketAddr {
    let [a, b, c, d, ..] = end.address;
    let address: IpAddr = match family {
        Version::V4 => [a, b, c, d].into(),
        Version::V6 => end.address.into(),
    };
    SocketAddr::new(address, end.port)
}

fn version(family: Family) -> Version {
    match family {
        Family::V4 => Version::V4,
        Family::V6 => Version::V6,
    }
}

fn client(setup: &Setup) -> Result<Client> {
    setup.layout.router.run(|| Ok(Client::open()?))
}

fn meant(filter: FlowFilter) -> FlowsMeant {
    FlowsMeant {
        context: None,
        filter: Some(filter),
    }
}

fn told() -> Result<()> {
    const SAID: u64 = 5;
    let setup = Setup::new()?;
    let mut client = client(&setup)?;
    for refused in [
        client.flows(&FlowsMeant::default()).map(drop),
        client.end_flows(&meant(FlowFilter::ALL)).map(drop),
    ] {
        let errno = refused.as_ref().err().and_then(mprox_client::Error::errno);
        ensure!(
            errno == Some(Errno::ENOENT as i32),
            "without a context: {refused:?}"
        );
    }
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    ensure!(
        client.flows(&FlowsMeant::default())?.is_empty(),
        "flows before there are connections"
    );
    let mut old = of_every_sort(&servers)?;
    for _ in 1..SAID {
        for conversation in &mut old {
            conversation.say()?;
        }
    }
    let all = client.flows(&FlowsMeant::default())?;
    ensure!(all.len() == 4, "expected four flows: {all:#?}");
    for family in FAMILIES {
        for protocol in [Transport::Tcp, Transport::Udp] {
            let filter = FlowFilter {
                family: Some(version(family)),
                protocol: Some(protocol),
                ..FlowFilter::ALL
            };
            let some = client.flows(&meant(filter))?;
            let [one] = some.as_slice() else {
                bail!("{family:?}, {protocol:?}: expected one flow: {some:#?}");
            };
            ensure!(all.contains(one) || one.flow.idle > 0, "{one:?} is no flow");
            is_right(one, family)?;
            let sent = one.flow.packets[0];
            match protocol {
                Transport::Udp => ensure!(
                    one.flow.packets == [SAID; 2],
                    "{SAID} datagrams each way: {one:?}"
                ),
                Transport::Tcp => ensure!(sent > SAID, "more than {SAID} segments: {one:?}"),
            }
            // IP header, UDP header and message.
            ensure!(
                one.flow.bytes[0] >= sent * 20,
                "packets have headers: {one:?}"
            );
        }
    }
    filters(&mut client)?;
    drop(old);
    drop((servers, context, client));
    setup.finish()
}

fn is_right(told: &ToldFlow, family: Family) -> Result<()> {
    let flow = &told.flow;
    let end = |end: &Endpoint| socket(flow.family, end);
    let redirection = flow.redirection.as_ref();
    let redirection = redirection.with_context(|| format!("it is direct: {flow:?}"))?;
    ensure!(
        end(&flow.client).ip() == CLIENT.address(family),
        "another client: {flow:?}"
    );
    ensure!(
        end(&flow.original) == original(family),
        "another original destination: {flow:?}"
    );
    ensure!(
        end(&redirection.upstream) == upstream(family),
        "another upstream: {flow:?}"
    );
    ensure!(
        redirection.source == flow.client,
        "the upstream sees another client: {flow:?}"
    );
    ensure!(
        flow.state == FlowState::Established,
        "another state: {flow:?}"
    );
    ensure!(told.context.is_none(), "the context has no name: {told:?}");
    Ok(())
}

/// Which of the four flows are told.
fn filters(client: &mut Client) -> Result<()> {
    let address = |ip: IpAddr| {
        let mut address = [0; 16];
        match ip {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address = ip.octets(),
        }
        address
    };
    let all = FlowFilter::ALL;
    let v4 = |ip: IpAddr, length| FlowFilter {
        family: Some(Version::V4),
        source: Prefix {
            address: address(ip),
            length,
        },
        ..all
    };
    let to = |ip: IpAddr, length| FlowFilter {
        source: Prefix::default(),
        destination: Prefix {
            address: address(ip),
            length,
        },
        ..v4(ip, length)
    };
    let here = CLIENT.address(Family::V4);
    let there = ORIGINAL.address(Family::V4);
    let port = original(Family::V4).port();
    for (filter, expected) in [
        (all, 4),
        (v4(here, 32), 2),
        (v4(here, 24), 2),
        (v4(there, 32), 0),
        (to(there, 32), 2),
        (to(here, 32), 0),
        (
            FlowFilter {
                ports: (port, port),
                ..all
            },
            4,
        ),
        (
            FlowFilter {
                ports: (port + 1, u16::MAX),
                ..all
            },
            0,
        ),
    ] {
        let told = client.flows(&meant(filter))?;
        ensure!(
            told.len() == expected,
            "{filter:?}: expected {expected}, got {told:#?}"
        );
    }
    let unknown = FlowsMeant {
        context: ContextName::new(b"nobody"),
        filter: None,
    };
    let refused = client.flows(&unknown);
    ensure!(
        refused.as_ref().err().and_then(mprox_client::Error::errno) == Some(Errno::ENOENT as i32),
        "of a context that is not there: {refused:?}"
    );
    Ok(())
}

/// Ports from which on a connection of its own goes to each.
const FIRST_PORT: u16 = 20_000;

fn by_pages(flows: u16) -> Result<()> {
    let setup = Setup::new()?;
    let rules = FAMILIES.map(|family| {
        let there = context::upstream(UPSTREAM.socket(family, 0), 0);
        Rule::any(family, &[there])
            .over(Protocol::Udp)
            .ports(FIRST_PORT, FIRST_PORT + flows)
    });
    let context = setup.context(&rules)?;
    let sender = udp(&setup.layout.client, CLIENT.socket(Family::V4, 0))?;
    for port in FIRST_PORT..FIRST_PORT + flows {
        sender.send_to(b"x", ORIGINAL.socket(Family::V4, port))?;
    }
    let mut client = client(&setup)?;
    let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
    for told in client.flows(&FlowsMeant::default())? {
        *seen.entry(told.flow.original.port).or_default() += 1;
    }
    ensure!(
        seen.keys().copied().eq(FIRST_PORT..FIRST_PORT + flows),
        "of {flows} flows {} are told",
        seen.len()
    );
    ensure!(
        seen.values().all(|times| *times == 1),
        "flows are told twice"
    );
    let some = FlowFilter {
        ports: (FIRST_PORT + 100, FIRST_PORT + 199),
        ..FlowFilter::ALL
    };
    let told = client.flows(&meant(some))?.len();
    ensure!(told == 100, "expected 100 flows, got {told}");
    ensure!(client.end_flows(&meant(some))? == 100, "all of them end");
    let left = client.flows(&FlowsMeant::default())?.len();
    ensure!(left == usize::from(flows) - 100, "{left} flows are left");
    let current = context.stats()?.flows_current;
    ensure!(current == left as u64, "{left} told, and {current} counted");
    drop((context, client));
    setup.finish()
}

fn ended() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let mut client = client(&setup)?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut conversations = of_every_sort(&servers)?;
    let before = context.stats()?;
    let gone = client.end_flows(&meant(FlowFilter {
        family: Some(Version::V4),
        protocol: Some(Transport::Udp),
        ..FlowFilter::ALL
    }))?;
    ensure!(gone == 1, "expected 1 flow to end, and {gone} did");
    let left = client.flows(&FlowsMeant::default())?;
    let is_it =
        |told: &ToldFlow| (told.flow.family, told.flow.protocol) == (Version::V4, Transport::Udp);
    ensure!(
        left.len() == 3 && !left.iter().any(is_it),
        "expected three others: {left:#?}"
    );
    for conversation in &mut conversations {
        conversation.say().context("afterwards")?;
    }
    let now = context.stats()?;
    ensure!(
        now.flows_created == before.flows_created + 1
            && now.flows_removed == before.flows_removed + 1,
        "expected a flow anew: {before:?}, {now:?}"
    );
    let refused = client.end_flows(&FlowsMeant::default());
    ensure!(
        refused.as_ref().err().and_then(mprox_client::Error::errno) == Some(Errno::EINVAL as i32),
        "without a filter: {refused:?}"
    );
    drop(conversations);
    drop((servers, context, client));
    setup.finish()
}

fn tool() -> Result<()> {
    let setup = Setup::new()?;
    ensure_says(
        &fails(&setup, &["flows"])?,
        "nothing is redirected in this network namespace",
    )?;
    let context = setup.context(&all_rules())?;
    ensure_says(&succeeds(&setup, &["flows"])?, "no such flow")?;
    let servers = Servers::of_both(&setup.layout)?;
    let conversations = of_every_sort(&servers)?;
    let table = succeeds(&setup, &["flows"])?;
    ensure!(table.lines().count() == 5, "{table}");
    for family in FAMILIES {
        ensure_says(&table, &upstream(family).to_string())?;
        ensure_says(&table, &original(family).to_string())?;
    }
    let some = succeeds(
        &setup,
        &["flows", "--protocol", "tcp", "--to", "198.51.100.0/24"],
    )?;
    ensure!(some.lines().count() == 2, "{some}");
    ensure_says(&some, "established")?;
    let json = succeeds(&setup, &["flows", "--json", "--protocol", "udp"])?;
    ensure!(json.matches("\"upstream\":").count() == 2, "{json}");
    ensure_says(&fails(&setup, &["flows", "--kill"])?, "which flows?")?;
    ensure_says(
        &fails(&setup, &["flows", "--context", "home"])?,
        "there is no context `home`",
    )?;
    let said = succeeds(&setup, &["flows", "--kill", "--protocol", "udp"])?;
    ensure!(said == "2 flows forgotten\n", "{said}");
    let said = succeeds(&setup, &["flows", "--kill", "--all"])?;
    ensure!(said == "2 flows forgotten\n", "{said}");
    ensure_says(&succeeds(&setup, &["flows"])?, "no such flow")?;
    drop(conversations);
    drop((servers, context));
    setup.finish()
}
