// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Servers to which connections are redirected.

use super::super::bytes::{Reader, Writer};
use super::{Family, Invalid};

/// A server to which connections can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// IP version of the address.
    pub family: Family,
    /// With [`Selection::Failover`](super::Selection::Failover), lower ones are preferred.
    pub priority: u8,
    /// Port; 0 keeps the destination's.
    pub port: u16,
    /// The place of its group among the configuration's.
    pub group: u8,
    /// Address; not zero.
    pub address: [u8; 16],
}

impl Upstream {
    /// Size in bytes: five of scalars, three reserved ones that must be zero, and the address.
    pub const SIZE: usize = 24;

    /// Reads and checks one upstream.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut reader = Reader::new(bytes);
        let upstream = Self::read(&mut reader).ok_or(Invalid::Length)?;
        upstream.filter(Self::is_valid).ok_or(Invalid::Upstream)
    }

    // The outer `None` is a short buffer, the inner one a field without a meaning.
    fn read(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let family = Family::from_number(reader.u8()?);
        let priority = reader.u8()?;
        let port = reader.u16()?;
        let group = reader.u8()?;
        let reserved: [u8; 3] = reader.array()?;
        let address = reader.array()?;
        let (Some(family), [0, 0, 0]) = (family, reserved) else {
            return Some(None);
        };
        Some(Some(Self {
            family,
            priority,
            port,
            group,
            address,
        }))
    }

    fn is_valid(&self) -> bool {
        self.family.has(&self.address) && self.address != [0; 16]
    }

    /// The upstream as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&[self.family as u8, self.priority]);
        let _ = writer.put(&self.port.to_le_bytes());
        let _ = writer.put(&[self.group, 0, 0, 0]);
        let _ = writer.put(&self.address);
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An upstream of IPv4.
    pub fn upstream() -> Upstream {
        Upstream {
            family: Family::V4,
            priority: 7,
            port: 5353,
            group: 0,
            address: [198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    #[test]
    fn fields_without_meaning_are_refused() {
        let good = upstream().encode();
        assert_eq!(Upstream::decode(&good), Ok(upstream()));
        // (offset, value): family, reserved, tail of the address.
        for (offset, value) in [(0, 5), (5, 1), (7, 1), (12, 1), (23, 1)] {
            let mut bad = good;
            bad[offset] = value;
            let decoded = Upstream::decode(&bad);
            assert_eq!(decoded, Err(Invalid::Upstream), "offset {offset}");
        }
        let nowhere = Upstream {
            address: [0; 16],
            ..upstream()
        };
        assert_eq!(Upstream::decode(&nowhere.encode()), Err(Invalid::Upstream));
    }
}
