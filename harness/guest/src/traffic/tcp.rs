// SPDX-License-Identifier: MIT OR Apache-2.0

//! One end of a TCP connection of the generator's: as much of RFC 9293 as a closed loop over a
//! wire that neither loses nor reorders needs. Anything else is an error, since it means that
//! something on the way did it.

use std::fmt;
use std::net::SocketAddr;

use pnet::packet::tcp::TcpFlags;

use mutexlab_wire::frame::{Header, Segment, Transport};

/// State of a connection: which numbers come next in both directions.
#[derive(Clone, Debug)]
pub struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    numbers: Numbers,
}

/// What is to be kept of a connection whose addresses are known anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    send_next: u32,
    receive_next: u32,
}

/// Initial sequence number of the first client's connection; those of others are far from each
/// other's.
const INITIAL: u32 = 0x1000_0000;
const INITIAL_STEP: u32 = 0x9e37_79b9;

impl Numbers {
    /// Those of the client of a flow that is to be established.
    pub fn of_client(flow: u32) -> Self {
        Self::new(INITIAL.wrapping_add(flow.wrapping_mul(INITIAL_STEP)))
    }

    /// Those of the server that got this SYN.
    pub fn of_server(syn: &Segment) -> Self {
        Self::new(syn.sequence ^ 0x5555_5555)
    }

    /// Those of both ends of a connection that nobody had to establish, the client's first.
    pub fn pair(flow: u32) -> (Self, Self) {
        let client = Self::of_client(flow);
        let server = Self {
            send_next: client.send_next ^ 0x5555_5555,
            receive_next: client.send_next,
        };
        let receive_next = server.send_next;
        (
            Self {
                receive_next,
                ..client
            },
            server,
        )
    }

    /// Those of a connection that knows nothing of its peer's yet and starts at `initial`.
    pub fn new(initial: u32) -> Self {
        Self {
            send_next: initial,
            receive_next: 0,
        }
    }
}

/// A segment that does not continue the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPlace {
    /// What it says.
    pub segment: Segment,
    /// Sequence number that should have come.
    pub sequence: u32,
    /// The most that may be acknowledged.
    pub acknowledgement: u32,
}

impl fmt::Display for OutOfPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "segment out of place: flags {:#04x}, sequence {} instead of {}, acknowledges {} of {}",
            self.segment.flags,
            self.segment.sequence,
            self.sequence,
            self.segment.acknowledgement,
            self.acknowledgement
        )
    }
}

impl std::error::Error for OutOfPlace {}

impl Connection {
    /// The connection whose numbers were kept.
    pub fn new(local: SocketAddr, remote: SocketAddr, numbers: Numbers) -> Self {
        Self {
            local,
            remote,
            numbers,
        }
    }

    /// What is to be kept until its next segment.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Header of the next segment, with `length` bytes of payload.
    pub fn send(&mut self, flags: u8, length: usize) -> Header {
        let segment = Segment {
            sequence: self.numbers.send_next,
            acknowledgement: if flags & TcpFlags::ACK == 0 {
                0
            } else {
                self.numbers.receive_next
            },
            flags,
        };
        self.numbers.send_next = self.numbers.send_next.wrapping_add(space(flags, length));
        Header {
            source: self.local,
            destination: self.remote,
            transport: Transport::Tcp(segment),
        }
    }

    /// Takes the peer's first number from its SYN.
    pub fn synchronize(&mut self, segment: &Segment) {
        self.numbers.receive_next = segment.sequence.wrapping_add(space(segment.flags, 0));
    }

    /// Takes a segment with `length` bytes of payload, which must be the next one and must
    /// acknowledge everything that was sent.
    pub fn receive(&mut self, segment: Segment, length: usize) -> Result<(), OutOfPlace> {
        let fits = segment.has(TcpFlags::ACK)
            && !segment.has(TcpFlags::RST | TcpFlags::SYN)
            && segment.sequence == self.numbers.receive_next
            && segment.acknowledgement == self.numbers.send_next;
        if !fits {
            return Err(OutOfPlace {
                segment,
                sequence: self.numbers.receive_next,
                acknowledgement: self.numbers.send_next,
            });
        }
        self.numbers.receive_next = self
            .numbers
            .receive_next
            .wrapping_add(space(segment.flags, length));
        Ok(())
    }

    /// Takes a segment that may be any of the peer's: of all that came, the last one counts.
    pub fn observe(&mut self, segment: Segment, length: usize) {
        let end = segment.sequence.wrapping_add(space(segment.flags, length));
        // RFC 9293, section 3.4: numbers are compared modulo 2^32.
        let ahead = end.wrapping_sub(self.numbers.receive_next);
        if ahead < 1 << 31 {
            self.numbers.receive_next = end;
        }
    }

    /// Takes the answer to a SYN.
    pub fn receive_syn_ack(&mut self, segment: Segment) -> Result<(), OutOfPlace> {
        let fits = segment.flags == TcpFlags::SYN | TcpFlags::ACK
            && segment.acknowledgement == self.numbers.send_next;
        if !fits {
            return Err(OutOfPlace {
                segment,
                sequence: segment.sequence,
                acknowledgement: self.numbers.send_next,
            });
        }
        self.synchronize(&segment);
        Ok(())
    }
}

/// How many sequence numbers a segment takes: SYN and FIN have one each.
fn space(flags: u8, length: usize) -> u32 {
    let flags = (flags & (TcpFlags::SYN | TcpFlags::FIN)).count_ones();
    (length as u32).wrapping_add(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: u8 = TcpFlags::ACK;

    fn segment(header: Header) -> Segment {
        match header.transport {
            Transport::Tcp(segment) => segment,
            Transport::Udp => panic!("not TCP"),
        }
    }

    fn pair() -> (Connection, Connection) {
        let client: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let server: SocketAddr = "192.0.2.2:2".parse().unwrap();
        // Just before the numbers wrap.
        let mut client_end = Connection::new(client, server, Numbers::new(u32::MAX));
        let mut server_end = Connection::new(server, client, Numbers::new(u32::MAX - 1));
        let syn = segment(client_end.send(TcpFlags::SYN, 0));
        server_end.synchronize(&syn);
        let syn_ack = segment(server_end.send(TcpFlags::SYN | ACK, 0));
        client_end.receive_syn_ack(syn_ack).unwrap();
        let ack = segment(client_end.send(ACK, 0));
        server_end.receive(ack, 0).unwrap();
        (client_end, server_end)
    }

    #[test]
    fn a_whole_connection_adds_up() {
        let (mut client, mut server) = pair();
        for length in [1, 1460, 16] {
            let data = segment(client.send(ACK | TcpFlags::PSH, length));
            server.receive(data, length).unwrap();
            let answer = segment(server.send(ACK | TcpFlags::PSH, length));
            client.receive(answer, length).unwrap();
        }
        let fin = segment(server.send(ACK | TcpFlags::FIN, 0));
        client.receive(fin, 0).unwrap();
        let fin = segment(client.send(ACK | TcpFlags::FIN, 0));
        server.receive(fin, 0).unwrap();
        let last = segment(server.send(ACK, 0));
        client.receive(last, 0).unwrap();
    }

    #[test]
    fn the_last_of_all_segments_counts_however_they_come() {
        let (mut client, mut server) = pair();
        let segments: Vec<Segment> = (0..3).map(|_| segment(client.send(ACK, 100))).collect();
        for &segment in [&segments[1], &segments[2], &segments[0], &segments[2]] {
            server.observe(segment, 100);
        }
        let answer = segment(server.send(ACK, 0));
        assert!(client.receive(answer, 0).is_ok());
    }

    #[test]
    fn what_does_not_continue_is_refused() {
        let (mut client, server) = pair();
        let good = segment(client.send(ACK, 10));
        for bad in [
            Segment {
                sequence: good.sequence.wrapping_add(1),
                ..good
            },
            Segment {
                acknowledgement: good.acknowledgement.wrapping_sub(1),
                ..good
            },
            Segment {
                flags: ACK | TcpFlags::RST,
                ..good
            },
            Segment { flags: 0, ..good },
        ] {
            assert!(server.clone().receive(bad, 10).is_err(), "{bad:?}");
        }
        assert!(server.clone().receive(good, 10).is_ok());
    }
}
