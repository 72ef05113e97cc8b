// SPDX-License-Identifier: MIT OR Apache-2.0

//! What packets say of checksums and segmentation, at random: it does no harm.

use anyhow::{ensure, Context as _, Result};
use pnet::packet::tcp::TcpFlags;

use super::conversation::{of_every_sort, Servers};
use super::ends::FROM_CLIENT;
use super::setup::{all_rules, original, Setup, FAMILIES, PROTOCOLS};
use super::GuestTest;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::traffic::vnet_socket::{VnetHeader, VnetSocket};
use mutexlab_model::random::Random;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::WIRE_CLIENT;
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Segment, Transport, FRAME_MAX};

/// Frames in all.
const FRAMES: usize = 20_000;
/// Frames after which the connections beside are looked at.
const ROUND: usize = 500;
/// Client ports that the frames are of: few, so that most are of flows that are there.
const PORTS: usize = 16;
const FIRST_PORT: u16 = 22_000;
/// Chosen once.
const SEED: u64 = 20_261_129;
const ETHERNET: usize = 14;

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "offload-fields",
        "packets with checksums and segmentation left to a device in random ways do no harm",
        run,
    )
    .on_debug()]
}

fn run() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut beside = of_every_sort(&servers)?;
    let socket = VnetSocket::open(&setup.layout.client, &CLIENT_LINK)?;
    let mut random = Random::new(SEED);
    let mut taken = 0;
    for round in 0..FRAMES / ROUND {
        for _ in 0..ROUND {
            let frame = frame(&mut random)?;
            let fields = fields(&mut random, &frame);
            taken += usize::from(socket.try_send(&fields.before(&frame))?);
        }
        for conversation in &mut beside {
            conversation
                .say()
                .with_context(|| format!("beside, after round {round}, seed {SEED}"))?;
        }
    }
    let stats = context.stats()?;
    // Otherwise nothing of it came to the module's ears.
    ensure!(
        taken > FRAMES / 10 && stats.packets_original > FRAMES as u64 / 20,
        "the kernel took {taken} of {FRAMES} frames, and the module translated too few: {stats:?}"
    );
    drop(beside);
    drop((servers, context));
    setup.finish()
}

/// A packet of one of a few flows, sometimes longer than a device sends at once.
fn frame(random: &mut Random) -> Result<Vec<u8>> {
    let family = random.pick(&FAMILIES);
    let header = Header {
        source: WIRE_CLIENT.socket(family, FIRST_PORT + random.below(PORTS) as u16),
        destination: original(family),
        transport: match random.pick(&PROTOCOLS) {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp => Transport::Tcp(Segment {
                sequence: random.below(4) as u32 * 1000,
                acknowledgement: 0,
                flags: random.pick(&[TcpFlags::SYN, TcpFlags::ACK]),
            }),
        },
    };
    let mut buffer = [0; FRAME_MAX];
    let payload = vec![0xa5; random.below(1400)];
    let mut frame = frame::build(&mut buffer, FROM_CLIENT, &header, &payload)?.to_vec();
    if random.one_in(3) {
        frame.extend(vec![0x5a; random.below(20_000)]);
        let length = frame.len() - ETHERNET;
        let (at, length) = match family {
            Family::V4 => (ETHERNET + 2, length),
            Family::V6 => (ETHERNET + 4, length - 40),
        };
        frame[at..at + 2].copy_from_slice(&u16::try_from(length)?.to_be_bytes());
    }
    Ok(frame)
}

/// Fields that are right for some packets, or nearly so, or wrong for all.
fn fields(random: &mut Random, frame: &[u8]) -> VnetHeader {
    let is_v4 = frame[12] == 8;
    let transport = ETHERNET + if is_v4 { 20 } else { 40 };
    let near = |random: &mut Random, value: usize| match random.below(4) {
        0 => value.saturating_sub(random.below(9)) as u16,
        1 => (value + random.below(64)) as u16,
        2 => random.below(frame.len()) as u16,
        _ => value as u16,
    };
    VnetHeader {
        flags: random.pick(&[0, 1, 1, 1, 2, 3]),
        // None, TCPv4, UDP, TCPv6, UDP_L4, and the first two with ECN.
        gso_type: random.pick(&[0, 0, 1, 3, 4, 5, 5, 0x81, 0x84]),
        header_length: near(random, transport + 8),
        gso_size: near(random, 500),
        checksum_start: near(random, transport),
        checksum_offset: random.pick(&[6, 6, 16, 16, 0, 2, 40]),
    }
}
