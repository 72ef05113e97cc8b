// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames that are wrong in as many ways as can be thought of, the same in every run: valid ones
//! with headers cut, lengths and options that lie, chains of extension headers, fragments without
//! ports, ICMP errors about nothing, and bytes at random.

use std::net::SocketAddr;

use anyhow::Result;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Packet};
use pnet::packet::tcp::TcpFlags;
use pnet::util;

use crate::frame;
use crate::frame::{Header, Hop, Segment, Transport, FRAME_MAX};
use mutexlab_model::random::Random;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// A packet socket takes no frame without anything behind the Ethernet header.
const FRAME_MIN: usize = ETHERNET + 1;

const ICMP: u8 = 1;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
/// IPv6 extension headers, and what is no such header.
const EXTENSIONS: [u8; 10] = [0, 43, FRAGMENT, 51, 59, 60, 60, 60, 135, 255];
/// Errors of ICMP: unreachable, source quench, redirect, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// Errors of ICMPv6, and one of no known type.
const ICMPV6_ERRORS: [u8; 5] = [1, 2, 3, 4, 100];
/// Payloads of the valid frames.
const PAYLOADS: [usize; 5] = [0, 1, 8, 100, 500];

/// A sequence of frames in one direction of some connections.
pub struct Mutator {
    random: Random,
    hop: Hop,
    valid: Vec<Valid>,
}

/// A valid frame, and the packet that an error in the same direction would quote.
struct Valid {
    frame: Vec<u8>,
    quoted: Vec<u8>,
}

impl Mutator {
    /// Frames over `hop`, most of them of connections between one of `pairs`, source first; all of
    /// one IP version.
    pub fn new(seed: u64, hop: Hop, pairs: &[(SocketAddr, SocketAddr)]) -> Result<Self> {
        let mut random = Random::new(seed);
        let mut valid = Vec::new();
        for &(source, destination) in pairs {
            let segment = Transport::Tcp(Segment {
                sequence: random.next() as u32,
                acknowledgement: random.next() as u32,
                flags: random.pick(&[
                    TcpFlags::SYN,
                    TcpFlags::SYN | TcpFlags::ACK,
                    TcpFlags::ACK,
                    TcpFlags::FIN | TcpFlags::ACK,
                    TcpFlags::RST,
                    0,
                    0xff,
                ]),
            });
            for transport in [Transport::Udp, segment] {
                let mut payload = vec![0; random.pick(&PAYLOADS)];
                random.fill(&mut payload);
                let build = |source, destination| -> Result<Vec<u8>> {
                    let header = Header {
                        source,
                        destination,
                        transport,
                    };
                    let mut buffer = [0; FRAME_MAX];
                    Ok(frame::build(&mut buffer, hop, &header, &payload)?.to_vec())
                };
                valid.push(Valid {
                    frame: build(source, destination)?,
                    quoted: build(destination, source)?.split_off(ETHERNET),
                });
            }
        }
        Ok(Self { random, hop, valid })
    }

    /// Puts the next frame into `frame`: 15 to [`FRAME_MAX`] bytes.
    pub fn next(&mut self, frame: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(self.valid.len());
        let valid = &self.valid[at];
        frame.clear();
        frame.extend(&valid.frame);
        match random.below(9) {
            // As it is, unless something is done to it below.
            0 => {}
            1 => lie_about_lengths(random, frame),
            2 | 3 => insert_options(random, frame),
            4 => cut_to_fragment(random, frame),
            5 => into_error(random, frame, &valid.quoted),
            6 => garble_transport(random, frame),
            7 => {
                frame.resize(ETHERNET + 1 + random.below(200), 0);
                random.fill(&mut frame[ETHERNET..]);
                // Most would end at the version already.
                let version = if is_v4(&valid.frame) { 0x45 } else { 0x60 };
                if !random.one_in(4) {
                    frame[ETHERNET] = version;
                }
            }
            _ => flip_bytes(random, frame),
        }
        if random.one_in(4) {
            flip_bytes(random, frame);
        }
        if random.one_in(4) {
            frame.truncate(FRAME_MIN + random.below(frame.len()));
        }
        frame.truncate(FRAME_MAX);
        // A wrong checksum would end most of them before they came to anything.
        if is_v4(frame) && !random.one_in(8) {
            correct_checksum(frame);
        }
        debug_assert_eq!(frame[..6], self.hop.destination.octets());
    }
}

fn is_v4(frame: &[u8]) -> bool {
    frame[12..ETHERNET] == [0x08, 0x00]
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(bytes) = frame.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

/// Length of the headers before the transport's in a frame without options.
fn headers(frame: &[u8]) -> usize {
    ETHERNET + if is_v4(frame) { IPV4 } else { IPV6 }
}

/// Where the protocol of what follows the IP header stands.
fn protocol_at(frame: &[u8]) -> usize {
    ETHERNET + if is_v4(frame) { 9 } else { 6 }
}

/// Tells the IP header how long the frame is.
fn correct_length(frame: &mut [u8]) {
    let length = frame.len() - ETHERNET;
    if is_v4(frame) {
        put(frame, ETHERNET + 2, length as u16);
    } else {
        put(frame, ETHERNET + 4, length.saturating_sub(IPV6) as u16);
    }
}

fn correct_checksum(frame: &mut [u8]) {
    let header = frame
        .get(ETHERNET)
        .map_or(0, |byte| usize::from(byte & 0xf) * 4);
    let checksum = match frame
        .get(ETHERNET..ETHERNET + header)
        .and_then(Ipv4Packet::new)
    {
        Some(ip) => ipv4::checksum(&ip),
        None => return,
    };
    put(frame, ETHERNET + 10, checksum);
}

fn lie_about_lengths(random: &mut Random, frame: &mut [u8]) {
    let length = match random.below(4) {
        0 => random.next() as u16,
        1 => random.below(60) as u16,
        2 => (frame.len() + random.below(20)) as u16,
        _ => u16::MAX,
    };
    let headers = headers(frame);
    match random.below(3) {
        0 => put(frame, ETHERNET + if is_v4(frame) { 2 } else { 4 }, length),
        // UDP's length; for TCP it is a part of the sequence number.
        1 => put(frame, headers + 4, length),
        // TCP's header length; for UDP behind it.
        _ => {
            if let Some(byte) = frame.get_mut(headers + 12) {
                *byte = random.next() as u8;
            }
        }
    }
}

/// Puts options or extension headers before the transport header.
fn insert_options(random: &mut Random, frame: &mut Vec<u8>) {
    let at = headers(frame);
    let mut options = Vec::new();
    if is_v4(frame) {
        let words = random.below(11);
        options.resize(4 * words, 0);
        random.fill(&mut options);
        // Sometimes nothing but "no operation", which is right.
        if random.one_in(2) {
            options.fill(1);
        }
        frame[ETHERNET] = 0x45 + words as u8;
    } else {
        let protocol = protocol_at(frame);
        let last = frame[protocol];
        let most = if random.one_in(8) { 40 } else { 4 };
        let count = 1 + random.below(most);
        frame[protocol] = random.pick(&EXTENSIONS);
        for number in 0..count {
            let units = random.pick(&[0, 0, 0, 1, 2, 7, 31]);
            let mut header = vec![0; 8 * (units + 1)];
            // PadN over the rest, which is right, or anything.
            if random.one_in(2) {
                random.fill(&mut header);
            } else {
                header[2] = 1;
                header[3] = (8 * units + 4) as u8;
            }
            let is_last = number + 1 == count;
            header[0] = if is_last {
                last
            } else {
                random.pick(&EXTENSIONS)
            };
            header[1] = if random.one_in(8) {
                random.next() as u8
            } else {
                units as u8
            };
            options.extend(header);
        }
    }
    frame.splice(at..at, options);
    frame.truncate(FRAME_MAX);
    if !random.one_in(4) {
        correct_length(frame);
    }
}

/// Makes it a fragment: the first, a later one, overlapping or not, with or without ports.
fn cut_to_fragment(random: &mut Random, frame: &mut Vec<u8>) {
    let headers = headers(frame);
    let offset = random.pick(&[0, 0, 1, 2, 8, 100, 0x1fff]);
    let more = u16::from(random.one_in(2));
    // Few, so that some of them meet.
    let identification = random.below(16) as u16;
    if is_v4(frame) {
        put(frame, ETHERNET + 4, identification);
        put(frame, ETHERNET + 6, more << 13 | offset);
    } else {
        let protocol = protocol_at(frame);
        let mut header = [frame[protocol], 0, 0, 0, 0, 0, 0, 0];
        put(&mut header, 2, offset << 3 | more);
        put(&mut header, 6, identification);
        frame[protocol] = FRAGMENT;
        frame.splice(headers..headers, header);
    }
    let cut = random.pick(&[1, 2, 4, 7, 8, 16, 24, 64]);
    if random.one_in(2) {
        frame.truncate(headers + cut);
    }
    correct_length(frame);
}

/// Makes it an ICMP error that quotes `quoted`, in part and perhaps garbled.
fn into_error(random: &mut Random, frame: &mut Vec<u8>, quoted: &[u8]) {
    let at = headers(frame);
    let v4 = is_v4(frame);
    let protocol = protocol_at(frame);
    frame[protocol] = if v4 { ICMP } else { ICMPV6 };
    frame.truncate(at);
    frame.push(random.pick(if v4 { &ICMP_ERRORS } else { &ICMPV6_ERRORS }));
    frame.push(random.below(16) as u8);
    frame.extend([0; 2]);
    frame.extend((random.next() as u32).to_be_bytes());
    let start = frame.len();
    let cut = match random.below(3) {
        0 => quoted.len(),
        1 => random.below(quoted.len()),
        _ => quoted.len().min(at - ETHERNET + 8),
    };
    frame.extend(&quoted[..cut]);
    if random.one_in(3) && frame.len() > start {
        let garbled = start + random.below(frame.len() - start);
        frame[garbled] = random.next() as u8;
    }
    correct_length(frame);
    let checksum = if v4 {
        util::checksum(&frame[at..], 1)
    } else {
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&frame[at..at + 16]);
            octets.into()
        };
        let (source, destination) = (address(ETHERNET + 8), address(ETHERNET + 24));
        let protocol = IpNextHeaderProtocols::Icmpv6;
        util::ipv6_checksum(&frame[at..], 1, &[], &source, &destination, protocol)
    };
    put(frame, at + 2, checksum);
}

/// Writes anything over the transport header's second half and behind it.
fn garble_transport(random: &mut Random, frame: &mut Vec<u8>) {
    let ports = headers(frame) + 4;
    let length = ports + random.below(80);
    frame.resize(length, 0);
    random.fill(&mut frame[ports..]);
    correct_length(frame);
}

fn flip_bytes(random: &mut Random, frame: &mut [u8]) {
    let end = frame.len().min(ETHERNET + 100);
    if end <= ETHERNET {
        return;
    }
    for _ in 0..=random.below(4) {
        let at = ETHERNET + random.below(end - ETHERNET);
        frame[at] = random.next() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet::util::MacAddr;

    const HOP: Hop = Hop {
        source: MacAddr(2, 0, 0, 0, 0, 1),
        destination: MacAddr(2, 0, 0, 0, 0, 2),
    };

    fn mutators() -> [Mutator; 2] {
        [
            ("192.0.2.1:1", "192.0.2.2:2"),
            ("[2001:db8::1]:1", "[2001:db8::2]:2"),
        ]
        .map(|(source, destination)| {
            let pair = (source.parse().unwrap(), destination.parse().unwrap());
            Mutator::new(7, HOP, &[pair; 8]).unwrap()
        })
    }

    #[test]
    fn frames_can_be_sent() {
        for mut mutator in mutators() {
            let mut frame = Vec::new();
            for _ in 0..100_000 {
                mutator.next(&mut frame);
                assert!((FRAME_MIN..=FRAME_MAX).contains(&frame.len()));
                assert_eq!(frame[..6], HOP.destination.octets());
            }
        }
    }

    #[test]
    fn most_are_malformed_in_many_ways_and_some_are_not() {
        for mut mutator in mutators() {
            let mut frame = Vec::new();
            let mut reasons = std::collections::BTreeMap::new();
            for _ in 0..10_000 {
                mutator.next(&mut frame);
                let reason = match frame::parse(&frame) {
                    Ok(_) => "none".to_owned(),
                    Err(reason) => format!("{reason:?}"),
                };
                *reasons.entry(reason).or_insert(0) += 1;
            }
            assert!((100..5_000).contains(&reasons["none"]), "{reasons:?}");
            for reason in ["Fragment", "Truncated(Network)", "Truncated(Transport)"] {
                assert!(reasons[reason] > 100, "{reason}: {reasons:?}");
            }
        }
    }

    #[test]
    fn two_runs_are_alike() {
        let [first, _] = mutators();
        let [second, _] = mutators();
        let frames = |mut mutator: Mutator| {
            let mut frame = Vec::new();
            let mut all = Vec::new();
            for _ in 0..1000 {
                mutator.next(&mut frame);
                all.push(frame.clone());
            }
            all
        };
        assert_eq!(frames(first), frames(second));
    }
}
