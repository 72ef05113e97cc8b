// SPDX-License-Identifier: GPL-2.0

//! Errors that ICMP (RFC 792) and ICMPv6 (RFC 4443) report about packets of flows.
//!
//! Such a message has the beginning of the packet in it that it is about, as that looked where it
//! went wrong: after translation. The sender knows only what the packet was before, so both have to
//! be translated, the message and the packet in it (RFC 5508, sections 4.2 and 7).
//!
//! An example: a client C believes to talk to S and is redirected to U. The flow has the keys C→S
//! (original) and U→C (reply); packets of the original direction leave as C→U, those of the reply
//! direction as S→C.
//!
//! ```text
//!                      comes           direction   from   to     leaves
//!  U has no socket     U→C about C→U   reply       U→C    S→C    S→C about C→S
//!  a router before U   R→C about C→U   reply       U→C    S→C    R→C about C→S
//!  C has no socket     C→S about S→C   original    C→S    C→U    C→U about U→C
//! ```
//!
//! The rule: an error about a packet `E` goes where answers to `E` go. So it belongs to the direction whose
//! key `from` is `E.reverse()`, and whose packets leave as `to`, the other key reversed.
//!
//! * The message is treated as any packet of this direction: its destination `from.destination` becomes
//!   `to.destination`; and its source `from.source` becomes `to.source`, if the receiver of `E` itself
//!   complains. A router on the path keeps its own address.
//! * The packet in the message, `E`, is one of the other direction after translation. It becomes what that was
//!   before: `to.reverse()`.

use super::abi::proxy::{Family, Protocol};
use super::checksum::{Delta, Sum};
use super::flow::ChecksumFixup;
use super::packet::{self, header_length, skip_extensions, Header, FRAGMENT, UDP_HEADER};
use super::translate::{Offload, SkbChecksum, TCP_CHECKSUM, UDP_CHECKSUM};
use super::tuple::{Address, Tuple, V4, V6};

/// Length of the header of a message; the packet that it is about follows.
pub const ICMP_HEADER: usize = 8;
/// No more bytes of a message than these are looked at: the packet in one of ICMPv6 is cut so that
/// the whole is no longer than IPv6's least MTU (RFC 4443, section 2.4).
pub const REACH: usize = 1280;

const CHECKSUM: usize = 2;
/// As much of the transport's header as every error has to have (RFC 792), and all of UDP's.
const LEAST: usize = UDP_HEADER;

/// The version of ICMP that belongs to a version of IP.
pub trait Icmp: Header {
    /// Whether messages of this type report an error about a packet. Redirects and source
    /// quenches do not: what they ask for is nothing that the sender of the packet should do, or
    /// nothing any more (RFC 6633).
    fn is_error(kind: u8) -> bool;

    /// Where a message of this type says how long the packet in it is, and in units of how many
    /// bytes (RFC 4884, section 4); what follows that is no part of the packet. `None` if it
    /// cannot say so.
    fn datagram_length(kind: u8) -> Option<(usize, usize)>;

    /// The protocol of the transport's header in the beginning of a packet that may be a first
    /// fragment, and where it starts.
    fn find_transport(datagram: &[u8]) -> Option<(u8, usize)>;
}

impl Icmp for V4 {
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    }

    fn datagram_length(kind: u8) -> Option<(usize, usize)> {
        Self::is_error(kind).then_some((5, 4))
    }

    fn find_transport(datagram: &[u8]) -> Option<(u8, usize)> {
        let header = datagram.first_chunk::<{ Self::LENGTH }>()?;
        let length = usize::from(header[0] & 0xf) * 4;
        let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        let readable = header[0] >> 4 == 4 && length >= Self::LENGTH && offset == 0;
        readable.then_some((header[9], length))
    }
}

impl Icmp for V6 {
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }

    fn datagram_length(kind: u8) -> Option<(usize, usize)> {
        matches!(kind, 1 | 3).then_some((4, 8))
    }

    fn find_transport(datagram: &[u8]) -> Option<(u8, usize)> {
        let header = datagram.first_chunk::<{ Self::LENGTH }>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let (next, at) = skip_extensions(datagram, header[6], Self::LENGTH).ok()?;
        if next != FRAGMENT {
            return Some((next, at));
        }
        let &[next, _, high, low, ..] = datagram.get(at..)?.first_chunk::<8>()?;
        if u16::from_be_bytes([high, low]) >> 3 != 0 {
            return None;
        }
        skip_extensions(datagram, next, at.wrapping_add(8)).ok()
    }
}

/// Whether a message, given from its first byte, reports an error.
pub fn is_error<A: Icmp>(message: &[u8]) -> bool {
    message.first().is_some_and(|&kind| A::is_error(kind))
}

/// An error about a packet of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<A: Address> {
    /// Who reports it.
    pub reporter: A,
    /// The packet that it is about, as it was when it went wrong.
    pub about: Tuple<A>,
    // Where the message starts, in bytes from the IP header; the transport's header of the packet in
    // it, from that packet's first byte; and how much of that header there is.
    message: usize,
    transport: usize,
    length: usize,
}

impl<A: Icmp> Error<A> {
    /// Reads the message that starts so many bytes from the first one of `packet`, of which
    /// [`REACH`] are enough. `None` if it is no error, is about another protocol, does not tell
    /// the packet's ports, or goes to another than who sent that packet.
    pub fn read(packet: &[u8], message: usize) -> Option<Self> {
        let (reporter, destination) = A::split(A::addresses(packet)?);
        let (header, datagram) = packet.get(message..)?.split_at_checked(ICMP_HEADER)?;
        if !is_error::<A>(header) {
            return None;
        }
        let datagram = match stated_length::<A>(header) {
            Some(length) => datagram.get(..length).unwrap_or(datagram),
            None => datagram,
        };
        let (protocol, transport) = A::find_transport(datagram)?;
        let protocol = Protocol::from_number(protocol)?;
        let there = datagram.get(transport..)?;
        if there.len() < LEAST {
            return None;
        }
        let about = Tuple {
            addresses: A::addresses(datagram)?,
            ports: packet::ports(there)?,
            protocol,
        };
        (about.source() == destination).then_some(Self {
            reporter,
            about,
            message,
            transport,
            length: there.len().min(header_length(protocol)),
        })
    }

    /// The key of the flow and the direction to which the error belongs: packets of that direction come
    /// as this.
    pub fn from(&self) -> Tuple<A> {
        self.about.reverse()
    }

    /// How many bytes of the packet [`Self::translate`] needs.
    pub fn end(&self) -> usize {
        self.message
            .wrapping_add(ICMP_HEADER)
            .wrapping_add(self.transport)
            .wrapping_add(self.length)
    }

    /// Translates the packet that was read, of which [`Self::end`] bytes are enough; `to` is how
    /// packets of its direction leave. `None` if it is too short: then it is not to be used any more.
    pub fn translate(
        &self,
        packet: &mut [u8],
        to: &Tuple<A>,
        offload: Offload,
    ) -> Option<SkbChecksum> {
        let (network, message) = packet
            .get_mut(..self.end())?
            .split_at_mut_checked(self.message)?;
        let (header, datagram) = message.split_at_mut_checked(ICMP_HEADER)?;
        let inside = self.translate_inside(datagram, &to.reverse())?;
        let outside = self.translate_outside(network, to)?;
        let field = header.get_mut(CHECKSUM..)?.first_chunk_mut::<2>()?;
        let sum = u16::from_ne_bytes(*field);
        let sum = match (A::FAMILY, offload) {
            // Here the header holds the sum of the pseudo header, which ICMP for IPv4 has not.
            (Family::V4, Offload::Partial) => sum,
            (Family::V6, Offload::Partial) => outside.apply_to_sum(sum),
            (Family::V4, _) => inside.apply(sum),
            (Family::V6, _) => inside.and(outside).apply(sum),
        };
        *field = sum.to_ne_bytes();
        Some(match offload {
            Offload::Complete => SkbChecksum::Invalidate,
            Offload::None | Offload::Partial => SkbChecksum::Keep,
        })
    }

    // The packet in the message, up to the end of what is known of its transport's header, becomes
    // `now`. What that changes in the sum of the message.
    fn translate_inside(&self, datagram: &mut [u8], now: &Tuple<A>) -> Option<Delta> {
        let by = ChecksumFixup::between(&self.about, now);
        let before = Sum::of(datagram);
        let (network, transport) = datagram.split_at_mut_checked(self.transport)?;
        A::readdress(network, now.addresses, by.addresses)?;
        *transport.first_chunk_mut::<4>()? = now.ports.0.to_ne_bytes();
        let at = match now.protocol {
            Protocol::Tcp => TCP_CHECKSUM,
            Protocol::Udp => UDP_CHECKSUM,
        };
        // TCP's may have been cut off.
        let field = transport
            .get_mut(at..)
            .and_then(<[u8]>::first_chunk_mut::<2>);
        if let Some(field) = field {
            let old = u16::from_ne_bytes(*field);
            let new = match (now.protocol, old, by.transport.apply(old)) {
                // RFC 768: no checksum stays none, and one of zero is sent as its other form.
                (Protocol::Udp, 0, _) => 0,
                (Protocol::Udp, _, 0) => !0,
                (_, _, new) => new,
            };
            *field = new.to_ne_bytes();
        }
        Some(Delta::between(before, Sum::of(datagram)))
    }

    // The message's own IP header. What that changes in a pseudo header.
    fn translate_outside(&self, network: &mut [u8], to: &Tuple<A>) -> Option<Delta> {
        let from = self.from();
        let source = if self.reporter == from.source() {
            to.source()
        } else {
            self.reporter
        };
        let destination = to.destination();
        let by = Delta::between(
            self.reporter.sum().and(from.destination().sum()),
            source.sum().and(destination.sum()),
        );
        A::readdress(network, A::pair(source, destination), by)?;
        Some(by)
    }
}

// How long the packet in a message is, if that says so. Less than 128 bytes it may not say
// (RFC 4884, section 4.1): then it means something else.
fn stated_length<A: Icmp>(header: &[u8]) -> Option<usize> {
    let (at, unit) = A::datagram_length(*header.first()?)?;
    let length = usize::from(*header.get(at)?).wrapping_mul(unit);
    (length >= 128).then_some(length)
}

#[cfg(test)]
mod tests;
