// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets that wait for each other in the hooks arrive complete, in order and rightly translated.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::conversation::Servers;
use super::pinned::Pinned;
use super::redirect::{switch_offloads, Offloads};
use super::setup::{
    all_rules, client_address, ensure_no_loss, original, rule, upstream, Setup, FAMILIES,
};
use super::sockets::{accept, connect, exchange_streams, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{Layout, CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::net::netem::Netem;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::monitor;
use mutexlab_guest::traffic::burst::BurstSocket;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{ROUTER_CLIENT_SIDE, UPSTREAM_PORT, WIRE_CLIENT};
use mutexlab_wire::frame::{Header, Hop, Transport};

/// Where the loaded module's parameters are.
const PARAMETERS: &str = "/sys/module/mutex_proxy/parameters";
/// Batching is on; and a packet may wait so long that no slow guest makes traffic thin.
const ON: [(&str, &str); 2] = [
    ("perf_enable_batching", "1"),
    ("perf_batch_timeout", "1000"),
];

/// How long packets gather before they come all at once.
const SLOT: Duration = Duration::from_millis(20);
/// Packets that do.
const BURST: u32 = 64;
/// Flows that they are of.
const FLOWS: u32 = 5;
/// The client's port in the first.
const FIRST_PORT: u16 = 21_000;
/// Bytes of a datagram.
const LENGTH: usize = 64;
/// Bytes of a TCP stream.
const STREAM: usize = 1 << 20;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "batch-sizes",
            "bursts of several flows arrive whole and in order, with batches of 1 to 64",
            every_size,
        )
        .on_debug(),
        GuestTest::single(
            "batch-thin",
            "packets that come alone never wait for others",
            thin_traffic,
        ),
        GuestTest::single(
            "batch-one-flow",
            "bursts of one flow wait for each other and arrive in order, on every kernel",
            one_flow,
        ),
        GuestTest::single(
            "batch-switched",
            "batching is switched while bursts pass, and no packet is lost or overtaken",
            switched_under_traffic,
        )
        .on_debug(),
        GuestTest::single(
            "batch-closed",
            "contexts close and the module unloads while packets wait",
            closed_under_traffic,
        )
        .on_debug(),
        GuestTest::single(
            "batch-behind",
            "packets that waited meet the later hooks, of filters and connection tracking",
            later_hooks,
        )
        .on_debug(),
        GuestTest::single(
            "batch-bulk",
            "TCP streams that come in bursts arrive whole",
            streams,
        )
        .on_debug(),
    ]
}

/// What the file `batch` says in total.
#[derive(Clone, Copy, Debug, Default)]
struct Batches {
    packets: u64,
    flushes: u64,
    full: u64,
}

impl Batches {
    fn read(layout: &Layout) -> Result<Self> {
        let mut text = String::new();
        monitor::open(&layout.router, "batch")?
            .context("there is no file batch")?
            .read_to_string(&mut text)?;
        let stats = monitor::Stats::parse_batch(&text)?;
        let mut counts: BTreeMap<_, _> = stats
            .counters
            .into_iter()
            .map(|counter| (counter.name, counter.total))
            .collect();
        let packets = counts.remove("packets").context("no line of packets")?;
        ensure!(
            counts.keys().eq(["full", "late", "order", "round"]),
            "the reasons are {counts:?}"
        );
        Ok(Self {
            packets,
            flushes: counts.values().sum(),
            full: counts["full"],
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            flushes: self.flushes - before.flushes,
            full: self.full - before.full,
        }
    }
}

fn set(parameter: &str, value: u32) -> Result<()> {
    let path = format!("{PARAMETERS}/{parameter}");
    fs::write(&path, value.to_string()).with_context(|| format!("cannot write {value} to {path}"))
}

/// Bursts of datagrams from the wire to the upstream, and what came of them.
struct Bursts {
    channel: Channel,
    server: UdpSocket,
    family: Family,
    // The next sequence number of each flow.
    next: u32,
    // A flow whose packets somebody drops.
    dropped: Option<u32>,
    _pinned: Pinned,
}

impl Bursts {
    fn new(setup: &Setup, family: Family) -> Result<Self> {
        Ok(Self {
            channel: Channel::open(&setup.layout.client, &CLIENT_LINK, family)?,
            server: udp(&setup.layout.server, upstream(family))?,
            family,
            next: 0,
            dropped: None,
            _pinned: Pinned::to(0)?,
        })
    }

    fn client(&self, flow: u32) -> SocketAddr {
        WIRE_CLIENT.socket(self.family, FIRST_PORT + flow as u16)
    }

    /// Sends a burst, of all flows in turns.
    fn send(&mut self) -> Result<()> {
        let hop = Hop {
            source: mac_of(WIRE_CLIENT),
            destination: mac_of(ROUTER_CLIENT_SIDE),
        };
        for number in self.next..self.next + BURST {
            let label = label(number);
            let header = Header {
                source: self.client(label.flow),
                destination: original(self.family),
                transport: Transport::Udp,
            };
            let mut request = [0; LENGTH];
            payload::fill(&mut request, Kind::Request, label);
            self.channel.send(hop, &header, &request)?;
        }
        Ok(())
    }

    /// Takes the burst in: all of it, and each flow's packets in order.
    fn receive(&mut self) -> Result<()> {
        let mut expected: BTreeMap<u32, Vec<Label>> = BTreeMap::new();
        for number in (self.next..self.next + BURST).rev() {
            let label = label(number);
            if self.dropped != Some(label.flow) {
                expected.entry(label.flow).or_default().push(label);
            }
        }
        self.next += BURST;
        let mut buffer = [0; 2048];
        while expected.values().any(|labels| !labels.is_empty()) {
            ensure!(
                is_readable(&self.server, PATIENCE)?,
                "these packets did not arrive: {expected:?}"
            );
            let (length, seen) = self.server.recv_from(&mut buffer)?;
            let message = &buffer[..length];
            let label = Label::of(message)
                .filter(|&label| {
                    length == LENGTH && payload::is_intact(message, Kind::Request, label)
                })
                .with_context(|| format!("a damaged packet of {length} bytes from {seen}"))?;
            let next = expected.get_mut(&label.flow).and_then(Vec::pop);
            ensure!(
                next == Some(label),
                "{label:?} came; expected {next:?} of this flow"
            );
            ensure!(
                seen == self.client(label.flow),
                "the upstream sees flow {} as {seen}",
                label.flow
            );
        }
        Ok(())
    }

    fn pass(&mut self) -> Result<()> {
        self.send()?;
        self.receive()
    }
}

fn label(number: u32) -> Label {
    Label {
        flow: number % FLOWS,
        sequence: number / FLOWS,
    }
}

/// How often bursts are sent until packets have waited for each other: 1024 packets do not wait at the most.
const PASSES: u32 = 20;

/// Makes packets from the client come in bursts.
fn gather(layout: &Layout) -> Result<()> {
    let slots = Netem {
        slot: SLOT,
        ..Netem::default()
    };
    slots.apply(&layout.client, &CLIENT_LINK)?;
    slots.apply(&layout.server, &SERVER_LINK)
}

fn every_size() -> Result<()> {
    let setup = Setup::with_parameters(&ON)?;
    switch_offloads(&setup, Offloads::Off)?;
    gather(&setup.layout)?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        let mut bursts = Bursts::new(&setup, family)?;
        bursts.pass().context("the first packets")?;
        for size in 1..=64 {
            set("perf_batch_size", size)?;
            let before = Batches::read(&setup.layout)?;
            // Where bursts were torn apart, since the machine is busy, many of the packets to come do not wait.
            let mut batches = Batches::default();
            for _ in 0..PASSES {
                bursts
                    .pass()
                    .with_context(|| format!("{family:?}, batches of {size}"))?;
                batches = Batches::read(&setup.layout)?.since(before);
                let full = !(2..=8).contains(&size) || batches.full > 0;
                if size == 1 || (batches.packets > batches.flushes && full) {
                    break;
                }
            }
            let most = batches.flushes * u64::from(size);
            ensure!(
                batches.packets <= most && (batches.packets > 0) == (size > 1),
                "batches of {size}: {batches:?}"
            );
            ensure!(
                size == 1 || batches.packets > batches.flushes,
                "no packet waited for another: {batches:?}"
            );
            ensure!(
                !(2..=8).contains(&size) || batches.full > 0,
                "no batch of {size} became full: {batches:?}"
            );
        }
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

fn thin_traffic() -> Result<()> {
    let setup = Setup::with_parameters(&ON)?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    for servers in &servers {
        // Not TCP: here all machines are one, and so an ACK comes in the round of what it answers.
        let mut conversation = servers.converse(Protocol::Udp, Way::Forward)?;
        for _ in 0..100 {
            conversation.say()?;
        }
    }
    let batches = Batches::read(&setup.layout)?;
    ensure!(
        batches.packets == 0,
        "packets waited, each for nobody: {batches:?}"
    );
    drop((servers, context));
    setup.finish()
}

fn one_flow() -> Result<()> {
    let setup = Setup::with_parameters(&ON)?;
    let context = setup.context(&all_rules())?;
    let hop = Hop {
        source: mac_of(WIRE_CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    };
    let mut sender = BurstSocket::open(&setup.layout)?;
    for family in FAMILIES {
        let server = udp(&setup.layout.server, upstream(family))?;
        let header = Header {
            source: WIRE_CLIENT.socket(family, FIRST_PORT),
            destination: original(family),
            transport: Transport::Udp,
        };
        for turn in 0..20 {
            let labels = (0..BURST).map(|number| Label {
                flow: 0,
                sequence: turn * BURST + number,
            });
            let mut burst = Vec::new();
            for label in labels.clone() {
                let mut request = [0; LENGTH];
                payload::fill(&mut request, Kind::Request, label);
                burst.extend(request);
            }
            sender.send(hop, &header, &burst, LENGTH)?;
            for label in labels {
                ensure!(
                    is_readable(&server, PATIENCE)?,
                    "{family:?}: {label:?} did not arrive"
                );
                let mut buffer = [0; 2048];
                let (length, seen) = server.recv_from(&mut buffer)?;
                ensure!(
                    length == LENGTH
                        && seen == header.source
                        && payload::is_intact(&buffer[..length], Kind::Request, label),
                    "{family:?}: {:?} came from {seen} instead of {label:?}",
                    Label::of(&buffer[..length])
                );
            }
        }
    }
    let batches = Batches::read(&setup.layout)?;
    ensure!(
        batches.packets > 2 * batches.flushes && batches.full > 0,
        "few packets waited for others: {batches:?}"
    );
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

fn switched_under_traffic() -> Result<()> {
    let setup = Setup::with_parameters(&ON)?;
    switch_offloads(&setup, Offloads::Off)?;
    gather(&setup.layout)?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        let mut bursts = Bursts::new(&setup, family)?;
        bursts.pass().context("the first packets")?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let switch = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (on, size) in [(0, 32), (1, 7), (1, 64), (0, 2), (1, 3)] {
                        set("perf_enable_batching", on)?;
                        set("perf_batch_size", size)?;
                        thread::sleep(Duration::from_millis(7));
                    }
                }
                anyhow::Ok(())
            });
            let result = (0..50).try_for_each(|_| bursts.pass());
            stop.store(true, Ordering::Relaxed);
            switch.join().expect("no panic while switching")?;
            result.with_context(|| format!("{family:?}"))
        })?;
    }
    let batches = Batches::read(&setup.layout)?;
    ensure!(
        batches.packets > batches.flushes,
        "no packet waited for another: {batches:?}"
    );
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

fn closed_under_traffic() -> Result<()> {
    let mut setup = Setup::with_parameters(&ON)?;
    let mut waited = 0;
    for turn in 0..6 {
        switch_offloads(&setup, Offloads::Off)?;
        gather(&setup.layout)?;
        for family in FAMILIES {
            let context = setup.context(&all_rules())?;
            let mut bursts = Bursts::new(&setup, family)?;
            bursts
                .pass()
                .with_context(|| format!("{family:?}, turn {turn}"))?;
            let again = bursts.pass();
            again.with_context(|| format!("{family:?}, turn {turn}, again"))?;
            waited += Batches::read(&setup.layout)?.packets;
            // Closed at all sorts of moments of the burst.
            bursts.send()?;
            thread::sleep(SLOT * turn / 6);
            drop(context);
        }
        setup.finish()?;
        setup = Setup::with_parameters(&ON)?;
    }
    ensure!(waited > 0, "no packet waited");
    setup.finish()
}

fn later_hooks() -> Result<()> {
    const DROPPED: u32 = 2;
    let setup = Setup::with_parameters(&ON)?;
    switch_offloads(&setup, Offloads::Off)?;
    gather(&setup.layout)?;
    // Behind the module's hook, whose work it sees, and behind connection tracking.
    let script = format!(
        "table inet behind {{
            chain coming {{
                type filter hook prerouting priority mangle; policy accept;
                ct state != untracked udp sport >= {FIRST_PORT} drop
                udp sport {} udp dport {UPSTREAM_PORT} drop
            }}
        }}",
        u32::from(FIRST_PORT) + DROPPED
    );
    nft::load(&setup.layout.router, &script)?;
    let context = setup.context(&all_rules())?;
    for family in FAMILIES {
        let mut bursts = Bursts::new(&setup, family)?;
        bursts.dropped = Some(DROPPED);
        for _ in 0..10 {
            bursts.pass().with_context(|| format!("{family:?}"))?;
        }
        ensure!(
            !is_readable(&bursts.server, SLOT * 5)?,
            "{family:?}: something came that should be dropped"
        );
    }
    let batches = Batches::read(&setup.layout)?;
    ensure!(
        batches.packets > batches.flushes,
        "no packet waited for another: {batches:?}"
    );
    drop(context);
    setup.finish()
}

fn streams() -> Result<()> {
    let setup = Setup::with_parameters(&ON)?;
    // Segments of their size: with offloads, few packets would come.
    switch_offloads(&setup, Offloads::Off)?;
    gather(&setup.layout)?;
    let context = setup.context(&FAMILIES.map(|family| rule(Protocol::Tcp, family)))?;
    for family in FAMILIES {
        let server = listen(&setup.layout.server, upstream(family))?;
        let from = client_address(Way::Forward, family);
        let client = connect(&setup.layout.client, from, original(family))?;
        let (accepted, _) = accept(&server)?;
        exchange_streams(&client, &accepted, STREAM).with_context(|| format!("{family:?}"))?;
    }
    ensure_no_loss(&context.stats()?)?;
    let batches = Batches::read(&setup.layout)?;
    ensure!(
        batches.packets > 2 * batches.flushes,
        "few packets waited for others: {batches:?}"
    );
    drop(context);
    setup.finish()
}
