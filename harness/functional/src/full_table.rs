// SPDX-License-Identifier: MIT OR Apache-2.0

//! A table full of connections that are over, or as good as over: new ones take their places.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use pnet::packet::tcp::TcpFlags;

use super::conversation::{of_every_sort, Servers};
use super::ends::{syn, Arrived, Ends};
use super::pinned::Pinned;
use super::redirector::{beside_nft, Redirection, Redirector, TimeOut};
use super::setup::{
    all_rules, client_address, ensure_no_loss, original, rule, sized, upstream, Setup, FAMILIES,
};
use super::sockets::{accept, connect, is_readable, listen, start_connecting, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::conntrack::Room;
use mutexlab_guest::proxy::context;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{UPSTREAM_PORT, WIRE_CLIENT, WIRE_ORIGINAL, WIRE_UPSTREAM};
use mutexlab_wire::frame::{Header, Segment, Transport};

/// Flows that the table takes.
const MAX_FLOWS: u32 = 1000;
/// Connections that are over, or as good as over.
const CONNECTIONS: u32 = 1500;

/// The tests that take a moment.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = Vec::from(beside_nft(
        "full-table-udp",
        "1500 questions over UDP, answered once each, are none too many for a table of 1000",
        one_shots,
    ));
    tests.push(GuestTest::single(
        "full-table-tcp",
        "1500 TCP connections that were closed are none too many for a table of 1000",
        closed,
    ));
    tests
}

/// The tests that take long.
pub fn long_tests() -> Vec<GuestTest> {
    let mut tests: Vec<GuestTest> = [
        (Flood::Udp, "udp", "datagrams that are answered"),
        (Flood::Tcp, "tcp", "SYNs that are answered"),
        (
            Flood::Resets,
            "resets",
            "SYNs of one client that it resets when answered",
        ),
    ]
    .into_iter()
    .map(|(flood, name, what)| {
        GuestTest::new(
            format!("answered-flood-{name}"),
            format!("after {what}, as many new connections get through as with nft, or more"),
            move || no_worse_than_nft(flood),
        )
    })
    .collect();
    tests.push(GuestTest::single(
        "many-one-shots",
        "a thousand DNS-like exchanges a second beside 100 TCP connections: none is refused",
        || many_one_shots(SHORTER),
    ));
    tests.push(
        GuestTest::single(
            "many-one-shots-unshortened",
            "the same for ten minutes, with the default limit and time-outs",
            || many_one_shots(1),
        )
        .lasting(2 * Duration::from_secs(60) * MINUTES)
        .nightly(),
    );
    tests
}

fn one_shots(redirector: Redirector) -> Result<()> {
    // nft looks for one that may go at a few places only, and does not always find it; the module refuses nobody, so that
    // nobody has to wait for long.
    let (allowed, patience) = match redirector {
        Redirector::Module => (0, PATIENCE),
        Redirector::Nft => (CONNECTIONS as usize / 100, SOON),
    };
    for family in FAMILIES {
        let setup = Setup::with_parameters(&[("max_flows", &MAX_FLOWS.to_string())])?;
        let _room = Room::limit(MAX_FLOWS)?;
        let redirection = redirector.redirect(&setup, &[rule(Protocol::Udp, family)])?;
        let server = udp(&setup.layout.server, upstream(family))?;
        let answered = (0..CONNECTIONS)
            .filter_map(|_| ask_once(&setup, &server, family, patience).transpose())
            .collect::<Result<Vec<()>>>();
        let lost = CONNECTIONS as usize - answered?.len();
        ensure_full(&redirection, &setup, MAX_FLOWS)?;
        ensure!(
            lost <= allowed,
            "{family:?}: {lost} of {CONNECTIONS} questions were not answered"
        );
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

/// Fails unless the router knows about as many connections as it has room for, and no more: otherwise it had
/// nothing to choose, and the test shows nothing.
fn ensure_full(redirection: &Redirection, setup: &Setup, max: u32) -> Result<()> {
    let (flows, max) = (redirection.flows(setup)?, u64::from(max));
    ensure!(
        (max * 9 / 10..=max + 1).contains(&flows),
        "the router knows {flows} connections; expected about {max}, its limit"
    );
    Ok(())
}

/// How long something takes at most that is not refused: nothing else is on the links.
const SOON: Duration = Duration::from_millis(50);

/// A question from a new port, and its answer; `None` if either does not come within `patience`.
fn ask_once(
    setup: &Setup,
    server: &UdpSocket,
    family: Family,
    patience: Duration,
) -> Result<Option<()>> {
    let way = Way::Forward;
    let client = udp(setup.client(way), client_address(way, family))?;
    client.send_to(b"who is it?", original(family))?;
    if !is_readable(server, patience)? {
        return Ok(None);
    }
    let (_, seen) = server.recv_from(&mut [0; 16])?;
    server.send_to(b"it is I", seen)?;
    if !is_readable(&client, patience)? {
        return Ok(None);
    }
    let (_, from) = client.recv_from(&mut [0; 16])?;
    ensure!(from == original(family), "the answer came from {from}");
    Ok(Some(()))
}

fn closed() -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::with_parameters(&[("max_flows", &MAX_FLOWS.to_string())])?;
        let context = setup.context(&[rule(Protocol::Tcp, family)])?;
        let listener = listen(&setup.layout.server, upstream(family))?;
        let from = client_address(Way::Forward, family);
        for number in 0..CONNECTIONS {
            let client = connect(setup.client(Way::Forward), from, original(family))
                .with_context(|| format!("{family:?}: connection {number}"))?;
            let (server, _) = accept(&listener)?;
            // From both ends, the server's first.
            drop(server);
            drop(client);
        }
        ensure_no_loss(&context.stats()?)?;
        drop(context);
        setup.finish()?;
    }
    Ok(())
}

/// What floods the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    Udp,
    Tcp,
    Resets,
}

/// How many times as fast as by default connections are forgotten.
const FASTER: u32 = 15;
/// When newcomers come after a flood, of which the defaults make 0, 30, 90 and 150 s.
const AFTER: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(6),
    Duration::from_secs(10),
];
/// What each of them are, of UDP and of TCP.
const NEWCOMERS: usize = 10;
/// Flows that the flooded tables take: a flood of this size takes a fraction of a second, so that next
/// to nothing of it is forgotten before it ends.
const FLOODED: u32 = 600;
/// Packets of a flood.
const FLOOD: u16 = 1800;
/// Of those, how many are under way at once.
const BATCH: u16 = 30;

/// After this, nothing is under way any more. Before, what one CPU sends over links that are virtual is
/// mostly there when it has sent it.
const SETTLED: Duration = Duration::from_millis(100);

/// Newcomers that got through, at each time: of UDP, of TCP.
type Entered = Vec<[usize; 2]>;

fn no_worse_than_nft(flood: Flood) -> Result<()> {
    let nft = newcomers(Redirector::Nft, flood).context("nft")?;
    let module = newcomers(Redirector::Module, flood).context("module")?;
    // What the tables are about: all of them are free again in the end.
    ensure!(
        nft.last() == Some(&[NEWCOMERS; 2]),
        "nft: {nft:?}, of {NEWCOMERS} each; expected all in the end"
    );
    let is_worse = |(module, nft): (&[usize; 2], &[usize; 2])| {
        module.iter().zip(nft).any(|(module, nft)| module < nft)
    };
    ensure!(
        !module.iter().zip(&nft).any(is_worse),
        "of {NEWCOMERS} newcomers over UDP and TCP got through at {AFTER:?}: with the module \
         {module:?}, with nft {nft:?}"
    );
    Ok(())
}

fn newcomers(redirector: Redirector, flood: Flood) -> Result<Entered> {
    let family = Family::V4;
    let setup = Setup::with_parameters(&[
        ("max_flows", &FLOODED.to_string()),
        ("gc_interval", &(30 / FASTER).to_string()),
    ])?;
    let _room = Room::limit(FLOODED)?;
    let mut rules = all_rules();
    rules.extend([Protocol::Udp, Protocol::Tcp].map(|protocol| {
        let upstream = WIRE_UPSTREAM.socket(family, UPSTREAM_PORT);
        context::redirect(protocol, flooded(family), upstream)
    }));
    let redirection = redirector.redirect(&setup, &rules)?;
    set_time_outs(redirector, &setup)?;
    let servers = (
        udp(&setup.layout.server, upstream(family))?,
        listen(&setup.layout.server, upstream(family))?,
    );
    overrun(&setup, family, flood)?;
    ensure_full(&redirection, &setup, FLOODED)?;
    let (start, mut entered) = (Instant::now(), Entered::new());
    for after in AFTER {
        thread::sleep(after.saturating_sub(start.elapsed()));
        let mut count = [0; 2];
        for _ in 0..NEWCOMERS {
            count[0] += usize::from(ask_once(&setup, &servers.0, family, SOON)?.is_some());
            count[1] += usize::from(enters(&setup, &servers.1, family)?);
        }
        entered.push(count);
    }
    drop(redirection);
    setup.finish()?;
    Ok(entered)
}

/// The defaults of each, but faster.
fn set_time_outs(redirector: Redirector, setup: &Setup) -> Result<()> {
    let set = |which, seconds: u32| redirector.set_time_out(setup, which, seconds / FASTER);
    set(TimeOut::Syn, 120)?;
    set(TimeOut::Fin, 120)?;
    match redirector {
        Redirector::Module => {
            set(TimeOut::Established, 7200)?;
            set(TimeOut::Close, 60)?;
            set(TimeOut::Udp, 180)?;
            set(TimeOut::UdpUnreplied, 30)
        }
        Redirector::Nft => {
            set(TimeOut::Udp, 120)?;
            set(TimeOut::UdpUnreplied, 30)?;
            let router = &setup.layout.router;
            for (name, seconds) in [
                ("syn_recv", 60),
                ("close_wait", 60),
                ("last_ack", 30),
                ("time_wait", 120),
                // 10 s.
                ("close", FASTER),
            ] {
                let variable = format!("netfilter/nf_conntrack_tcp_timeout_{name}");
                router.set_sysctl(&variable, &(seconds / FASTER).to_string())?;
            }
            Ok(())
        }
    }
}

fn flooded(family: Family) -> SocketAddr {
    WIRE_ORIGINAL.socket(family, UPSTREAM_PORT + 1)
}

/// Sends first packets from ever new ports, each of which is answered, if it arrives.
fn overrun(setup: &Setup, family: Family, flood: Flood) -> Result<()> {
    let _pinned = Pinned::to(0)?;
    let mut ends = Ends::open(setup, family)?;
    for first in (0..FLOOD).step_by(BATCH.into()) {
        for number in first..first + BATCH {
            ends.send(
                &Header {
                    source: WIRE_CLIENT.socket(family, 10_000 + number),
                    destination: flooded(family),
                    transport: match flood {
                        Flood::Udp => Transport::Udp,
                        Flood::Tcp | Flood::Resets => syn(number.into()),
                    },
                },
                &[],
            )?;
        }
        react(&mut ends, flood, Duration::ZERO)?;
    }
    react(&mut ends, flood, SETTLED)?;
    Ok(())
}

/// Answers what has arrived, or does within `patience`. Returns how many answers came to the client.
fn react(ends: &mut Ends, flood: Flood, patience: Duration) -> Result<u32> {
    while let Some(arrived) = ends.arrived_within(patience)? {
        answer(ends, &arrived)?;
    }
    let mut came = 0;
    while let Some(answer) = ends.came_back_within(patience)? {
        came += 1;
        if flood == Flood::Resets {
            reset(ends, &answer)?;
        }
    }
    Ok(came)
}

fn answer(ends: &mut Ends, arrived: &Arrived) -> Result<()> {
    let transport = match arrived.header.transport {
        Transport::Udp => Transport::Udp,
        // The client's RST.
        Transport::Tcp(segment) if !segment.has(TcpFlags::SYN) => return Ok(()),
        Transport::Tcp(segment) => Transport::Tcp(Segment {
            sequence: !segment.sequence,
            acknowledgement: segment.sequence.wrapping_add(1),
            flags: TcpFlags::SYN | TcpFlags::ACK,
        }),
    };
    ends.send_back(
        &Header {
            source: arrived.header.destination,
            destination: arrived.header.source,
            transport,
        },
        &[],
    )
}

fn reset(ends: &mut Ends, answer: &Arrived) -> Result<()> {
    let Transport::Tcp(segment) = answer.header.transport else {
        return Ok(());
    };
    ends.send(
        &Header {
            source: answer.header.destination,
            destination: answer.header.source,
            transport: Transport::Tcp(Segment {
                sequence: segment.acknowledgement,
                acknowledgement: 0,
                flags: TcpFlags::RST,
            }),
        },
        &[],
    )
}

/// Whether a connection opens before its SYN is sent again.
fn enters(setup: &Setup, listener: &std::net::TcpListener, family: Family) -> Result<bool> {
    let from = client_address(Way::Forward, family);
    let client = setup.client(Way::Forward);
    let socket = client.run(|| start_connecting(from, original(family)))?;
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(Duration::from_millis(300))?;
    if poll(&mut ready, patience)? == 0 {
        return Ok(false);
    }
    let stream = TcpStream::from(socket);
    if stream.take_error()?.is_some() {
        return Ok(false);
    }
    accept(listener)?;
    Ok(true)
}

/// How many times as fast as by default flows are forgotten, and how much smaller the table is: with as
/// many exchanges a second, half a minute is what ten are by default.
const SHORTER: u32 = 20;
const MINUTES: u32 = 10;
/// Exchanges a second: on a plain kernel, on a debug kernel, whose table is smaller in proportion.
const EXCHANGES: (u32, u32) = (1000, 100);
/// Ports at which questions are asked: each has as many questions as there are ports to ask from.
const SERVERS: u16 = 10;
/// TCP connections beside them, at all of which something is said twice in that time.
const STREAMS: usize = 100;

/// DNS-like exchanges, each from a port of its own, at a steady rate.
fn many_one_shots(shorter: u32) -> Result<()> {
    let rate = sized(EXCHANGES.0, EXCHANGES.1)?;
    let max_flows = 65_536 / shorter * rate / EXCHANGES.0;
    let seconds = |default: u32| (default / shorter).to_string();
    let setup = Setup::with_parameters(&[
        ("max_flows", &max_flows.to_string()),
        ("gc_interval", &seconds(30)),
        ("tcp_syn_timeout", &seconds(120)),
        ("tcp_established_timeout", &seconds(7200)),
        ("tcp_fin_timeout", &seconds(120)),
        ("tcp_close_timeout", &seconds(60)),
        ("udp_timeout", &seconds(180)),
        ("udp_transient_timeout", &seconds(120)),
        ("udp_unreplied_timeout", &seconds(30)),
    ])?;
    let family = Family::V4;
    let mut rules = all_rules();
    // To the port that was asked.
    let upstream = WIRE_UPSTREAM.socket(family, 0);
    let servers = (0..SERVERS).map(|number| {
        let mut server = flooded(family);
        server.set_port(server.port() + number);
        server
    });
    let asked: Vec<SocketAddr> = servers.collect();
    let redirected = |&to| context::redirect(Protocol::Udp, to, upstream);
    rules.extend(asked.iter().map(redirected));
    let context = setup.context(&rules)?;
    let servers = [Servers::new(&setup.layout, family)?];
    let mut streams = (0..STREAMS)
        .map(|_| servers[0].converse(Protocol::Tcp, Way::Forward))
        .collect::<Result<Vec<_>>>()?;
    let pinned = Pinned::to(0)?;
    let mut ends = Ends::open(&setup, family)?;
    let total = rate * 60 * MINUTES / shorter;
    let batch = rate / 50;
    let start = Instant::now();
    let mut answered = 0;
    // No two of a port and a server are the same.
    let mut questions = asked
        .iter()
        .flat_map(|&to| (1024..=u16::MAX).map(move |port| (to, port)));
    for first in (0..total).step_by(batch as usize) {
        let due = Duration::from_secs_f64(f64::from(first) / f64::from(rate));
        thread::sleep(due.saturating_sub(start.elapsed()));
        for (to, port) in questions.by_ref().take(batch as usize) {
            let header = Header {
                source: WIRE_CLIENT.socket(family, port),
                destination: to,
                transport: Transport::Udp,
            };
            ends.send(&header, b"who is it?")?;
        }
        answered += react(&mut ends, Flood::Udp, Duration::ZERO)?;
        // Below a third of the rate, the table has room for all even if each stays as long as a stream does.
        ensure!(
            start.elapsed() < 2 * due + PATIENCE,
            "the guest is too slow: {first} exchanges took {:?}",
            start.elapsed()
        );
        if first % rate < batch {
            let stats = context.stats()?;
            ensure!(
                stats.dropped_table_full == 0,
                "refused after {first} of {total} exchanges: {stats:?}"
            );
        }
        if first % (total / (2 * STREAMS as u32)) < batch {
            let turn = first / (total / (2 * STREAMS as u32));
            streams[turn as usize % STREAMS]
                .say()
                .with_context(|| format!("a TCP connection beside {first} exchanges"))?;
        }
    }
    let took = start.elapsed();
    answered += react(&mut ends, Flood::Udp, SETTLED)?;
    let stats = context.stats()?;
    ensure!(
        answered == total,
        "{answered} of {total} questions were answered, in {took:?}: {stats:?}"
    );
    ensure_no_loss(&stats)?;
    for stream in &mut streams {
        stream.say().context("in the end")?;
    }
    of_every_sort(&servers)?;
    drop((streams, pinned));
    drop((servers, context));
    setup.finish()
}
