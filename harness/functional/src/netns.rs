// SPDX-License-Identifier: MIT OR Apache-2.0

//! Namespaces come and go with their contexts, in every order.

use std::fs;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use mutex_abi::proxy::{MAX_CONTEXTS, MAX_RULES};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{self, CloneFlags};
use nix::unistd;

use super::conversation::{of_every_sort, Servers};
use super::faults::begin_flows_from;
use super::setup::{all_rules, allow_descriptors, network, original, sized, upstream};
use super::sockets::{udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{Layout, CLIENT_LINK, ROUTER_CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{Context, Rule};
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::icmp::Report;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{ROUTER_SERVER_SIDE, UPSTREAM};
use mutexlab_protocol::PROXY_MODULE_PATH;
use mutexlab_wire::frame::Hop;

/// How many namespaces live and die: on a plain kernel, on a debug kernel, where a hundred take 45 seconds.
const TURNS: (usize, usize) = (100, 40);
/// One in so many has traffic. Not a multiple of the orders' number, so that each order has some.
const TRAFFIC: usize = 10;
/// How many may be dying at the same time.
const DYING: usize = 20;

/// What goes first.
#[derive(Clone, Copy, Debug)]
enum First {
    /// The descriptor, then the namespace.
    Context,
    /// The namespace: from then on only the context holds it.
    Namespace,
    /// Neither: both at the same time, on two threads.
    Neither,
}

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "namespaces-come-and-go",
            "a hundred namespaces (40 on a debug kernel) die before, after and together with a context in each",
            run,
        ),
        GuestTest::single(
            "namespaces-killed-with-flows",
            "no route of a flow outlives its namespace when who holds that and the context is killed",
            kill_all,
        ),
        GuestTest::single(
            "namespaces-do-not-wait",
            "a context that takes its time to close holds up no other namespace",
            others_do_not_wait,
        )
        .on_debug(),
        GuestTest::single(
            "contexts-are-limited",
            "a namespace has no more contexts than it may, full of rules, and another has its own",
            contexts_are_limited,
        ),
    ]
}

/// Kills whoever holds a namespace and its context, both with flows that have routes of IPv6, again
/// and again. On a debug kernel memory of flows is reclaimed a second later than it could be.
fn kill_all() -> Result<()> {
    // When the last namespace is dead, its flows may not have been reclaimed yet.
    const LATE: Duration = Duration::from_secs(4);
    let (rounds, flows, windows) = sized((10, 50_000, None), (4, 3_000, Some("1500,0,0")))?;
    let parameters: Parameters = windows
        .map(|windows: &str| ("debug_windows".to_owned(), windows.to_owned()))
        .into_iter()
        .collect();
    let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
    for round in 0..rounds {
        let home = kill(flows).with_context(|| format!("round {round}"))?;
        wait_until_alone(&home).with_context(|| format!("round {round}"))?;
    }
    thread::sleep(LATE);
    module.unload()
}

/// Makes a namespace with a context and `flows` flows to an upstream towards which packets are
/// to be smaller, held by a thread with descriptors of its own, and lets that thread end. Returns a
/// namespace as [`live_and_die`] does.
///
/// A thread ends as a process does (do_exit): its descriptors are closed, then its namespace is
/// put, and then what closing left to be done is done: so the context holds the namespace last.
fn kill(flows: u16) -> Result<Namespace> {
    const FIRST_PORT: u16 = 10_000;
    let Layout {
        client,
        router,
        server,
    } = network()?;
    let _sink = udp(&server, upstream(Family::V6))?;
    let ours = router.as_fd().as_raw_fd();
    let (has_context, await_context) = mpsc::channel();
    let (has_flows, await_flows) = mpsc::channel();
    let (has_counted, await_counted) = mpsc::channel();
    let (may_die, await_death) = mpsc::channel::<()>();
    thread::scope(|scope| -> Result<()> {
        let victim = scope.spawn(move || -> Result<()> {
            sched::unshare(CloneFlags::CLONE_FILES).context("cannot have own descriptors")?;
            sched::setns(&router, CloneFlags::CLONE_NEWNET)
                .context("cannot enter the namespace")?;
            let context = Context::open_here()?;
            context.configure(&all_rules()).context("good rules")?;
            has_context.send(())?;
            await_flows.recv()?;
            has_counted.send((context.stats()?, route_counts()?))?;
            await_death.recv()?;
            // Closed by the thread's end.
            mem::forget((context, router));
            Ok(())
        });
        let lives = || -> Result<()> {
            await_context.recv()?;
            narrow_path(&server)?;
            begin_flows_from(&client, Family::V6, FIRST_PORT..FIRST_PORT + flows)?;
            has_flows.send(())?;
            let (stats, [exceptions, counted]) = await_counted.recv()?;
            ensure!(
                stats.flows_current == u64::from(flows),
                "expected {flows} flows, got {stats:?}"
            );
            ensure!(
                exceptions > 0 && counted > 0,
                "no route has a path MTU of its own, so this shows nothing: {exceptions}, {counted}"
            );
            // From here on only the thread has it.
            unistd::close(ours).context("cannot close a descriptor")?;
            may_die.send(())?;
            Ok(())
        };
        let lived = lives();
        // Or else the victim waits for ever.
        drop((has_flows, may_die));
        let died = victim.join().map_err(|_| anyhow!("the victim panicked"))?;
        died.and(lived)
    })?;
    Ok(client)
}

/// Tells the router that what it sends to the upstream over IPv6 is too big.
fn narrow_path(server: &Namespace) -> Result<()> {
    const PACKET_TOO_BIG: u8 = 2;
    const ECHO_REQUEST: u8 = 128;
    const ICMPV6: u8 = 58;
    const MTU: u16 = 1300;
    // In a frame of Ethernet and IPv6.
    const CHECKSUM: usize = 14 + 40 + 2;
    const MTU_AT: usize = 14 + 40 + 6;
    let (router, far) = (
        ROUTER_SERVER_SIDE.address(Family::V6),
        UPSTREAM.address(Family::V6),
    );
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (router, far) else {
        bail!("{router} and {far} are not of IPv6");
    };
    let mut about = vec![0x60, 0, 0, 0, 0, 8, ICMPV6, 64];
    about.extend(source.octets());
    about.extend(destination.octets());
    about.extend([ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0]);
    let report = Report {
        from: far,
        to: router,
        kind: PACKET_TOO_BIG,
        code: 0,
        about,
    };
    let mut frame = report.build(Hop {
        source: mac_of(UPSTREAM),
        destination: mac_of(ROUTER_SERVER_SIDE),
    })?;
    frame[MTU_AT..MTU_AT + 2].copy_from_slice(&MTU.to_be_bytes());
    // RFC 1624, equation 3.
    let before = u16::from_be_bytes([frame[CHECKSUM], frame[CHECKSUM + 1]]);
    let (sum, carry) = (!before).overflowing_add(MTU);
    let after = !(sum + u16::from(carry));
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&after.to_be_bytes());
    Channel::open(server, &SERVER_LINK, Family::V6)?.send_frame(&frame)
}

/// Of the thread's namespace: how many routes of IPv6 are exceptions, and how many are counted.
fn route_counts() -> Result<[u64; 2]> {
    let path = "/proc/thread-self/net/rt6_stats";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    // rt6_stats_seq_show() of net/ipv6/route.c.
    let numbers = text
        .split_whitespace()
        .map(|word| u64::from_str_radix(word, 16))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{path} has {text:?}"))?;
    match numbers[..] {
        [_, _, _, _, exceptions, counted, ..] => Ok([exceptions, counted]),
        _ => bail!("{path} has {text:?}"),
    }
}

/// A context that is not its namespace's last one lets three seconds pass while it closes.
fn others_do_not_wait() -> Result<()> {
    const CLOSE: Duration = Duration::from_secs(3);
    const SOON: Duration = Duration::from_millis(2_000);
    const BEGUN: Duration = Duration::from_millis(700);
    let parameters = Parameters::from([("debug_windows".to_owned(), "0,0,3000".to_owned())]);
    let module = LoadedModule::load(PROXY_MODULE_PATH, &parameters)?;
    let (slow, other) = (Namespace::new("slow")?, Namespace::new("other")?);
    let stays = Context::open(&slow)?;
    let closes = Context::open(&slow)?;
    closes.configure(&all_rules()).context("good rules")?;
    let there = Context::open(&other)?;
    thread::scope(|scope| -> Result<()> {
        let began = Instant::now();
        let closing = scope.spawn(move || {
            drop(closes);
            began.elapsed()
        });
        thread::sleep(BEGUN);
        let began = Instant::now();
        there.stats()?;
        there.configure(&all_rules()).context("good rules")?;
        drop(Context::open(&Namespace::new("new")?)?);
        let took = began.elapsed();
        let closed = closing.join().map_err(|_| anyhow!("the close panicked"))?;
        ensure!(
            closed >= CLOSE,
            "the close took {closed:?}: nothing held it up"
        );
        ensure!(
            took < SOON,
            "another namespace waited for {took:?} while a context closed in {closed:?}"
        );
        Ok(())
    })?;
    drop((stays, there));
    module.unload()
}

fn contexts_are_limited() -> Result<()> {
    // With this many rules of IPv6 each, as many contexts would once have needed more memory in one
    // piece than the kernel has.
    const ATTEMPTS: usize = 520;
    allow_descriptors(2 * ATTEMPTS)?;
    let rules: Vec<Rule> = (1..=(MAX_RULES / MAX_CONTEXTS) as u16)
        .map(|port| {
            let mut original = original(Family::V6);
            original.set_port(port);
            context::redirect(Protocol::Udp, original, upstream(Family::V6))
        })
        .collect();
    let module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
    let (full, other) = (Namespace::new("full")?, Namespace::new("other")?);
    let mut contexts = Vec::new();
    for _ in 0..ATTEMPTS {
        match Context::open(&full) {
            Ok(context) => {
                context.configure(&rules).context("good rules")?;
                contexts.push(context);
            }
            Err(error) => ensure_no_room(&error)?,
        }
    }
    ensure!(
        contexts.len() == MAX_CONTEXTS,
        "{} of {ATTEMPTS} contexts opened; expected {MAX_CONTEXTS}",
        contexts.len()
    );
    drop(Context::open(&other).context("in a namespace without any")?);
    // The one that goes makes room for one, wherever it was in the order.
    drop(contexts.swap_remove(MAX_CONTEXTS / 2));
    contexts.push(Context::open(&full).context("in the place of one that closed")?);
    match Context::open(&full) {
        Ok(_) => bail!("one context closed, and two could be opened"),
        Err(error) => ensure_no_room(&error)?,
    }
    drop(contexts);
    drop(Context::open(&full).context("after all have closed")?);
    module.unload()
}

fn ensure_no_room(error: &anyhow::Error) -> Result<()> {
    let errno = error
        .downcast_ref::<mprox_client::Error>()
        .and_then(mprox_client::Error::errno);
    ensure!(
        errno == Some(Errno::ENOSPC as i32),
        "expected ENOSPC beyond {MAX_CONTEXTS} contexts, got {error:#}"
    );
    Ok(())
}

fn run() -> Result<()> {
    let module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
    let mut homes = Vec::new();
    for turn in 0..sized(TURNS.0, TURNS.1)? {
        let first = [First::Context, First::Namespace, First::Neither][turn % 3];
        let home = live_and_die(first, turn % TRAFFIC == 0)
            .with_context(|| format!("turn {turn}, first goes: {first:?}"))?;
        homes.push(home);
        if homes.len() == DYING {
            for home in homes.drain(..) {
                wait_until_alone(&home).with_context(|| format!("up to turn {turn}"))?;
            }
        }
    }
    module.unload()
}

/// Makes a namespace with a context and lets both go. Returns another namespace, whose only link
/// led there: it goes when the namespace is really dead.
fn live_and_die(first: First, with_traffic: bool) -> Result<Namespace> {
    let (home, dying, context) = if with_traffic {
        let layout = network()?;
        let context = Context::open(&layout.router)?;
        context.configure(&all_rules()).context("good rules")?;
        let servers = Servers::of_both(&layout)?;
        of_every_sort(&servers)?;
        // Its sockets would hold a namespace, but not the router's.
        drop(servers);
        (layout.client, layout.router, context)
    } else {
        let (home, dying) = (Namespace::new("home")?, Namespace::new("dying")?);
        RouteSocket::open(&dying)?.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &home)?;
        let context = Context::open(&dying)?;
        context.configure(&all_rules()).context("good rules")?;
        (home, dying, context)
    };
    ensure!(has_link(&home)?, "the link is gone already");
    match first {
        First::Context => {
            drop(context);
            drop(dying);
        }
        First::Namespace => {
            drop(dying);
            context
                .stats()
                .context("of a namespace that only the context holds")?;
            ensure!(
                has_link(&home)?,
                "the namespace died while a context was open in it"
            );
            drop(context);
        }
        First::Neither => thread::scope(|scope| {
            scope.spawn(|| drop(context));
            scope.spawn(|| drop(dying));
        }),
    }
    Ok(home)
}

/// Whether the link to another namespace is there.
pub fn has_link(home: &Namespace) -> Result<bool> {
    home.run(|| match if_nametoindex(CLIENT_LINK.name) {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV) => Ok(false),
        Err(error) => Err(error).context("cannot look for the link"),
    })
}

/// Waits until the namespace at the other end of the link is dead.
pub fn wait_until_alone(home: &Namespace) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while has_link(home)? {
        ensure!(
            Instant::now() < deadline,
            "nobody holds the namespace any more, yet it lives after {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
