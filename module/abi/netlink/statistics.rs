// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Counters of a namespace.

use super::super::proxy::Stats;
use super::attribute::{Attributes, NoRoom, Writer};
use super::message::kind;
use super::refusal::Refusal;

impl Stats {
    /// Writes them: the attribute's type is the counter's place in [`Self::NAMES`], from 1 on.
    ///
    /// # Errors
    /// If there is no room.
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.nest(kind::STATISTICS, |writer| {
            let mut all = (1..).zip(self.values());
            all.try_for_each(|(kind, value)| writer.u64(kind, value))
        })
    }

    /// Reads them. Counters that are not known here are of a later version, and passed over; those that are not told are zero.
    ///
    /// # Errors
    /// If an attribute is malformed.
    pub fn read(attributes: Attributes<'_>) -> Result<Self, Refusal> {
        let mut stats = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind != kind::STATISTICS {
                continue;
            }
            for counter in attribute.nested()? {
                let counter = counter?;
                let place = usize::from(counter.kind).wrapping_sub(1);
                if let Some(value) = stats.by_place(place) {
                    *value = counter.uint()?;
                }
            }
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_survive_a_message() {
        let stats = Stats {
            packets_original: 1,
            bytes_reply: u64::MAX,
            flows_direct: 7,
            ..Stats::default()
        };
        let mut bytes = [0; 512];
        let mut writer = Writer::new(&mut bytes);
        stats.write(&mut writer).unwrap();
        let length = writer.written();
        assert_eq!(Stats::read(Attributes::new(&bytes[..length])), Ok(stats));
    }

    #[test]
    fn those_of_other_versions_are_read_as_far_as_they_are_known() {
        let mut bytes = [0; 64];
        let mut writer = Writer::new(&mut bytes);
        let result = writer.nest(kind::STATISTICS, |writer| {
            writer.u32(2, 5)?;
            writer.u64(999, 1)
        });
        result.unwrap();
        let length = writer.written();
        let expected = Stats {
            packets_reply: 5,
            ..Stats::default()
        };
        assert_eq!(Stats::read(Attributes::new(&bytes[..length])), Ok(expected));
    }
}
