// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fragments of datagrams in orders and sizes that are rarely seen.

use std::net::UdpSocket;

use anyhow::{ensure, Context as _, Result};
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;

use super::ends::{frame, Ends};
use super::redirector::{beside_nft, Redirector};
use super::setup::{all_rules, original, upstream, Setup, FAMILIES};
use super::sockets::{ensure_silent, is_readable, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::WIRE_CLIENT;
use mutexlab_wire::frame::{Header, Transport};

const ETHERNET: usize = 14;
/// Bytes of a datagram's payload, and with its header.
const LENGTH: usize = 1392;
const WHOLE: usize = LENGTH + 8;
/// The client's port.
const PORT: u16 = 21_500;

/// How a datagram is cut: where pieces begin and end.
struct Cut {
    what: &'static str,
    pieces: &'static [(usize, usize)],
    arrives: bool,
}

const CUTS: [Cut; 7] = [
    Cut {
        what: "in order",
        pieces: &[(0, 704), (704, WHOLE)],
        arrives: true,
    },
    Cut {
        what: "last first",
        pieces: &[(704, WHOLE), (0, 704)],
        arrives: true,
    },
    Cut {
        what: "three, the middle one last",
        pieces: &[(0, 504), (1008, WHOLE), (504, 1008)],
        arrives: true,
    },
    Cut {
        what: "one twice",
        pieces: &[(0, 704), (0, 704), (704, WHOLE)],
        arrives: true,
    },
    Cut {
        what: "the first of 8 bytes",
        pieces: &[(0, 8), (8, WHOLE)],
        arrives: true,
    },
    Cut {
        what: "overlapping",
        pieces: &[(0, 704), (696, WHOLE)],
        arrives: false,
    },
    // An atomic fragment (RFC 6946); with IPv4 just a packet.
    Cut {
        what: "one piece",
        pieces: &[(0, WHOLE)],
        arrives: true,
    },
];

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    beside_nft(
        "fragments-odd",
        "fragments arrive in any order, twice, or of 8 bytes, and overlapping ones do not",
        run,
    )
    .into()
}

fn run(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let redirection = redirector.redirect(&setup, &all_rules())?;
    for family in FAMILIES {
        let mut ends = Ends::open(&setup, family)?;
        let server = udp(&setup.layout.server, upstream(family))?;
        for (flow, cut) in (0_u16..).zip(&CUTS) {
            // The first one of a flow, and others.
            for sequence in 0..3 {
                let label = Label {
                    flow: flow.into(),
                    sequence,
                };
                let header = Header {
                    source: WIRE_CLIENT.socket(family, PORT + flow),
                    destination: original(family),
                    transport: Transport::Udp,
                };
                let mut payload = [0; LENGTH];
                payload::fill(&mut payload, Kind::Request, label);
                let whole = frame(&header, &payload)?;
                let id = 100 * flow + sequence as u16;
                for &piece in cut.pieces {
                    ends.send_frame(&fragment(&whole, family, piece, id)?)?;
                }
                let what = || format!("{family:?}, {}, datagram {sequence}", cut.what);
                if cut.arrives {
                    take(&server, &payload).with_context(what)?;
                } else {
                    ensure_silent(&server, "the upstream").with_context(what)?;
                }
            }
        }
    }
    drop(redirection);
    setup.finish()
}

fn take(server: &UdpSocket, payload: &[u8]) -> Result<()> {
    ensure!(is_readable(server, PATIENCE)?, "it did not arrive");
    let mut buffer = [0; 2 * LENGTH];
    let length = server.recv(&mut buffer)?;
    ensure!(
        &buffer[..length] == payload,
        "it arrived with other content"
    );
    Ok(())
}

/// The bytes from `start` to `end` of what `whole` has after its IP header, as a fragment.
fn fragment(
    whole: &[u8],
    family: Family,
    (start, end): (usize, usize),
    id: u16,
) -> Result<Vec<u8>> {
    const FRAGMENT: u8 = 44;
    let network = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    let (headers, body) = whole.split_at(ETHERNET + network);
    let more = end < body.len();
    let piece = body.get(start..end).context("no such piece")?;
    let mut fragment = headers.to_vec();
    match family {
        Family::V4 => {
            let mut ip =
                MutableIpv4Packet::new(&mut fragment[ETHERNET..]).context("no IPv4 header")?;
            ip.set_total_length((network + piece.len()) as u16);
            ip.set_identification(id);
            ip.set_flags(u8::from(more) * ipv4::Ipv4Flags::MoreFragments);
            ip.set_fragment_offset((start / 8) as u16);
            let checksum = ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(checksum);
        }
        Family::V6 => {
            let mut ip =
                MutableIpv6Packet::new(&mut fragment[ETHERNET..]).context("no IPv6 header")?;
            let next = ip.get_next_header();
            ip.set_next_header(pnet::packet::ip::IpNextHeaderProtocol(FRAGMENT));
            ip.set_payload_length((8 + piece.len()) as u16);
            // RFC 8200, section 4.5.
            fragment.extend([next.0, 0]);
            fragment.extend((start as u16 | u16::from(more)).to_be_bytes());
            fragment.extend(u32::from(id).to_be_bytes());
        }
    }
    fragment.extend(piece);
    Ok(fragment)
}
