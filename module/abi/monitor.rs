// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The text files below /proc/net/mutex_proxy/, of a network namespace that has a context.
//!
//! Lines end with a line feed, words are separated by one space, and numbers are decimal. The
//! first line names the file and the version of its format.
//!
//! `stats` goes on with the line `cpus` and the numbers of the CPUs that the machine can have,
//! ascending; then comes a line for each counter of [`Stats`](super::proxy::Stats), in that
//! order: its name, its total, and what each of those CPUs counted of it. The total is exactly
//! the sum of the line, modulo 2^64. What is no count but a state of the whole namespace, like
//! `flows_current`, has its value alone.
//!
//! `hash` goes on with the same six lines for each IP version, whose name comes first: `v4_flows`
//! and `v4_chains` are how many there are; `v4_entries` is how many entries are on chains, two for
//! each flow; `v4_collisions`, how many of them are not the first on theirs; `v4_longest_chain`,
//! the most on one; and `v4_chains_of_length` has [`CHAIN_LENGTHS`] numbers: how many chains have
//! no entry, one, two and so on, the last how many have that many or more. Packets pass while the
//! chains are walked: numbers of one reading need not agree.
//!
//! `pool` goes on with the line `cpus` as in `stats`, and then, for each IP version, with what the
//! module has of memory for flows: for all namespaces together, in flows. `v4_nodes` is how many
//! there are; of these `v4_idle` wait to be used, `v4_waiting` were removed and wait until no packet
//! is in them, and the others are in use; `v4_peak`, the most there ever were; `v4_grace_periods`,
//! after how many grace periods flows were reclaimed. Three lines have a total and a number for
//! each CPU: `v4_alloc_fast`, memory that was taken from what was idle; `v4_alloc_slow`, from the
//! kernel's allocator; `v4_freed`, given back.

/// How many lengths of chains the file `hash` tells apart.
pub const CHAIN_LENGTHS: usize = 16;
/// First line of the file `hash`.
pub const HASH_TITLE: &str = "# mutex_proxy hash 1";
/// First line of the file `pool`.
pub const POOL_TITLE: &str = "# mutex_proxy pool 1";
/// First line of the file `stats`.
pub const STATS_TITLE: &str = "# mutex_proxy stats 1";
