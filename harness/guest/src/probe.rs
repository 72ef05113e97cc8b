// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other end of `/dev/mutex_probe`, and what its numbers become.

pub mod micro;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;

use anyhow::{bail, Context, Result};
use mutex_abi::bytes::Reader;
use mutex_abi::histogram::{percentile, Scale};
use mutex_abi::probe::{Filter, Report, DEVICE, HOOK_NAMES, PRECISION_BITS, RANGE_BITS};

use crate::kernel::device;
use crate::net::namespace::Namespace;
use crate::proxy::context::{abi_family, abi_protocol};
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::HookCost;
use mutexlab_model::traffic::{Family, Protocol};

type ProbeScale = Scale<PRECISION_BITS, RANGE_BITS>;

/// The probe in one namespace, until it is dropped.
pub struct Probe {
    file: File,
    ballast: Option<u16>,
}

/// What the probe saw in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// The sums.
    pub report: Report,
    /// The histogram: (lowest value of the bucket, packets), ascending.
    pub histogram: Vec<(u64, u64)>,
}

/// What the probe saw in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// From the client.
    pub original: Samples,
    /// To the client.
    pub reply: Samples,
}

impl Probe {
    /// Puts the probe into `namespace`. Whatever else hooks into the namespace must come later:
    /// at equal priority, netfilter calls last what came first, and there the probe has to be
    /// last.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let file = namespace.run(|| device::open(DEVICE))?;
        Ok(Self {
            file,
            ballast: None,
        })
    }

    /// From the next [`Self::reset`] on each packet costs so many instructions and a constant more, in
    /// a hook where its way begins; with `None` there is no such hook. The constant is no part of the
    /// subject's cost if the probe's own was taken with `Some(0)`.
    pub fn set_ballast(&mut self, ballast: Option<u16>) {
        self.ballast = ballast;
    }

    /// Empties the histograms and records what clients with these ports send and receive from now
    /// on.
    pub fn reset(
        &self,
        family: Family,
        protocol: Protocol,
        ports: RangeInclusive<u16>,
    ) -> Result<()> {
        let filter = Filter {
            family: abi_family(family),
            protocol: abi_protocol(protocol),
            client_port_first: *ports.start(),
            client_port_last: *ports.end(),
            ballast: self.ballast,
        };
        (&self.file)
            .write_all(&filter.encode())
            .with_context(|| format!("cannot reset {DEVICE}"))
    }

    /// What was recorded since the last reset.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let bytes = device::read(&self.file).with_context(|| format!("cannot read {DEVICE}"))?;
        let mut reader = Reader::new(&bytes);
        let snapshot = Snapshot {
            original: Samples::read(&mut reader)?,
            reply: Samples::read(&mut reader)?,
        };
        if reader.remaining() != 0 {
            bail!("{DEVICE} says {} bytes too much", reader.remaining());
        }
        Ok(snapshot)
    }
}

impl Samples {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let short = || format!("what {DEVICE} says is cut short");
        let report = Report::decode(reader).with_context(short)?;
        let mut histogram = Vec::new();
        for _ in 0..report.buckets {
            let index = reader.u32().with_context(short)? as usize;
            let count = reader.u32().with_context(short)?;
            if index >= ProbeScale::BUCKETS {
                bail!("{DEVICE} names bucket {index} of {}", ProbeScale::BUCKETS);
            }
            histogram.push((ProbeScale::lowest(index), u64::from(count)));
        }
        histogram.sort_unstable();
        let counted: u64 = histogram.iter().map(|&(_, count)| count).sum();
        if counted != report.packets {
            bail!(
                "{DEVICE} counts {} packets, but {counted} are in its histogram",
                report.packets
            );
        }
        Ok(Self { report, histogram })
    }

    /// Packets seen, recorded or not.
    pub fn seen(&self) -> u64 {
        self.report.packets + self.report.interrupted + self.report.torn
    }

    /// The median in ticks; None if nothing was recorded.
    pub fn median(&self) -> Option<u64> {
        percentile(self.histogram.iter().copied(), 50_000)
    }

    fn mean_of_hook(&self, hook: usize) -> Option<f64> {
        let spans = self.report.hook_spans[hook];
        (spans != 0).then(|| self.report.hook_sum[hook] as f64 / spans as f64)
    }

    /// The samples net of `empty`, which were taken on the same way with nothing between the
    /// probe's hooks.
    pub fn net_of(&self, empty: &Self) -> Result<HookCost> {
        let overhead = empty
            .median()
            .context("no packet was recorded when the probe's own cost was taken")?;
        let histogram = Histogram::from_pairs(
            self.histogram
                .iter()
                .map(|&(value, count)| (value.saturating_sub(overhead), count)),
        );
        let by_hook: BTreeMap<String, f64> = HOOK_NAMES
            .iter()
            .enumerate()
            .filter_map(|(hook, name)| {
                let mean = self.mean_of_hook(hook)?;
                let net = mean - empty.mean_of_hook(hook).unwrap_or_default();
                Some(((*name).to_owned(), net))
            })
            .collect();
        let report = &self.report;
        Ok(HookCost {
            overhead,
            packets: report.packets,
            interrupted: report.interrupted,
            torn: report.torn,
            histogram,
            sum: report
                .sum
                .saturating_sub(overhead.saturating_mul(report.packets)),
            min: report.min.saturating_sub(overhead),
            max: report.max.saturating_sub(overhead),
            by_hook,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutex_abi::bytes::Writer;

    fn samples(values: &[(u64, u64)]) -> Samples {
        let packets = values.iter().map(|&(_, count)| count).sum();
        Samples {
            report: Report {
                packets,
                sum: values.iter().map(|&(value, count)| value * count).sum(),
                min: values.first().map_or(0, |&(value, _)| value),
                max: values.last().map_or(0, |&(value, _)| value),
                hook_sum: [packets * 10, 0, 0, 0, 0],
                hook_spans: [packets, 0, 0, 0, 0],
                buckets: values.len() as u64,
                ..Report::default()
            },
            histogram: values.to_vec(),
        }
    }

    #[test]
    fn overhead_is_taken_off_everywhere() {
        let empty = samples(&[(56, 9), (90, 1)]);
        let cost = samples(&[(50, 1), (56, 2), (156, 7)])
            .net_of(&empty)
            .unwrap();
        assert_eq!(cost.overhead, 56);
        assert_eq!(
            cost.histogram.pairs().collect::<Vec<_>>(),
            [(0, 3), (100, 7)]
        );
        assert_eq!((cost.min, cost.max), (0, 100));
        assert_eq!(cost.sum, 50 + 112 + 1092 - 560);
        assert_eq!(cost.by_hook["pre_routing"], 0.0);
        assert!(!cost.by_hook.contains_key("local_in"));
    }

    #[test]
    fn without_calibration_there_is_no_cost() {
        assert!(samples(&[(1, 1)]).net_of(&samples(&[])).is_err());
    }

    #[test]
    fn samples_survive_the_way_from_the_kernel() {
        let wanted = samples(&[(56, 9), (90, 1)]);
        let mut bytes = vec![0; Report::SIZE + 2 * Report::BUCKET_SIZE];
        let mut writer = Writer::new(&mut bytes);
        wanted.report.encode(&mut writer).unwrap();
        for &(value, count) in &wanted.histogram {
            let index = ProbeScale::index(value) as u32;
            writer.put(&index.to_le_bytes()).unwrap();
            writer.put(&(count as u32).to_le_bytes()).unwrap();
        }
        assert_eq!(Samples::read(&mut Reader::new(&bytes)).unwrap(), wanted);
        let short = &bytes[..bytes.len() - 1];
        assert!(Samples::read(&mut Reader::new(short)).is_err());
    }
}
