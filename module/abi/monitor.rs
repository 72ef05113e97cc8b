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

/// First line of the file `stats`.
pub const STATS_TITLE: &str = "# mutex_proxy stats 1";
