// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets that wait in a queue for a program (nf_queue), before the module's hooks and behind them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use netlink_sys::{Socket, SocketAddr};

use super::super::conversation::pass;
use super::super::later_hooks::NOTICED;
use super::super::setup::{client_address, ensure_no_loss, original, Setup, FAMILIES, PROTOCOLS};
use super::super::sockets::{self, accept, connect, is_readable, listen, udp};
use super::super::GuestTest;
use super::fate::{Outcome, Trace};
use super::lab::{beside_nft, each, server_on_second, Datagram, Lab, Redirect};
use super::policy::{answer, send, FIRST};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{ORIGINAL_PORT, ROUTER_CLIENT_SIDE, UPSTREAM_PORT};

/// Datagrams, each answered.
const ROUNDS: usize = 3;
/// Connections to the router, of each protocol.
const SOCKETS: u32 = 10;
/// How long a packet may take through the router and all its queues.
const QUIET: Duration = Duration::from_millis(300);
/// How often it is asked whether to go on.
const POLL: Duration = Duration::from_millis(20);

// linux/netfilter/nfnetlink.h and nfnetlink_queue.h.
const NETLINK_NETFILTER: isize = 12;
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const ATTRIBUTE_PACKET_HEADER: u16 = 1;
const ATTRIBUTE_VERDICT: u16 = 2;
const ATTRIBUTE_COMMAND: u16 = 1;
const ATTRIBUTE_PARAMETERS: u16 = 2;
const BIND: u8 = 1;
const COPY_META: u8 = 1;
const ACCEPT: u32 = 1;
/// Length of the headers of netlink and of nfnetlink.
const HEADERS: usize = 16 + 4;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "beside-queue",
            "redirected packets may wait for a program before and behind the module, as with nft",
            run,
        )
        .on_debug(),
        GuestTest::single(
            "queue-to-router",
            "first packets that waited for a program before the module reach sockets of the router",
            to_router,
        )
        .on_debug(),
        GuestTest::single(
            "queue-strict-source",
            "answers that meet later hooks pass a strict rp_filter as the upstream's, as with nft",
            strict_source,
        )
        .on_debug(),
    ]
}

fn run() -> Result<()> {
    let cases = FAMILIES.into_iter().flat_map(|family| {
        [
            "prerouting priority -300",
            "prerouting priority -150",
            "forward priority 0",
        ]
        .map(|hook| (family, hook))
    });
    each(
        cases,
        |case| format!("{case:?}"),
        |&(family, hook)| {
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| {
                    lab.nft(&format!(
                        "table inet waiting {{
    chain passing {{
        type filter hook {hook};
        udp sport 40000-40099 queue num 0
        udp dport 40000-40099 queue num 0
    }}
}}
"
                    ))?;
                    let program = Program::new(&lab.layout().router)?;
                    // What waits is overtaken.
                    lab.wait_for_silence(QUIET);
                    let passed = program.run(|| ask(lab, trace))?;
                    ensure!(passed == 2 * ROUNDS, "{passed} packets waited in the queue");
                    Ok(())
                },
                |trace| trace.ensure(&[FIRST, Outcome::Answered].repeat(ROUNDS)),
            )
        },
    )
}

/// What a program lets pass goes on in its task, where softirqs come in between, and not in a softirq itself: the
/// kernel's checkers see whether what a socket's queue has to be protected from is.
fn to_router() -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::new()?;
        let router = &setup.layout.router;
        let upstream = ROUTER_CLIENT_SIDE.socket(family, UPSTREAM_PORT);
        let rules =
            PROTOCOLS.map(|protocol| context::redirect(protocol, original(family), upstream));
        let context = setup.context(&rules)?;
        let ports = ORIGINAL_PORT;
        nft::load(
            router,
            &format!(
                "table inet waiting {{
    chain passing {{
        type filter hook prerouting priority -300;
        iifname \"clients\" udp dport {ports} queue num 0
        iifname \"clients\" tcp dport {ports} queue num 0
    }}
}}
"
            ),
        )?;
        let program = Program::new(router)?;
        let server = udp(router, upstream)?;
        let listener = listen(router, upstream)?;
        let from = client_address(Way::Forward, family);
        let client = &setup.layout.client;
        let passed = program.run(|| {
            for turn in 0..SOCKETS {
                let label = Label {
                    flow: turn,
                    sequence: 0,
                };
                let socket = udp(client, from)?;
                let seen = sockets::send(&socket, original(family), &server, label, 64)?;
                sockets::answer(&server, seen, &socket, original(family), label, 64)?;
                let stream = connect(client, from, original(family))?;
                let (accepted, _) = accept(&listener)?;
                pass(&stream, &accepted, Kind::Request, label)?;
                pass(&accepted, &stream, Kind::Answer, label)?;
            }
            Ok(())
        })?;
        // Each connection's first packet at least.
        ensure!(
            passed >= 2 * SOCKETS as usize,
            "{family:?}: only {passed} packets waited in the queue"
        );
        ensure_no_loss(&context.stats()?)?;
        drop(context);
        setup.finish()?;
    }
    Ok(())
}

/// The original's way is not the one by which the upstream's answers come; these have to be checked as the
/// upstream's, whoever looks at them behind the module.
fn strict_source() -> Result<()> {
    // IPv6 has no such check.
    let family = Family::V4;
    const MANGLE: &str = "    chain looking {
        type filter hook prerouting priority mangle;
        counter
    }
";
    const QUEUE: &str = "    chain waiting {
        type filter hook prerouting priority -100;
        udp sport 40000-40099 queue num 0
        udp dport 40000-40099 queue num 0
    }
";
    let both = [MANGLE, QUEUE].concat();
    each(
        [
            ("mangle", MANGLE, 0),
            ("mangle and a queue", &both, 2 * ROUNDS),
        ],
        |&(name, ..)| name.to_owned(),
        |&(_, chains, waiting)| {
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| {
                    let (to, gateway) = (original(family).ip(), server_on_second(family));
                    lab.ip(&format!("route add {to} via {gateway} dev second\n"))?;
                    let router = &lab.layout().router;
                    router.set_sysctl("ipv4/conf/servers/rp_filter", "1")?;
                    lab.nft(&format!("table ip later {{\n{chains}}}\n"))?;
                    // Packets of flows that have begun leave the fast path by then.
                    thread::sleep(NOTICED);
                    let program = Program::new(&lab.layout().router)?;
                    lab.wait_for_silence(QUIET);
                    let passed = program.run(|| ask(lab, trace))?;
                    ensure!(
                        passed >= waiting,
                        "{passed} packets waited in the queue, expected {waiting}"
                    );
                    Ok(())
                },
                |trace| trace.ensure(&[FIRST, Outcome::Answered].repeat(ROUNDS)),
            )
        },
    )
}

/// Sends a datagram and answers it, again and again.
fn ask(lab: &mut Lab, trace: &mut Trace) -> Result<()> {
    let datagram = Datagram::of(Way::Forward, 0);
    for _ in 0..ROUNDS {
        send(lab, trace, &datagram, 1)?;
        answer(lab, trace, &datagram)?;
    }
    Ok(())
}

/// Lets pass what is in the queue 0 of a namespace.
struct Program(Socket);

impl Program {
    fn new(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| {
            let mut socket = Socket::new(NETLINK_NETFILTER).context("cannot open a socket")?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        })?;
        let program = Self(socket);
        program.tell(CONFIG, ATTRIBUTE_COMMAND, &[BIND, 0, 0, 0])?;
        program.tell(CONFIG, ATTRIBUTE_PARAMETERS, &[0, 0, 0, 0, COPY_META])?;
        Ok(program)
    }

    fn tell(&self, message: u16, attribute: u16, content: &[u8]) -> Result<()> {
        const REQUEST: u16 = 1;
        let length = 4 + content.len();
        let total = HEADERS + length.next_multiple_of(4);
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(total)?.to_ne_bytes());
        bytes.extend(message.to_ne_bytes());
        bytes.extend(REQUEST.to_ne_bytes());
        // Sequence and port; family, version and the queue's number.
        bytes.extend([0; 8 + 4]);
        bytes.extend(u16::try_from(length)?.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(total, 0);
        self.0.send(&bytes, 0).context("cannot tell the queue")?;
        Ok(())
    }

    /// Serves the queue while `work` runs, and says how many packets there were.
    fn run(&self, work: impl FnOnce() -> Result<()>) -> Result<usize> {
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if is_readable(&self.0, POLL)? {
                        let (message, _) = self.0.recv_from_full()?;
                        let verdict = [ACCEPT.to_be_bytes(), packet_id(&message)?].concat();
                        self.tell(VERDICT, ATTRIBUTE_VERDICT, &verdict)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            });
            let result = work();
            stop.store(true, Ordering::Relaxed);
            let served = server.join().map_err(|_| anyhow!("the program panicked"))?;
            result.and(served)
        })?;
        Ok(count.into_inner())
    }
}

/// The number of the packet that a message is about.
fn packet_id(message: &[u8]) -> Result<[u8; 4]> {
    let kind = message.get(4..6).context("cut short")?;
    ensure!(kind == PACKET.to_ne_bytes(), "not a packet: {message:02x?}");
    let mut rest = message.get(HEADERS..).context("cut short")?;
    while let Some((&[a, b, c, d], content)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == ATTRIBUTE_PACKET_HEADER {
            let id = content.first_chunk().context("cut short")?;
            return Ok(*id);
        }
        rest = rest
            .get(length.next_multiple_of(4).max(4)..)
            .context("cut short")?;
    }
    bail!("a packet without a number: {message:02x?}")
}
