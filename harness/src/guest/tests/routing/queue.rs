// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets that wait in a queue for a program (nf_queue), before the module's hooks and behind them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use netlink_sys::{Socket, SocketAddr};

use super::super::setup::FAMILIES;
use super::super::sockets::is_readable;
use super::super::GuestTest;
use super::fate::Outcome;
use super::lab::{beside_nft, each, Datagram, Redirect};
use super::policy::{answer, send, FIRST};
use crate::guest::namespace::Namespace;
use crate::guest::protocol::Way;

/// Datagrams, each answered.
const ROUNDS: usize = 3;
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

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "beside-queue",
        "redirected packets may wait for a program before and behind the module, as with nft",
        run,
    )
    .on_debug()]
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
                    let passed = program.run(|| {
                        let datagram = Datagram::of(Way::Forward, 0);
                        for _ in 0..ROUNDS {
                            send(lab, trace, &datagram, 1)?;
                            answer(lab, trace, &datagram)?;
                        }
                        Ok(())
                    })?;
                    ensure!(passed == 2 * ROUNDS, "{passed} packets waited in the queue");
                    Ok(())
                },
                |trace| trace.ensure(&[FIRST, Outcome::Answered].repeat(ROUNDS)),
            )
        },
    )
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
