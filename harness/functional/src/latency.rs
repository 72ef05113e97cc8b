// SPDX-License-Identifier: MIT OR Apache-2.0

//! /proc/net/mutex_proxy/latency: every packet in the hooks is timed if that is switched on.

use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{self, udp};
use super::GuestTest;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context::Context;
use mutexlab_guest::proxy::monitor;
use mutexlab_guest::proxy::monitor::{Histogram, Latency};
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Way};

/// The parameter that switches it on.
const SWITCH: &str = "perf_enable_profiling";

/// Which way packets are looked at, as the hooks of a family follow each other in the file.
const PRE_ROUTING: usize = 0;
const LOCAL_OUT: usize = 2;

/// Datagrams there, and as many back.
const ROUND_TRIPS: u32 = 50;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "latency-counted",
            "each packet in a hook is timed once if that is on, and none if it is off",
            every_packet_once,
        ),
        GuestTest::single(
            "latency-namespaces",
            "each namespace has its own times",
            by_namespace,
        ),
        GuestTest::single(
            "latency-switched",
            "timing packets is switched on and off under traffic",
            switched_under_traffic,
        ),
    ]
}

fn read(namespace: &Namespace) -> Result<Latency> {
    let mut text = String::new();
    monitor::open(namespace, "latency")?
        .with_context(|| format!("there is no file in {}", namespace.name()))?
        .read_to_string(&mut text)?;
    Latency::parse(&text).with_context(|| format!("in {text:?}"))
}

/// How many packets each hook has timed.
fn counts(namespace: &Namespace) -> Result<[u64; 4]> {
    let latency = read(namespace)?;
    let mut counts = [0; 4];
    for (count, hook) in counts.iter_mut().zip(&latency.hooks) {
        *count = hook.total.count();
    }
    Ok(counts)
}

fn hook(family: Family, place: usize) -> usize {
    place
        + match family {
            Family::V4 => 0,
            Family::V6 => 1,
        }
}

/// Redirected datagrams, there and back.
fn talk(setup: &Setup, way: Way, family: Family) -> Result<()> {
    let client = udp(setup.client(way), client_address(way, family))?;
    let server = udp(&setup.layout.server, upstream(family))?;
    for sequence in 0..ROUND_TRIPS {
        let label = Label { flow: 1, sequence };
        let seen = sockets::send(&client, original(family), &server, label, 100)?;
        sockets::answer(&server, seen, &client, original(family), label, 100)?;
    }
    Ok(())
}

/// Packets of IPv6 that a namespace has received: neighbours find each other, too.
fn received_v6(namespace: &Namespace) -> Result<u64> {
    let text = namespace.run(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp6")?))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Ip6InReceives")?.trim().parse().ok())
        .context("/proc/net/snmp6 does not tell how many packets came")
}

/// The times of PRE_ROUTING over IPv6 and the packets that came, of one moment.
fn timed_and_received_v6(namespace: &Namespace) -> Result<(u64, u64)> {
    loop {
        let (before, received) = (counts(namespace)?, received_v6(namespace)?);
        if (counts(namespace)?, received_v6(namespace)?) == (before, received) {
            return Ok((before[hook(Family::V6, PRE_ROUTING)], received));
        }
    }
}

fn every_packet_once() -> Result<()> {
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    let context = setup.context(&all_rules())?;
    let everything = || {
        WAYS.iter().try_for_each(|&way| {
            FAMILIES
                .iter()
                .try_for_each(|&family| talk(&setup, way, family))
        })
    };
    everything()?;
    let off = counts(router)?;
    ensure!(off == [0; 4], "switched off, {off:?} packets were timed");

    setup.set(SWITCH, 1)?;
    let trips = u64::from(ROUND_TRIPS);
    for way in WAYS {
        let (stats, before, before_v6) = (
            context.stats()?,
            counts(router)?,
            timed_and_received_v6(router)?,
        );
        talk(&setup, way, Family::V4)?;
        talk(&setup, way, Family::V6)?;
        let after_v6 = timed_and_received_v6(router)?;
        let (timed, received) = (after_v6.0 - before_v6.0, after_v6.1 - before_v6.1);
        let added: Vec<u64> = (counts(router)?.iter().zip(before))
            .map(|(now, before)| now - before)
            .collect();
        let (came, left) = match way {
            Way::Forward => (2 * trips, 0),
            Way::Local => (trips, trips),
        };
        let ours = [hook(Family::V4, PRE_ROUTING), hook(Family::V4, LOCAL_OUT)];
        ensure!(
            ours.map(|hook| added[hook]) == [came, left],
            "{way:?}: expected {came} packets of IPv4 that came and {left} that left, \
             got {added:?}"
        );
        ensure!(
            timed == received && timed >= came && added[hook(Family::V6, LOCAL_OUT)] >= left,
            "{way:?}: {timed} packets of IPv6 were timed, {received} received; in all {added:?}"
        );
        let now = context.stats()?;
        let redirected = (now.packets_original - stats.packets_original)
            + (now.packets_reply - stats.packets_reply);
        ensure!(
            redirected == 2 * (came + left),
            "{way:?}: {redirected} packets were translated"
        );
    }
    let latency = read(router)?;
    for (index, hook) in latency.hooks.iter().enumerate() {
        ensure_plausible(&hook.total, latency.tsc_khz).with_context(|| format!("hook {index}"))?;
    }

    setup.set(SWITCH, 0)?;
    let before = counts(router)?;
    everything()?;
    let after = counts(router)?;
    ensure!(
        before == after,
        "switched off again, {before:?} became {after:?}"
    );
    drop(context);
    setup.finish()
}

/// A hook takes some instructions, and a tenth of a second only where something is wrong: if the
/// kernel knows how long that is, which in an emulator it may not.
fn ensure_plausible(times: &Histogram, tsc_khz: u64) -> Result<()> {
    let at = |percent| times.percentile(percent).context("nothing was recorded");
    let (low, middle, high) = (at(1)?, at(50_000)?, at(99_000)?);
    ensure!(
        16 < low && low <= middle && middle <= high && (tsc_khz == 0 || middle < 100 * tsc_khz),
        "the least is {low}, the median {middle}, p99 {high} ticks, of {tsc_khz},000 a second"
    );
    Ok(())
}

fn by_namespace() -> Result<()> {
    let setup = Setup::with_parameters(&[(SWITCH, "1")])?;
    let layout = &setup.layout;
    let context = setup.context(&all_rules())?;
    let other = Context::open(&layout.client)?;
    let trips = u64::from(ROUND_TRIPS);
    talk(&setup, Way::Forward, Family::V4)?;
    for (namespace, came, left) in [
        (&layout.client, trips, trips),
        (&layout.router, 2 * trips, 0),
    ] {
        let counts = counts(namespace)?;
        ensure!(
            [counts[PRE_ROUTING], counts[LOCAL_OUT]] == [came, left],
            "{}: expected {came} packets that came and {left} that left, got {counts:?}",
            namespace.name()
        );
    }
    // A new context begins at zero.
    drop(other);
    let other = Context::open(&layout.client)?;
    let fresh = counts(&layout.client)?[PRE_ROUTING];
    ensure!(fresh == 0, "a new context has {fresh} times already");
    drop((other, context));
    setup.finish()
}

fn switched_under_traffic() -> Result<()> {
    const SWITCHES: u32 = 40;
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut conversations = of_every_sort(&servers)?;
    let stop = AtomicBool::new(false);
    let before = context.stats()?;
    let timed = thread::scope(|scope| {
        let talk = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                conversations.iter_mut().try_for_each(|one| one.say())?;
            }
            Ok(())
        });
        let switch = || {
            let mut earlier = read(router)?;
            for turn in 1..=SWITCHES {
                setup.set(SWITCH, turn % 2)?;
                thread::sleep(Duration::from_millis(20));
                let latency = read(router)?;
                for (now, earlier) in latency.hooks.iter().zip(&earlier.hooks) {
                    now.total
                        .since(&earlier.total)
                        .context("counts were taken back")?;
                }
                earlier = latency;
            }
            Ok(earlier.hooks[PRE_ROUTING].total.count())
        };
        let timed: Result<u64> = switch();
        stop.store(true, Ordering::Relaxed);
        talk.join().expect("no panic in a conversation").and(timed)
    })?;
    let now = context.stats()?;
    let passed = (now.packets_original + now.packets_reply)
        - (before.packets_original + before.packets_reply);
    ensure!(
        0 < timed && timed < passed,
        "of {passed} packets of both versions of IP, {timed} of IPv4 were timed, half of the time"
    );
    drop(conversations);
    drop((servers, context));
    setup.finish()
}
