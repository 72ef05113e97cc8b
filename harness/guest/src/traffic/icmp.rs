// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors of ICMP and ICMPv6 as frames, built and taken apart with pnet.

use std::net::IpAddr;

use anyhow::{bail, ensure, Context, Result};
use pnet::packet::ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::util;

use mutexlab_model::traffic::Family;
use mutexlab_wire::frame::Hop;

const ETHERNET: usize = EthernetPacket::minimum_packet_size();
const IPV4: usize = Ipv4Packet::minimum_packet_size();
const IPV6: usize = Ipv6Packet::minimum_packet_size();
/// Length of a message's header; the packet that it is about follows.
const HEADER: usize = 8;
/// Which 16-bit word of a message its checksum is.
const CHECKSUM_WORD: usize = 1;
const TTL: u8 = 64;

/// A message that reports an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who sends it.
    pub from: IpAddr,
    /// To whom, of the same IP version.
    pub to: IpAddr,
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The packet that it is about, from its IP header on, or the beginning of it.
    pub about: Vec<u8>,
}

impl Report {
    /// The types of errors that a version of IP has for a destination that cannot be reached.
    pub const fn unreachable(family: Family) -> u8 {
        match family {
            Family::V4 => 3,
            Family::V6 => 1,
        }
    }

    /// The message as a frame with right checksums.
    pub fn build(&self, hop: Hop) -> Result<Vec<u8>> {
        let mut message = vec![self.kind, self.code, 0, 0, 0, 0, 0, 0];
        message.extend(&self.about);
        let checksum = checksum(&message, self.from, self.to)?;
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let length = u16::try_from(message.len())?;
        let (ether_type, header) = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0; IPV4];
                let mut ip = MutableIpv4Packet::new(&mut header).context("no room for IPv4")?;
                ip.set_version(4);
                ip.set_header_length((IPV4 / 4) as u8);
                ip.set_total_length(IPV4 as u16 + length);
                ip.set_ttl(TTL);
                ip.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
                ip.set_source(from);
                ip.set_destination(to);
                let checksum = ipv4::checksum(&ip.to_immutable());
                ip.set_checksum(checksum);
                (EtherTypes::Ipv4, header)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0; IPV6];
                let mut ip = MutableIpv6Packet::new(&mut header).context("no room for IPv6")?;
                ip.set_version(6);
                ip.set_payload_length(length);
                ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
                ip.set_hop_limit(TTL);
                ip.set_source(from);
                ip.set_destination(to);
                (EtherTypes::Ipv6, header)
            }
            (from, to) => bail!("{from} and {to} are of two versions"),
        };
        let mut frame = vec![0; ETHERNET];
        let mut ethernet =
            MutableEthernetPacket::new(&mut frame).context("no room for Ethernet")?;
        ethernet.set_source(hop.source);
        ethernet.set_destination(hop.destination);
        ethernet.set_ethertype(ether_type);
        frame.extend(header);
        frame.extend(message);
        Ok(frame)
    }

    /// Takes a frame apart and checks it, but for the packet that the message is about.
    pub fn parse(frame: &[u8]) -> Result<Self> {
        let ethernet = EthernetPacket::new(frame).context("no Ethernet header")?;
        let packet = &frame[ETHERNET..];
        let (from, to, protocol, message): (IpAddr, IpAddr, _, _) = match ethernet.get_ethertype() {
            EtherTypes::Ipv4 => {
                let ip = Ipv4Packet::new(packet).context("no IPv4 header")?;
                ensure!(
                    ipv4::checksum(&ip) % u16::MAX == ip.get_checksum() % u16::MAX,
                    "the IPv4 header's checksum is wrong: {packet:02x?}"
                );
                let start = 4 * usize::from(ip.get_header_length());
                let message = packet.get(start..usize::from(ip.get_total_length()));
                let protocol = ip.get_next_level_protocol();
                (
                    ip.get_source().into(),
                    ip.get_destination().into(),
                    protocol,
                    message,
                )
            }
            EtherTypes::Ipv6 => {
                let ip = Ipv6Packet::new(packet).context("no IPv6 header")?;
                let message = packet.get(IPV6..IPV6 + usize::from(ip.get_payload_length()));
                let protocol = ip.get_next_header();
                (
                    ip.get_source().into(),
                    ip.get_destination().into(),
                    protocol,
                    message,
                )
            }
            other => bail!("not IP, but {other}"),
        };
        let expected = match from {
            IpAddr::V4(_) => IpNextHeaderProtocols::Icmp,
            IpAddr::V6(_) => IpNextHeaderProtocols::Icmpv6,
        };
        ensure!(protocol == expected, "not {expected}, but {protocol}");
        let message = message.context("cut short")?;
        let (header, about) = message.split_at_checked(HEADER).context("cut short")?;
        let found = u16::from_be_bytes([header[2], header[3]]);
        ensure!(
            checksum(message, from, to)? % u16::MAX == found % u16::MAX,
            "the message's checksum is wrong: {packet:02x?}"
        );
        Ok(Self {
            from,
            to,
            kind: header[0],
            code: header[1],
            about: about.to_vec(),
        })
    }
}

fn checksum(message: &[u8], from: IpAddr, to: IpAddr) -> Result<u16> {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ok(util::checksum(message, CHECKSUM_WORD)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(util::ipv6_checksum(
            message,
            CHECKSUM_WORD,
            &[],
            &from,
            &to,
            IpNextHeaderProtocols::Icmpv6,
        )),
        (from, to) => bail!("{from} and {to} are of two versions"),
    }
}

#[cfg(test)]
mod tests {
    use pnet::util::MacAddr;

    use super::*;

    #[test]
    fn what_is_built_is_parsed_and_a_flipped_bit_is_noticed() {
        let hop = Hop {
            source: MacAddr::new(2, 0, 0, 0, 0, 1),
            destination: MacAddr::new(2, 0, 0, 0, 0, 2),
        };
        for (from, to) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let report = Report {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                kind: 3,
                code: 4,
                about: (0..77).collect(),
            };
            let mut frame = report.build(hop).unwrap();
            assert_eq!(Report::parse(&frame).unwrap(), report);
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert!(Report::parse(&frame).is_err());
        }
    }
}
