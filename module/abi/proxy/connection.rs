// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A connection as the server to which it was redirected sees it.

use super::super::bytes::{Reader, Writer};
use super::{Family, Protocol};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: [u8; 16],
    /// Its port.
    pub port: u16,
}

/// A connection whose original destination is asked for: what `getsockname()` and `getpeername()` tell
/// of the server's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP version of the addresses.
    pub family: Family,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The server's end: the upstream's address and port. In the answer, the original destination.
    pub local: Endpoint,
    /// The client.
    pub remote: Endpoint,
}

impl Connection {
    /// Size in bytes: two of scalars, two reserved ones that must be zero, the two ports, and the two
    /// addresses.
    pub const SIZE: usize = 40;

    /// Reads a record; `None` if it is too short or has a field without a meaning.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let family = Family::from_number(reader.u8()?)?;
        let protocol = Protocol::from_number(reader.u8()?)?;
        let [0, 0] = reader.array()? else {
            return None;
        };
        let (local_port, remote_port) = (reader.u16()?, reader.u16()?);
        let (local, remote) = (reader.array()?, reader.array()?);
        (family.has(&local) && family.has(&remote)).then_some(Self {
            family,
            protocol,
            local: Endpoint {
                address: local,
                port: local_port,
            },
            remote: Endpoint {
                address: remote,
                port: remote_port,
            },
        })
    }

    /// The record as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&[self.family as u8, self.protocol as u8, 0, 0]);
        let _ = writer.put(&self.local.port.to_le_bytes());
        let _ = writer.put(&self.remote.port.to_le_bytes());
        let _ = writer.put(&self.local.address);
        let _ = writer.put(&self.remote.address);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let end = |last, port| Endpoint {
            address: [192, 0, 2, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            port,
        };
        Connection {
            family: Family::V4,
            protocol: Protocol::Tcp,
            local: end(1, 8080),
            remote: end(2, 40_000),
        }
    }

    #[test]
    fn a_connection_survives_encoding() {
        let bytes = connection().encode();
        assert_eq!(Connection::decode(&bytes), Some(connection()));
        assert_eq!(Connection::decode(&bytes[1..]), None);
    }

    #[test]
    fn fields_without_meaning_are_refused() {
        // (offset, value): family, protocol, reserved, what IPv4 has not in an address.
        for (offset, value) in [(0, 5), (1, 1), (2, 1), (3, 1), (12, 1), (39, 1)] {
            let mut bad = connection().encode();
            bad[offset] = value;
            assert_eq!(Connection::decode(&bad), None, "offset {offset}");
        }
    }
}
