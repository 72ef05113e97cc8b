// SPDX-License-Identifier: MIT OR Apache-2.0

//! What metrics of the lens are called.

/// Instructions in spans, the probe's own included.
pub const INSTRUCTIONS: &str = "lens.instructions";
/// Lines of `mutex_proxy` that a packet uses.
pub const OURS_LINES: &str = "lens.ours.lines";
/// Of these, those that it writes and another CPU uses, too.
pub const OURS_SHARED_WRITTEN: &str = "lens.ours.shared_written";
/// Misses of `mutex_proxy`'s lines in the last level.
pub const OURS_LAST_MISSES: &str = "lens.ours.last_misses";
/// Misses of L1I.
pub const L1I_MISSES: &str = "lens.l1i_misses";
/// Misses of L1D.
pub const L1D_MISSES: &str = "lens.l1d_misses";
/// Misses of L2.
pub const L2_MISSES: &str = "lens.l2_misses";
/// Misses of the last level.
pub const LAST_MISSES: &str = "lens.last_misses";
/// Lines that came from other CPUs, or that these had to give up.
pub const TRANSFERS: &str = "lens.transfers";
/// The estimate in cycles.
pub const CYCLES: &str = "lens.cycles";
