// SPDX-License-Identifier: GPL-2.0

//! What /proc/net/mutex_proxy/ says of a namespace; `abi::monitor` tells the format.

use core::fmt::Write;
use core::marker::PhantomData;

use kernel::c_str;
use kernel::prelude::*;
use kernel::str::CStr;

use self::Source::{Counted, Gauge, OfLocks};
use crate::abi::histogram::{Octaves, Scale};
use crate::abi::monitor::{
    BATCH_TITLE, BUCKET_LENGTHS, HASH_TITLE, LATENCY_HOOKS, LATENCY_PRECISION, LATENCY_RANGE,
    LATENCY_TITLE, POOL_TITLE, STATS_TITLE,
};
use crate::abi::proxy;
use crate::datapath::batch::FlushReason;
use crate::datapath::tuple::{V4, V6};
use crate::instance::{Counter, Instance, Version};
use crate::registry::Registry;
use crate::sys::latency::Histogram;
use crate::sys::lock;
use crate::sys::percpu;
use crate::sys::pool::AllocStats;
use crate::sys::procfs::{Directory, File, Text};
use crate::sys::task;
use crate::sys::time;
use crate::sys::window::Window;

/// Readable by everybody: counts.
const OPEN: u16 = 0o444;
/// Readable by the owner: the lengths of buckets tell which tuples collide, and times tell what others
/// send.
const OWNED: u16 = 0o400;

/// Puts the files of a namespace into its directory. To read one gives ENOENT while there is no context.
pub(crate) fn publish(directory: &mut Directory<Registry>) -> Result {
    directory.file::<Of<StatsFile>>()?;
    directory.file::<Of<BatchFile>>()?;
    directory.file::<Of<HashFile>>()?;
    directory.file::<Of<PoolFile>>()?;
    directory.file::<Of<LatencyFile>>()
}

/// A file about an instance.
trait Show {
    const NAME: &'static CStr;
    const MODE: u16;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result;
}

/// The file about the instance that the namespace has.
struct Of<S>(PhantomData<S>);

impl<S: Show> File for Of<S> {
    type Target = Registry;
    const NAME: &'static CStr = S::NAME;
    const MODE: u16 = S::MODE;

    fn show(registry: &Registry, out: &mut Text<'_>) -> Result {
        let instance = registry.instance().ok_or(ENOENT)?;
        Window::Show.pass();
        S::show(&instance, out)
    }
}

/// Where a line's numbers come from.
enum Source {
    /// Each CPU counts.
    Counted(Counter),
    /// Each CPU counts what it does with locks.
    OfLocks(lock::LockCounter),
    /// A state of the whole namespace.
    Gauge(fn(&Instance) -> u64),
}

/// The lines of `stats`, in the order of `abi::proxy::Stats`.
const LINES: [(&str, Source); proxy::Stats::NAMES.len()] = [
    ("packets_original", Counted(Counter::PacketsOriginal)),
    ("packets_reply", Counted(Counter::PacketsReply)),
    ("bytes_original", Counted(Counter::BytesOriginal)),
    ("bytes_reply", Counted(Counter::BytesReply)),
    ("flows_created", Counted(Counter::FlowsCreated)),
    ("flows_removed", Counted(Counter::FlowsRemoved)),
    ("flows_evicted", Counted(Counter::FlowsEvicted)),
    ("flows_current", Gauge(|of| of.flow_count() as u64)),
    ("dropped_no_memory", Counted(Counter::DroppedNoMemory)),
    ("dropped_table_full", Counted(Counter::DroppedTableFull)),
    ("dropped_no_port", Counted(Counter::DroppedNoPort)),
    ("dropped_no_route", Counted(Counter::DroppedNoRoute)),
    ("malformed", Counted(Counter::Malformed)),
    ("icmp_translated", Counted(Counter::IcmpTranslated)),
    ("cache_hits", Counted(Counter::CacheHits)),
    ("cache_misses", Counted(Counter::CacheMisses)),
    (
        "lock_acquisitions",
        OfLocks(lock::LockCounter::Acquisitions),
    ),
    ("lock_contentions", OfLocks(lock::LockCounter::Contentions)),
    ("packets_direct", Counted(Counter::PacketsDirect)),
    ("bytes_direct", Counted(Counter::BytesDirect)),
    ("flows_direct", Counted(Counter::FlowsDirect)),
    ("packets_blocked", Counted(Counter::PacketsBlocked)),
];

/// The counters, for each CPU.
struct StatsFile;

impl Show for StatsFile {
    const NAME: &'static CStr = c_str!("stats");
    const MODE: u16 = OPEN;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result {
        writeln!(out, "{STATS_TITLE}")?;
        out.write_str("cpus")?;
        numbers(out, percpu::cpus())?;
        for (name, source) in &LINES {
            write!(out, "\n{name}")?;
            match *source {
                Gauge(read) => numbers(out, [read(instance)])?,
                Counted(counter) => sum_and_counts(out, instance.by_cpu(counter))?,
                OfLocks(counter) => sum_and_counts(out, instance.locks.by_cpu(counter as usize))?,
            }
        }
        out.write_str("\n")?;
        Ok(())
    }
}

fn sum_and_counts(out: &mut Text<'_>, by_cpu: impl Iterator<Item = u64>) -> Result {
    // Read once, so that the total is the sum of what the line says.
    let mut counts = KVec::new();
    for count in by_cpu {
        counts.push(count, GFP_KERNEL)?;
    }
    let total = counts.iter().copied().fold(0, u64::wrapping_add);
    numbers(out, [total])?;
    numbers(out, counts.iter())
}

fn numbers(
    out: &mut Text<'_>,
    numbers: impl IntoIterator<Item = impl core::fmt::Display>,
) -> Result {
    for number in numbers {
        write!(out, " {number}")?;
    }
    Ok(())
}

/// How packets waited for each other.
struct BatchFile;

impl Show for BatchFile {
    const NAME: &'static CStr = c_str!("batch");
    const MODE: u16 = OPEN;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result {
        writeln!(out, "{BATCH_TITLE}")?;
        out.write_str("cpus")?;
        numbers(out, percpu::cpus())?;
        let batches = &instance.batches;
        out.write_str("\npackets")?;
        sum_and_counts(out, batches.packets())?;
        for (name, reason) in [
            ("full", FlushReason::Full),
            ("late", FlushReason::Late),
            ("round", FlushReason::Round),
            ("order", FlushReason::Order),
        ] {
            write!(out, "\n{name}")?;
            sum_and_counts(out, batches.flushes(reason))?;
        }
        out.write_str("\n")?;
        Ok(())
    }
}

/// How well the flows are spread over the tables.
struct HashFile;

impl Show for HashFile {
    const NAME: &'static CStr = c_str!("hash");
    const MODE: u16 = OWNED;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result {
        writeln!(out, "{HASH_TITLE}")?;
        table::<V4>(instance, "v4", out)?;
        table::<V6>(instance, "v6", out)
    }
}

fn table<A: Version>(instance: &Instance, name: &str, out: &mut Text<'_>) -> Result {
    let flows = A::flows(instance);
    let mut of_length = [0_u64; BUCKET_LENGTHS];
    let (mut buckets, mut entries, mut collisions, mut longest) = (0_u64, 0_u64, 0_u64, 0);
    flows.lengths(|length| {
        buckets = buckets.wrapping_add(1);
        entries = entries.wrapping_add(length as u64);
        collisions = collisions.wrapping_add(length.saturating_sub(1) as u64);
        longest = longest.max(length);
        if let Some(count) = of_length.get_mut(length.min(BUCKET_LENGTHS - 1)) {
            *count = count.wrapping_add(1);
        }
    });
    writeln!(out, "{name}_flows {}", flows.count())?;
    writeln!(out, "{name}_buckets {buckets}")?;
    writeln!(out, "{name}_entries {entries}")?;
    writeln!(out, "{name}_collisions {collisions}")?;
    writeln!(out, "{name}_longest_bucket {longest}")?;
    write!(out, "{name}_buckets_of_length")?;
    numbers(out, of_length)?;
    out.write_str("\n")?;
    Ok(())
}

/// The memory that flows are in.
struct PoolFile;

impl Show for PoolFile {
    const NAME: &'static CStr = c_str!("pool");
    const MODE: u16 = OWNED;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result {
        // The file tells of all namespaces, and the owner of one need not own the machine.
        if !task::is_machine_admin() {
            return Err(EPERM);
        }
        writeln!(out, "{POOL_TITLE}")?;
        out.write_str("cpus")?;
        numbers(out, percpu::cpus())?;
        out.write_str("\n")?;
        memory::<V4>(instance, "v4", out)?;
        memory::<V6>(instance, "v6", out)
    }
}

fn memory<A: Version>(instance: &Instance, name: &str, out: &mut Text<'_>) -> Result {
    let pool = A::flows(instance).pool();
    let usage = pool.usage();
    writeln!(out, "{name}_nodes {}", usage.nodes)?;
    writeln!(out, "{name}_idle {}", usage.idle)?;
    for (node, idle) in pool.depots().enumerate() {
        writeln!(out, "{name}_idle_on_node{node} {idle}")?;
    }
    writeln!(out, "{name}_waiting {}", usage.limbo)?;
    writeln!(out, "{name}_peak {}", usage.peak)?;
    writeln!(out, "{name}_grace_periods {}", usage.grace_periods)?;
    let mut all = KVec::new();
    for taken in pool.alloc_stats() {
        all.push(taken, GFP_KERNEL)?;
    }
    let mut line = |what: &str, read: fn(&AllocStats) -> u64| -> Result {
        let total = all.iter().map(read).fold(0, u64::wrapping_add);
        write!(out, "{name}_{what} {total}")?;
        numbers(out, all.iter().map(read))?;
        out.write_str("\n")?;
        Ok(())
    };
    line("alloc_fast", |taken| taken.fast)?;
    line("alloc_slow", |taken| taken.slow)?;
    line("freed", |taken| taken.freed)
}

/// How long hooks take.
struct LatencyFile;

impl Show for LatencyFile {
    const NAME: &'static CStr = c_str!("latency");
    const MODE: u16 = OWNED;

    fn show(instance: &Instance, out: &mut Text<'_>) -> Result {
        writeln!(out, "{LATENCY_TITLE}")?;
        writeln!(out, "unit ticks")?;
        writeln!(out, "tsc_khz {}", time::ticks_khz())?;
        writeln!(out, "precision {LATENCY_PRECISION}")?;
        out.write_str("cpus")?;
        numbers(out, percpu::cpus())?;
        out.write_str("\n")?;
        for (name, histogram) in Iterator::zip(LATENCY_HOOKS.iter(), &instance.latency) {
            hook(name, histogram, out)?;
        }
        Ok(())
    }
}

fn hook(name: &str, histogram: &Histogram, out: &mut Text<'_>) -> Result {
    type Buckets = Scale<LATENCY_PRECISION, LATENCY_RANGE>;
    let cpus = percpu::cpus().count();
    // Read once, so that the total is the sum of what the CPUs' lines say, for each bucket.
    let mut counts = KVVec::with_capacity(Buckets::BUCKETS.saturating_mul(cpus), GFP_KERNEL)?;
    for bucket in 0..Buckets::BUCKETS {
        let place = Octaves::<LATENCY_PRECISION>::index(Buckets::lowest(bucket) as u32);
        for count in histogram.by_cpu(place) {
            counts.push(count, GFP_KERNEL)?;
        }
    }
    let sum = |counts: &[u64]| counts.iter().copied().fold(0, u64::wrapping_add);
    out.write_str(name)?;
    buckets(out, || counts.chunks(cpus.max(1)).map(sum))?;
    for (column, cpu) in percpu::cpus().enumerate() {
        let of_cpu = || counts.iter().copied().skip(column).step_by(cpus.max(1));
        if of_cpu().any(|count| count != 0) {
            write!(out, "{name}_cpu {cpu}")?;
            buckets(out, of_cpu)?;
        }
    }
    Ok(())
}

// The rest of a line: the total, and the buckets that are not empty.
fn buckets<I: Iterator<Item = u64>>(out: &mut Text<'_>, counts: impl Fn() -> I) -> Result {
    write!(out, " {}", counts().fold(0, u64::wrapping_add))?;
    for (bucket, count) in counts().enumerate().filter(|&(_, count)| count != 0) {
        let lowest = Scale::<LATENCY_PRECISION, LATENCY_RANGE>::lowest(bucket);
        write!(out, " {lowest}:{count}")?;
    }
    out.write_str("\n")?;
    Ok(())
}
