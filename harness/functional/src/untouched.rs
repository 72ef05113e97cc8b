// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets that no rule speaks of, or that cannot be read, pass as they came.

use anyhow::{ensure, Context, Result};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::TcpFlags;

use super::setup::{Setup, FAMILIES, PROTOCOLS};
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    Host, CLIENT_PORT, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, UPSTREAM_PORT, WIRE_CLIENT,
    WIRE_ORIGINAL, WIRE_UPSTREAM,
};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Segment, Transport, FRAME_MAX};

const ETHERNET: usize = 14;

/// A packet that must pass untouched.
struct Sample {
    what: &'static str,
    to: Host,
    /// The frame from the client.
    frame: Vec<u8>,
}

/// Sends packets of many sorts past rules that match none of them.
pub fn unmatched_pass() -> Result<()> {
    let setup = Setup::new()?;
    let rules = PROTOCOLS.into_iter().flat_map(|protocol| {
        FAMILIES.map(|family| {
            context::redirect(
                protocol,
                WIRE_ORIGINAL.socket(family, ORIGINAL_PORT),
                WIRE_UPSTREAM.socket(family, UPSTREAM_PORT),
            )
        })
    });
    let context = setup.context(&rules.collect::<Vec<_>>())?;
    for family in FAMILIES {
        let mut client = Channel::open(&setup.layout.client, &CLIENT_LINK, family)?;
        let mut server = Channel::open(&setup.layout.server, &SERVER_LINK, family)?;
        for sample in samples(family)? {
            let what = sample.what;
            client
                .send_frame(&sample.frame)
                .with_context(|| format!("{what}, {family:?}"))?;
            let arrived = server
                .receive(&[mac_of(sample.to)])?
                .with_context(|| format!("{what}, {family:?}: did not arrive"))?;
            let (arrived, expected) = (&arrived[ETHERNET..], forwarded(&sample.frame, family)?);
            ensure!(
                arrived == expected,
                "{what}, {family:?}: expected {expected:02x?}, got {arrived:02x?}"
            );
        }
    }
    let stats = context.stats()?;
    ensure!(
        stats.flows_created == stats.flows_direct
            && stats.packets_original == 0
            && stats.packets_reply == 0,
        "expected no packet redirected, got {stats:?}"
    );
    let cut_short = 2 * FAMILIES.len() as u64;
    ensure!(
        stats.malformed == cut_short,
        "expected {cut_short} packets counted as malformed, got {}",
        stats.malformed
    );
    drop(context);
    setup.finish()
}

fn samples(family: Family) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let syn = Transport::Tcp(Segment {
        sequence: 1,
        acknowledgement: 0,
        flags: TcpFlags::SYN,
    });
    let stray = Transport::Tcp(Segment {
        sequence: 7,
        acknowledgement: 9,
        flags: TcpFlags::ACK | TcpFlags::URG | TcpFlags::PSH,
    });
    for (what, to, port, transport) in [
        (
            "UDP to another port",
            WIRE_ORIGINAL,
            ORIGINAL_PORT + 1,
            Transport::Udp,
        ),
        (
            "UDP to another address",
            WIRE_UPSTREAM,
            ORIGINAL_PORT,
            Transport::Udp,
        ),
        ("SYN to another port", WIRE_ORIGINAL, ORIGINAL_PORT + 1, syn),
        ("SYN to another address", WIRE_UPSTREAM, ORIGINAL_PORT, syn),
        (
            "odd segment to another port",
            WIRE_ORIGINAL,
            ORIGINAL_PORT + 1,
            stray,
        ),
    ] {
        for length in [0, 1, 333, 1000] {
            let header = Header {
                source: WIRE_CLIENT.socket(family, CLIENT_PORT),
                destination: to.socket(family, port),
                transport,
            };
            let mut buffer = [0; FRAME_MAX];
            let frame = frame::build(&mut buffer, hop(), &header, &vec![0xa5; length])?.to_vec();
            samples.push(Sample { what, to, frame });
        }
    }
    // To the very address and port of the rules, but not readable as such.
    let ports = [CLIENT_PORT.to_be_bytes(), ORIGINAL_PORT.to_be_bytes()].concat();
    for (what, protocol, length) in [
        ("UDP header cut short", IpNextHeaderProtocols::Udp, 4),
        ("TCP header cut short", IpNextHeaderProtocols::Tcp, 12),
        ("another protocol", IpNextHeaderProtocols::Sctp, 64),
    ] {
        let mut body = vec![0; length];
        body[..4].copy_from_slice(&ports);
        samples.push(Sample {
            what,
            to: WIRE_ORIGINAL,
            frame: with_body(family, protocol, &body)?,
        });
    }
    Ok(samples)
}

fn hop() -> Hop {
    Hop {
        source: mac_of(WIRE_CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    }
}

/// A frame to [`WIRE_ORIGINAL`] with the bytes `body` after the IP header.
pub fn with_body(family: Family, protocol: IpNextHeaderProtocol, body: &[u8]) -> Result<Vec<u8>> {
    // An empty UDP datagram has the headers but for the protocol and the length.
    let header = Header {
        source: WIRE_CLIENT.socket(family, CLIENT_PORT),
        destination: WIRE_ORIGINAL.socket(family, ORIGINAL_PORT),
        transport: Transport::Udp,
    };
    let mut buffer = [0; FRAME_MAX];
    let network = match family {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    frame::build(&mut buffer, hop(), &header, &[])?;
    let mut frame = buffer[..ETHERNET + network].to_vec();
    match family {
        Family::V4 => {
            let mut ip = MutableIpv4Packet::new(&mut frame[ETHERNET..]).context("no IPv4")?;
            ip.set_next_level_protocol(protocol);
            ip.set_total_length((network + body.len()) as u16);
            let checksum = ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(checksum);
        }
        Family::V6 => {
            let mut ip = MutableIpv6Packet::new(&mut frame[ETHERNET..]).context("no IPv6")?;
            ip.set_next_header(protocol);
            ip.set_payload_length(body.len() as u16);
        }
    }
    frame.extend(body);
    Ok(frame)
}

/// What a router that changes nothing makes of the frame's IP packet: one hop less to live.
pub fn forwarded(frame: &[u8], family: Family) -> Result<Vec<u8>> {
    let mut packet = frame[ETHERNET..].to_vec();
    match family {
        Family::V4 => {
            let mut ip = MutableIpv4Packet::new(&mut packet).context("no IPv4")?;
            ip.set_ttl(ip.get_ttl() - 1);
            let checksum = ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(checksum);
        }
        Family::V6 => {
            let mut ip = MutableIpv6Packet::new(&mut packet).context("no IPv6")?;
            ip.set_hop_limit(ip.get_hop_limit() - 1);
        }
    }
    Ok(packet)
}
