// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory that flows are in, and the cache that must not outlive them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};

use super::conversation::{Conversation, Servers};
use super::faults::begin_flows_from;
use super::lifecycle;
use super::pinned::Pinned;
use super::setup::{
    all_rules, client_address, original, rule, upstream, wait_for_flows, Setup, FAMILIES,
};
use super::sockets::{self, udp};
use super::GuestTest;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::monitor;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{UPSTREAM, UPSTREAM_PORT};

/// How long memory may take to come back: some grace periods, and a second for each halving.
const COMES_BACK: Duration = Duration::from_secs(30);

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "pool-follows-use",
            "memory of flows is used again, and given back when it is not needed",
            pool_follows_use,
        ),
        GuestTest::single(
            "pool-off",
            "without the pool, memory of flows is freed when they go",
            pool_off,
        ),
        GuestTest::single(
            "pool-keeps-to-nodes",
            "memory of flows is on the NUMA node whose CPU uses it, and comes back there",
            pool_keeps_to_nodes,
        )
        .on_debug()
        .on_two_cpus(),
        GuestTest::single(
            "cache-knows-flows",
            "a CPU's cache answers for flows, as long as they live and as it has its size",
            cache_knows_flows,
        ),
        GuestTest::single(
            "cache-forgets-the-dead",
            "flows come and go under a cache, and their memory with them",
            cache_forgets_the_dead,
        ),
        GuestTest::single(
            "close-while-table-grows",
            "no flow of a closed context is left when its table grew meanwhile",
            close_while_growing,
        )
        .on_debug(),
        GuestTest::single(
            "unload-at-once",
            "the module unloads at once after its last context, while memory is reclaimed",
            lifecycle::unload_at_once,
        ),
        GuestTest::single(
            "unload-after-expiry",
            "the module unloads while the work that has reclaimed expired flows is about to return",
            lifecycle::unload_after_expiry,
        )
        .on_debug(),
        GuestTest::single(
            "no-deprecated-queue",
            "memory is reclaimed by no work queue that the kernel warns of",
            lifecycle::no_deprecated_queue,
        ),
    ]
}

/// What the file `pool` says of IPv4.
#[derive(Clone, Copy, Debug)]
struct Pool {
    nodes: u64,
    idle: u64,
    waiting: u64,
    peak: u64,
    grace_periods: u64,
    fast: u64,
    slow: u64,
    freed: u64,
}

impl Pool {
    fn read(namespace: &Namespace) -> Result<Self> {
        let mut file = monitor::open(namespace, "pool")?.context("there is no file pool")?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let told = monitor::Stats::parse_pool(&text).with_context(|| format!("in {text:?}"))?;
        let v4 = |name: &str| told.total(&format!("v4_{name}"));
        Ok(Self {
            nodes: v4("nodes")?,
            idle: v4("idle")?,
            waiting: v4("waiting")?,
            peak: v4("peak")?,
            grace_periods: v4("grace_periods")?,
            fast: v4("alloc_fast")?,
            slow: v4("alloc_slow")?,
            freed: v4("freed")?,
        })
    }

    const fn in_use(&self) -> u64 {
        self.nodes - self.idle - self.waiting
    }

    /// Reads it again and again until `right` says so.
    fn wait(namespace: &Namespace, what: &str, right: impl Fn(&Self) -> bool) -> Result<Self> {
        let deadline = Instant::now() + COMES_BACK;
        loop {
            let pool = Self::read(namespace)?;
            if right(&pool) {
                return Ok(pool);
            }
            ensure!(Instant::now() < deadline, "{what} did not come: {pool:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn open<'a>(servers: &'a Servers<'_>, count: u32) -> Result<Vec<Conversation<'a>>> {
    (0..count)
        .map(|_| servers.converse(Protocol::Udp, Way::Forward))
        .collect()
}

fn pool_follows_use() -> Result<()> {
    const FLOWS: u64 = 100;
    let _pinned = Pinned::to(0)?;
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    let observer = setup.context(&[])?;
    let servers = Servers::new(&setup.layout, Family::V4)?;
    let context = setup.context(&all_rules())?;
    let mut all = open(&servers, FLOWS as u32)?;
    let full = Pool::read(router)?;
    ensure!(
        full.in_use() == FLOWS && full.peak >= FLOWS && full.freed == 0,
        "{FLOWS} flows: {full:?}"
    );
    ensure!(
        full.fast + full.slow == FLOWS && full.slow < FLOWS / 4,
        "expected most of {FLOWS} flows on the fast path: {full:?}"
    );
    // Flows are not freed while they are used.
    all.iter_mut().try_for_each(Conversation::say)?;
    drop(all);
    drop(context);
    let empty = Pool::wait(router, "reclaimed flows", |pool| {
        pool.in_use() == 0 && pool.waiting == 0
    })?;
    ensure!(
        empty.freed == FLOWS && empty.grace_periods > 0,
        "all flows are gone: {empty:?}"
    );

    let context = setup.context(&all_rules())?;
    let some = open(&servers, 5)?;
    let again = Pool::read(router)?;
    ensure!(
        again.in_use() == 5 && again.slow == full.slow && again.fast == full.fast + 5,
        "expected memory to be used again: {empty:?}, then {again:?}"
    );
    let shrunk = Pool::wait(router, "shrinking", |pool| pool.nodes < FLOWS / 3)?;
    ensure!(
        shrunk.in_use() == 5 && shrunk.peak == full.peak.max(again.peak),
        "shrinking must take what is idle only: {shrunk:?}"
    );
    drop(some);
    drop((context, observer));
    setup.finish()
}

fn pool_off() -> Result<()> {
    const FLOWS: u64 = 20;
    let setup = Setup::with_parameters(&[("perf_enable_pool", "0")])?;
    let router = &setup.layout.router;
    let observer = setup.context(&[])?;
    let servers = Servers::new(&setup.layout, Family::V4)?;
    let context = setup.context(&all_rules())?;
    let all = open(&servers, FLOWS as u32)?;
    let full = Pool::read(router)?;
    ensure!(
        full.nodes == FLOWS && full.slow == FLOWS && full.fast == 0 && full.idle == 0,
        "expected each flow from the allocator: {full:?}"
    );
    drop(all);
    drop(context);
    let empty = Pool::wait(router, "freed flows", |pool| pool.nodes == 0)?;
    ensure!(
        empty.freed == FLOWS && empty.peak == FLOWS,
        "all flows are gone: {empty:?}"
    );
    drop(observer);
    setup.finish()
}

/// A CPU of a NUMA node. Not by the node's own list, which for nodes that the kernel made up has
/// the CPUs of all that are one in truth.
fn cpu_of(node: usize) -> Result<usize> {
    let cpus = thread::available_parallelism()?.get();
    (0..cpus)
        .find(|cpu| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/node{node}")).exists())
        .with_context(|| format!("node {node} has no CPU"))
}

/// Packets are handled by the CPU that sends them, since their links are virtual.
fn pool_keeps_to_nodes() -> Result<()> {
    const FLOWS: u32 = 40;
    const NODES: usize = 2;
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    let observer = setup.context(&[])?;
    let servers = Servers::new(&setup.layout, Family::V4)?;
    for node in [1, 0] {
        let context = setup.context(&all_rules())?;
        let before: Vec<u64> = (0..NODES)
            .map(|of| idle_on(router, of))
            .collect::<Result<_>>()?;
        let pinned = Pinned::to(cpu_of(node)?)?;
        drop(open(&servers, FLOWS)?);
        drop(pinned);
        drop(context);
        Pool::wait(router, "reclaimed flows", |pool| {
            pool.in_use() == 0 && pool.waiting == 0
        })?;
        // In between, some may have been given back to the kernel, but none comes from there.
        for (of, before) in before.into_iter().enumerate() {
            let idle = idle_on(router, of)?;
            let right = if of == node {
                idle > u64::from(FLOWS) / 4
            } else {
                idle <= before
            };
            ensure!(
                right,
                "{FLOWS} flows on node {node}: {idle} are idle on node {of}, {before} were"
            );
        }
    }
    drop(observer);
    setup.finish()
}

fn idle_on(namespace: &Namespace, node: usize) -> Result<u64> {
    let mut file = monitor::open(namespace, "pool")?.context("there is no file pool")?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    monitor::Stats::parse_pool(&text)?.total(&format!("v4_idle_on_node{node}"))
}

/// Sets the size of the caches, and waits until that has been taken note of.
fn set_cache(size: u32) -> Result<()> {
    let path = "/sys/module/mutex_proxy/parameters/perf_cache_size";
    fs::write(path, size.to_string()).with_context(|| format!("cannot write {path}"))?;
    thread::sleep(Duration::from_millis(1500));
    Ok(())
}

fn cache_knows_flows() -> Result<()> {
    const TURNS: u64 = 10;
    let setup = Setup::with_parameters(&[("perf_cache_size", "64")])?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    for (size, expected) in [(64, true), (0, false), (4096, true), (1, true), (0, false)] {
        set_cache(size)?;
        for servers in &servers {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let mut conversation = servers.converse(protocol, Way::Forward)?;
                conversation.say()?;
                let before = context.stats()?;
                (0..TURNS).try_for_each(|_| conversation.say())?;
                let after = context.stats()?;
                let hits = after.cache_hits - before.cache_hits;
                let misses = after.cache_misses - before.cache_misses;
                // A packet each way each turn; each CPU has to look once, and what opens and
                // closes other connections comes in between.
                let right = match expected {
                    true => hits >= TURNS && misses <= TURNS / 2,
                    false => hits == 0 && misses == 0,
                };
                ensure!(
                    right,
                    "{size} flows a CPU, {protocol:?}: {hits} hits and {misses} misses in {TURNS} turns"
                );
            }
        }
    }
    drop(context);
    setup.finish()
}

/// The close reads how many buckets there are, and lets three seconds pass before it sweeps them.
fn close_while_growing() -> Result<()> {
    const FLOWS: u16 = 1_000;
    const FEW: &str = "16";
    // Tables grow when they are searched, which is 64 times in this: not before the test wants it.
    const NEVER: &str = "3600";
    const BEFORE_GROWTH: Duration = Duration::from_millis(500);
    let setup = Setup::with_parameters(&[
        ("debug_windows", "0,0,3000"),
        ("hash_buckets", FEW),
        ("gc_interval", NEVER),
    ])?;
    let observer = setup.context(&[])?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        begin_flows_from(&setup.layout.client, family, 10_000..10_000 + FLOWS)?;
    }
    wait_for_flows(&observer, 2 * u64::from(FLOWS))?;
    let few: usize = FEW.parse()?;
    let before = buckets(&setup.layout.router)?;
    ensure!(
        before.iter().all(|&count| count == few),
        "{before:?} buckets"
    );
    thread::scope(|scope| -> Result<()> {
        let closing = scope.spawn(|| drop(context));
        thread::sleep(BEFORE_GROWTH);
        setup.set("gc_interval", 1)?;
        closing
            .join()
            .map_err(|_| anyhow::anyhow!("the close panicked"))
    })?;
    let (stats, after) = (observer.stats()?, buckets(&setup.layout.router)?);
    ensure!(
        after.iter().any(|&count| count > few),
        "no table grew, so this shows nothing: {after:?} buckets"
    );
    ensure!(
        stats.flows_current == 0,
        "{} flows outlived their context: {stats:?}",
        stats.flows_current
    );
    drop(observer);
    setup.finish()
}

/// How many buckets the table of each IP version has, by the file `hash`.
fn buckets(namespace: &Namespace) -> Result<Vec<usize>> {
    let mut file = monitor::open(namespace, "hash")?.context("there is no file hash")?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ["v4_buckets ", "v6_buckets "]
        .into_iter()
        .map(|name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("no {name} in {text:?}"))?;
            Ok(line.trim().parse()?)
        })
        .collect()
}

fn cache_forgets_the_dead() -> Result<()> {
    const ROUNDS: u32 = 24;
    let other = UPSTREAM.socket(Family::V4, UPSTREAM_PORT + 1);
    let setup = Setup::with_parameters(&[("perf_cache_size", "16")])?;
    let servers = [
        udp(&setup.layout.server, upstream(Family::V4))?,
        udp(&setup.layout.server, other)?,
    ];
    let rules = [
        rule(Protocol::Udp, Family::V4),
        context::redirect(Protocol::Udp, original(Family::V4), other),
    ];
    let client = udp(
        setup.client(Way::Forward),
        client_address(Way::Forward, Family::V4),
    )?;
    let to = original(Family::V4);
    let observer = setup.context(&[])?;
    let mut sequence = 0;
    for round in 0..ROUNDS {
        // The memory of a flow is another's at once, or not a flow's any more.
        let pool = (round / 2 % 2).to_string();
        fs::write("/sys/module/mutex_proxy/parameters/perf_enable_pool", pool)?;
        let turn = round as usize % 2;
        let context = setup.context(&rules[turn..=turn])?;
        for _ in 0..4 {
            sequence += 1;
            let label = Label { flow: 1, sequence };
            let seen = sockets::send(&client, to, &servers[turn], label, 64)
                .with_context(|| format!("round {round}"))?;
            sockets::answer(&servers[turn], seen, &client, to, label, 64)?;
        }
        drop(context);
        if round % 3 == 0 {
            Pool::wait(&setup.layout.router, "reclaimed flows", |pool| {
                pool.in_use() == 0 && pool.waiting == 0
            })?;
        }
    }
    let stats = observer.stats()?;
    ensure!(
        stats.flows_created == u64::from(ROUNDS) && stats.cache_hits > u64::from(ROUNDS),
        "expected a flow each round, and hits: {stats:?}"
    );
    drop(observer);
    setup.finish()
}
