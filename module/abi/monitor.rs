// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The text files below /proc/net/mutex_proxy/, of a network namespace. To read one gives ENOENT while that has no context.
//!
//! Lines end with a line feed, words are separated by one space, and numbers are decimal. The
//! first line names the file and the version of its format.
//!
//! `stats` goes on with the line `cpus` and the numbers of the CPUs that the machine can have,
//! ascending; then comes a line for each counter of [`Stats`](super::proxy::Stats), in that
//! order: its name, its total, and what each of those CPUs counted of it. The total is exactly
//! the sum of the line, modulo 2^64. A line that is a state of the whole namespace and no count, like
//! `flows_current`, has its value alone.
//!
//! `batch` is laid out like `stats`. Its lines are `packets`, how many packets waited for others, and
//! how often a CPU's queue was flushed, for each reason: `full`, as many packets waited as may;
//! `late`, the first had waited as long as it may; `round`, the softirq round that had received them was
//! over; `order`, a packet came that cannot wait. Packets divided by the sum of the others is the
//! mean size of a batch.
//!
//! `hash` goes on with the same six lines for each IP version, whose name comes first: `v4_flows`
//! and `v4_buckets` are how many there are; `v4_entries` is how many entries are in buckets, two for
//! each flow; `v4_collisions`, how many of them are not the first in theirs; `v4_longest_bucket`,
//! the most in one; and `v4_buckets_of_length` has [`BUCKET_LENGTHS`] numbers: how many buckets have
//! no entry, one, two and so on, the last how many have that many or more. Packets pass while the
//! buckets are walked: numbers of one reading need not agree.
//!
//! `pool` goes on with the line `cpus` as in `stats`, and then, for each IP version, with the module's
//! memory for flows: for all namespaces together, in flows. `v4_nodes` is how many there are. Of these
//! `v4_idle` are idle; `v4_idle_on_node0` and so on, a line for each NUMA node, are those in the node's depot
//! and in no CPU's magazine. `v4_waiting` are in limbo: they were removed, and readers may still see them. The
//! others are in use. `v4_peak` is the most there ever were; `v4_grace_periods`,
//! after how many grace periods flows were reclaimed. Three lines have a total and a number for
//! each CPU: `v4_alloc_fast`, memory that was taken from what was idle; `v4_alloc_slow`, from the
//! kernel's allocator; `v4_freed`, given back.
//!
//! `latency` is how long the hooks took for packets, each counted in a histogram, while the
//! parameter `perf_enable_profiling` was set. It goes on with the lines `unit ticks`, of the
//! time-stamp counter; `tsc_khz`, how many thousands of them a second has, or 0 if the kernel does
//! not know; `precision`, the bits of precision of the histograms ([`LATENCY_PRECISION`], and
//! [`LATENCY_RANGE`]); and `cpus`, as in `stats`. Then come for each of [`LATENCY_HOOKS`], in that
//! order: a line with its name, the number of packets, and a word for each bucket that is not
//! empty, ascending: the lowest value in it, a colon, and its packets. And for each CPU that
//! recorded any, ascending, the same line of that CPU: the name is followed by `_cpu`, and before
//! the number of packets is the CPU's. The first line is exactly the sum of these, and a line's
//! number of packets exactly the sum of its buckets'. Counts are never taken back: those of a time
//! are a later reading less an earlier one.

/// How many lengths of buckets the file `hash` tells apart.
pub const BUCKET_LENGTHS: usize = 16;
/// First line of the file `batch`.
pub const BATCH_TITLE: &str = "# mutex_proxy batch 1";
/// First line of the file `hash`.
pub const HASH_TITLE: &str = "# mutex_proxy hash 2";
/// The hooks of which the file `latency` tells.
pub const LATENCY_HOOKS: [&str; 4] = [
    "v4_pre_routing",
    "v6_pre_routing",
    "v4_local_out",
    "v6_local_out",
];
/// Bits of precision of the histograms in the file `latency`: a bucket is at most a sixteenth of its
/// lowest value wide.
pub const LATENCY_PRECISION: u32 = 5;
/// Bits of their range: a hook that takes longer is recorded without the bits above.
pub const LATENCY_RANGE: u32 = 32;
/// First line of the file `latency`.
pub const LATENCY_TITLE: &str = "# mutex_proxy latency 1";
/// First line of the file `pool`.
pub const POOL_TITLE: &str = "# mutex_proxy pool 1";
/// First line of the file `stats`.
pub const STATS_TITLE: &str = "# mutex_proxy stats 1";
