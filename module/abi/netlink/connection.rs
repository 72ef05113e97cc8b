// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A connection as the server to which it was redirected sees it.

use super::super::proxy::{Connection, Endpoint, Protocol};
use super::attribute::{Attributes, NoRoom, Writer};
use super::configuration::{address, put_address, small};
use super::message::{kind, UNKNOWN};
use super::refusal::Refusal;

/// Types of the attributes of a connection.
mod attributes {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const LOCAL_ADDRESS: u16 = 2;
    pub(super) const LOCAL_PORT: u16 = 3;
    pub(super) const REMOTE_ADDRESS: u16 = 4;
    pub(super) const REMOTE_PORT: u16 = 5;
}

impl Connection {
    /// Writes it.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.nest(kind::CONNECTION, |writer| {
            writer.u32(attributes::PROTOCOL, self.protocol as u32)?;
            for (address, port, end) in [
                (
                    attributes::LOCAL_ADDRESS,
                    attributes::LOCAL_PORT,
                    &self.local,
                ),
                (
                    attributes::REMOTE_ADDRESS,
                    attributes::REMOTE_PORT,
                    &self.remote,
                ),
            ] {
                put_address(writer, address, self.family, &end.address)?;
                writer.u32(port, end.port.into())?;
            }
            Ok(())
        })
    }

    /// Reads it from a message in which nothing else stands.
    ///
    /// # Errors
    /// If an attribute is malformed, unknown or missing, has a value without a meaning, or the ends are of different IP
    /// versions.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let mut told = None;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind != kind::CONNECTION {
                return Err(Refusal::of(&attribute, UNKNOWN));
            }
            let (mut protocol, mut addresses, mut ports) = (None, [None; 2], [None; 2]);
            let [local, remote] = &mut addresses;
            for inner in attribute.nested()? {
                let inner = inner?;
                let port = || small(&inner, c"a port is at most 65535");
                match inner.kind {
                    attributes::PROTOCOL => {
                        let message = c"a protocol is 6 (TCP) or 17 (UDP)";
                        let number = Protocol::from_number(small(&inner, message)?);
                        protocol = Some(number.ok_or(Refusal::of(&inner, message))?);
                    }
                    attributes::LOCAL_ADDRESS => *local = Some(address(&inner)?),
                    attributes::LOCAL_PORT => ports = [Some(port()?), ports[1]],
                    attributes::REMOTE_ADDRESS => *remote = Some(address(&inner)?),
                    attributes::REMOTE_PORT => ports = [ports[0], Some(port()?)],
                    _ => return Err(Refusal::of(&inner, UNKNOWN)),
                }
            }
            let (Some(protocol), [Some(local), Some(remote)], [Some(here), Some(there)]) =
                (protocol, addresses, ports)
            else {
                let message = c"a connection has a protocol, and an address and a port at each end";
                return Err(Refusal::of(&attribute, message));
            };
            if local.0 != remote.0 {
                let message = c"both ends of a connection have the same IP version";
                return Err(Refusal::of(&attribute, message));
            }
            told = Some(Self {
                family: local.0,
                protocol,
                local: Endpoint {
                    address: local.1,
                    port: here,
                },
                remote: Endpoint {
                    address: remote.1,
                    port: there,
                },
            });
        }
        told.ok_or(Refusal {
            offset: 0,
            message: c"a connection is needed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::proxy::Family;
    use super::super::message::tests::{specified, written};
    use super::*;

    fn example(family: Family) -> Connection {
        let end = |last, port| {
            let mut address = [0; 16];
            address[usize::from(family.bits() / 8) - 1] = last;
            Endpoint { address, port }
        };
        Connection {
            family,
            protocol: Protocol::Tcp,
            local: end(1, 8080),
            remote: end(2, 40_000),
        }
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        let numbered = [
            ("PROTOCOL", attributes::PROTOCOL),
            ("LOCAL_ADDRESS", attributes::LOCAL_ADDRESS),
            ("LOCAL_PORT", attributes::LOCAL_PORT),
            ("REMOTE_ADDRESS", attributes::REMOTE_ADDRESS),
            ("REMOTE_PORT", attributes::REMOTE_PORT),
        ];
        let names = specified("MUTEX_PROXY_A_CONNECTION_");
        assert_eq!(numbered.map(|(name, _)| name).to_vec(), names);
        assert_eq!(numbered.map(|(_, number)| number), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_connection_survives_a_message() {
        for family in [Family::V4, Family::V6] {
            let bytes = written(|writer| example(family).write(writer));
            assert_eq!(
                Connection::read(Attributes::new(&bytes)),
                Ok(example(family))
            );
        }
    }

    #[test]
    fn what_lacks_something_or_has_no_meaning_is_refused() {
        let refused = |write: &dyn Fn(&mut Writer<'_>) -> Result<(), NoRoom>| {
            let bytes = written(write);
            Connection::read(Attributes::new(&bytes)).is_err()
        };
        assert!(refused(&|_| Ok(())), "nothing");
        assert!(
            refused(&|writer| writer.flag(kind::BEGIN)),
            "something else"
        );
        assert!(
            refused(&|writer| writer.nest(kind::CONNECTION, |_| Ok(()))),
            "nothing in it"
        );
        let mixed = |writer: &mut Writer<'_>| {
            writer.nest(kind::CONNECTION, |writer| {
                writer.u32(attributes::PROTOCOL, 6)?;
                writer.bytes(attributes::LOCAL_ADDRESS, &[1; 4])?;
                writer.u32(attributes::LOCAL_PORT, 1)?;
                writer.bytes(attributes::REMOTE_ADDRESS, &[1; 16])?;
                writer.u32(attributes::REMOTE_PORT, 1)
            })
        };
        assert!(refused(&mixed), "two IP versions");
    }
}
