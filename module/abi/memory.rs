// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `/dev/mutex_memory`: what the machine's memory is used for, as far as the kernel knows.
//!
//! `open` needs CAP_SYSLOG, since everything here is addresses. `read` at position 0 takes a snapshot; further
//! reads page through it: a [`Header`], as many per-CPU offsets (`u64`) as that says, and [`Area`]s to the end.

use super::bytes::{Reader, Writer};

/// Where the descriptor comes from.
pub const DEVICE: &str = "mutex_memory";
/// First four bytes: "MTXM".
pub const MAGIC: u32 = u32::from_le_bytes(*b"MTXM");
/// Version of the records in this file.
pub const VERSION: u32 = 1;

/// The head of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many possible CPUs there are, and so how many offsets follow. A per-CPU variable's address on a CPU
    /// is its symbol's address plus the CPU's offset.
    pub cpus: u32,
}

impl Header {
    /// Size in bytes.
    pub const SIZE: usize = 12;

    /// Reads and checks a header; `None` if it is too short or of another version.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let same = reader.u32()? == MAGIC && reader.u32()? == VERSION;
        let cpus = reader.u32()?;
        same.then_some(Self { cpus })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        for field in [MAGIC, VERSION, self.cpus] {
            let _ = writer.put(&field.to_le_bytes());
        }
        out
    }
}

/// What an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// A slab; the name is that of its cache, as in /proc/slabinfo.
    Slab = 1,
    /// A thread's kernel stack; the name is that of the thread.
    Stack = 2,
}

/// Memory in one piece that is used for one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where it begins: a virtual address.
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes from one object in it to the next.
    pub object: u32,
    /// What it is.
    pub used: Use,
    /// Its name, filled up with zeros.
    pub name: [u8; Self::NAME],
}

impl Area {
    /// The most bytes of a name, a zero at the end included.
    pub const NAME: usize = 48;
    /// Size in bytes.
    pub const SIZE: usize = 24 + Self::NAME;

    /// Reads an area; `None` if it is too short or of no known use.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            address: reader.u64()?,
            bytes: reader.u64()?,
            object: reader.u32()?,
            used: match reader.u32()? {
                1 => Use::Slab,
                2 => Use::Stack,
                _ => return None,
            },
            name: reader.array()?,
        })
    }

    /// The area as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&self.address.to_le_bytes());
        let _ = writer.put(&self.bytes.to_le_bytes());
        let _ = writer.put(&self.object.to_le_bytes());
        let _ = writer.put(&(self.used as u32).to_le_bytes());
        let _ = writer.put(&self.name);
        out
    }

    /// The name without the zeros at its end.
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|&byte| byte == 0);
        self.name.get(..end.unwrap_or(Self::NAME)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_encoding() {
        let header = Header { cpus: 3 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&mut Reader::new(&bytes)), Some(header));
        let mut other = bytes;
        other[4] += 1;
        assert_eq!(Header::decode(&mut Reader::new(&other)), None);

        let mut name = [0; Area::NAME];
        name[..7].copy_from_slice(b"kmalloc");
        for used in [Use::Slab, Use::Stack] {
            let area = Area {
                address: u64::MAX - 1,
                bytes: 1 << 40,
                object: 192,
                used,
                name,
            };
            let mut bytes = area.encode();
            assert_eq!(Area::decode(&mut Reader::new(&bytes)), Some(area));
            assert_eq!(area.name(), b"kmalloc");
            assert_eq!(Area::decode(&mut Reader::new(&bytes[1..])), None);
            bytes[20] = 9;
            assert_eq!(Area::decode(&mut Reader::new(&bytes)), None);
        }
    }
}
