// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `/dev/mutex_probe`: what the hooks of a packet's way cost.
//!
//! The probe stands before and after all other functions of each netfilter hook and sums the
//! time between over the way of one packet, from PRE_ROUTING or LOCAL_OUT to POST_ROUTING or
//! LOCAL_IN. It tells directions apart by the client's port, which no subject changes.
//!
//! * `open` needs CAP_NET_ADMIN; it puts the probe into the caller's network namespace.
//! * `write` takes a [`Filter`], empties the histograms and starts to record. If the filter asks for
//!   ballast, there are hooks of known cost between the probe's from then on.
//! * `read` at position 0 takes a snapshot; further reads page through it: one [`Report`] for each
//!   [`Direction`], each followed by its buckets as pairs of index and count (two `u32`).
//! * `close` takes the probe out.

use super::bytes::{Reader, Writer};
use super::proxy::{Family, Protocol};

/// Where the descriptor comes from.
pub const DEVICE: &str = "mutex_probe";
/// First four bytes of a filter: "MTXQ".
pub const MAGIC: u32 = u32::from_le_bytes(*b"MTXQ");
/// Version of the records in this file.
pub const VERSION: u16 = 3;
/// Below two to this power a histogram is exact; above, its buckets are this many bits precise.
pub const PRECISION_BITS: u32 = 12;
/// Samples from two to this power on share the last bucket.
pub const RANGE_BITS: u32 = 32;
/// How many hooks netfilter has: NF_INET_PRE_ROUTING, LOCAL_IN, FORWARD, LOCAL_OUT, POST_ROUTING.
pub const HOOKS: usize = 5;
/// The hooks' names in the order of their numbers.
pub const HOOK_NAMES: [&str; HOOKS] = [
    "pre_routing",
    "local_in",
    "forward",
    "local_out",
    "post_routing",
];

/// Which packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// IP version.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port of the client.
    pub client_port_first: u16,
    /// Last port of the client, inclusive.
    pub client_port_last: u16,
    /// If there is one, each packet of the namespace takes so many instructions and a constant more where its
    /// way begins, in a hook right behind the probe's first one. To test the instrument.
    pub ballast: Option<u16>,
}

impl Filter {
    /// Size in bytes.
    pub const SIZE: usize = 16;

    /// Reads and checks a filter.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != MAGIC || reader.u16()? != VERSION {
            return None;
        }
        let filter = Self {
            family: Family::from_number(reader.u8()?)?,
            protocol: Protocol::from_number(reader.u8()?)?,
            client_port_first: reader.u16()?,
            client_port_last: reader.u16()?,
            ballast: match reader.u32()?.checked_sub(1) {
                None => None,
                Some(instructions) => Some(u16::try_from(instructions).ok()?),
            },
        };
        (reader.remaining() == 0 && filter.client_port_first <= filter.client_port_last)
            .then_some(filter)
    }

    /// The filter as bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        let mut writer = Writer::new(&mut out);
        let _ = writer.put(&MAGIC.to_le_bytes());
        let _ = writer.put(&VERSION.to_le_bytes());
        let _ = writer.put(&[self.family as u8, self.protocol as u8]);
        let _ = writer.put(&self.client_port_first.to_le_bytes());
        let _ = writer.put(&self.client_port_last.to_le_bytes());
        let ballast = self.ballast.map_or(0, |count| u32::from(count) + 1);
        let _ = writer.put(&ballast.to_le_bytes());
        out
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Original = 0,
    /// To the client.
    Reply = 1,
}

/// What one direction's packets cost. Times are TSC ticks; with `-icount shift=0` a tick is an
/// instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets in the histogram.
    pub packets: u64,
    /// Packets left out because an interrupt fell into a span.
    pub interrupted: u64,
    /// Packets left out because their way was not followed to its end.
    pub torn: u64,
    /// Sum over the packets in the histogram.
    pub sum: u64,
    /// The cheapest packet; 0 if there is none.
    pub min: u64,
    /// The dearest packet.
    pub max: u64,
    /// The least time from where one packet's way begins to where the next one's does, on one CPU. Of packets
    /// that come at once it is all that is done for one, the probe's own work included. 0 without two packets.
    pub least_gap: u64,
    /// Sum by hook.
    pub hook_sum: [u64; HOOKS],
    /// Spans by hook.
    pub hook_spans: [u64; HOOKS],
    /// How many bucket pairs follow.
    pub buckets: u64,
}

impl Report {
    /// Size in bytes.
    pub const SIZE: usize = 8 * (8 + 2 * HOOKS);
    /// Size in bytes of one bucket pair.
    pub const BUCKET_SIZE: usize = 8;

    /// Reads a report; `None` if it is too short.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let mut report = Self {
            packets: reader.u64()?,
            interrupted: reader.u64()?,
            torn: reader.u64()?,
            sum: reader.u64()?,
            min: reader.u64()?,
            max: reader.u64()?,
            least_gap: reader.u64()?,
            ..Self::default()
        };
        for sum in &mut report.hook_sum {
            *sum = reader.u64()?;
        }
        for spans in &mut report.hook_spans {
            *spans = reader.u64()?;
        }
        report.buckets = reader.u64()?;
        Some(report)
    }

    /// Writes a report; `None` if it does not fit.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Option<()> {
        for field in [
            self.packets,
            self.interrupted,
            self.torn,
            self.sum,
            self.min,
            self.max,
            self.least_gap,
        ] {
            writer.put(&field.to_le_bytes())?;
        }
        for field in self.hook_sum.iter().chain(&self.hook_spans) {
            writer.put(&field.to_le_bytes())?;
        }
        writer.put(&self.buckets.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_survives_encoding() {
        let filter = Filter {
            family: Family::V6,
            protocol: Protocol::Tcp,
            client_port_first: 1000,
            client_port_last: 2000,
            ballast: None,
        };
        for ballast in [None, Some(0), Some(1), Some(u16::MAX)] {
            let filter = Filter { ballast, ..filter };
            assert_eq!(Filter::decode(&filter.encode()), Some(filter));
        }
        assert_eq!(Filter::decode(&filter.encode()[..15]), None);
        let mut too_much = filter.encode();
        too_much[12..].copy_from_slice(&0x10001_u32.to_le_bytes());
        assert_eq!(Filter::decode(&too_much), None);
        let reversed = Filter {
            client_port_first: 2001,
            ..filter
        };
        assert_eq!(Filter::decode(&reversed.encode()), None);
    }

    #[test]
    fn report_survives_encoding() {
        let report = Report {
            packets: 1,
            max: 9,
            least_gap: 10,
            hook_sum: [1, 2, 3, 4, 5],
            hook_spans: [6, 7, 8, 9, 10],
            buckets: 11,
            ..Report::default()
        };
        let mut bytes = [0; Report::SIZE];
        report.encode(&mut Writer::new(&mut bytes)).unwrap();
        assert_eq!(Report::decode(&mut Reader::new(&bytes)), Some(report));
    }
}
