// SPDX-License-Identifier: GPL-2.0

//! What differs between the versions of IP, read without the datapath.

use mutex_abi::proxy::{Family, Protocol};
use mutex_datapath::icmp::Icmp;
use mutex_datapath::tuple::{Ports, Tuple};

use super::checksum;
use super::input::Input;

/// Where source and destination stand in a header.
pub const fn addresses(family: Family) -> core::ops::Range<usize> {
    match family {
        Family::V4 => 12..20,
        Family::V6 => 8..40,
    }
}

/// The pseudo header of a transport's header (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub fn pseudo_header(family: Family, network: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = network[addresses(family)].to_vec();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// How much of the packet the IPv4 header is; nothing of IPv6 has a checksum of its own.
pub fn summed_header(family: Family, packet: &[u8]) -> usize {
    match family {
        Family::V4 => usize::from(packet[0] & 0xf) * 4,
        Family::V6 => 0,
    }
}

/// Puts the right checksum in an IPv4 header.
pub fn sum_header(family: Family, packet: &mut [u8]) {
    let length = summed_header(family, packet);
    if length > 0 {
        checksum::put(packet, 10, 0);
        let sum = checksum::sum(&[&packet[..length]]);
        checksum::put(packet, 10, !sum);
    }
}

/// Whether that is right.
pub fn header_is_right(family: Family, packet: &[u8]) -> bool {
    checksum::is_zero(checksum::sum(&[&packet[..summed_header(family, packet)]]))
}

/// What packets may be made to look like.
pub fn any_tuple<A: Icmp>(protocol: Protocol, input: &mut Input<'_>) -> Tuple<A> {
    let [source, destination] = [input.array(), input.array()].map(A::from_bytes);
    let ports = Ports(u32::from_ne_bytes(input.array()));
    Tuple::new(protocol, source, destination, ports)
}
