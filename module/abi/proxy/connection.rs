// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A connection as the server to which it was redirected sees it.

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
