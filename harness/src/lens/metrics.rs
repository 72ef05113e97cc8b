// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an analysis says as metrics, of the spans of packets and for each packet.

use super::analysis::Analysis;
use super::cycles::WEIGHTS;
use crate::results::metrics::{Better, Kind, Metric, Unit};

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

/// All of them; none if no packet was seen.
pub fn of(analysis: &Analysis) -> Vec<Metric> {
    if analysis.packets == 0 {
        return Vec::new();
    }
    let span = analysis.span();
    let ours = |count: fn(&super::analysis::Object) -> u64| analysis.ours().map(count).sum::<u64>();
    let metric = |name: &str, unit, kind, count| Metric {
        name: name.to_owned(),
        unit,
        better: Better::Lower,
        kind,
        value: analysis.per_packet(count),
    };
    let counted = |name, count| metric(name, Unit::PerPacket, Kind::Exact, count);
    let modelled = |name, count| metric(name, Unit::PerPacket, Kind::Modelled, count);
    vec![
        metric(
            INSTRUCTIONS,
            Unit::InstructionsPerPacket,
            Kind::Exact,
            span.instructions,
        ),
        counted(OURS_LINES, ours(|object| object.used)),
        counted(OURS_SHARED_WRITTEN, ours(|object| object.shared_written)),
        modelled(OURS_LAST_MISSES, ours(|object| object.span.last_misses)),
        modelled(L1I_MISSES, span.l1i_misses),
        modelled(L1D_MISSES, span.l1d_misses),
        modelled(L2_MISSES, span.l2_misses),
        modelled(LAST_MISSES, span.last_misses),
        modelled(TRANSFERS, span.transfers),
        metric(
            CYCLES,
            Unit::CyclesPerPacket,
            Kind::Modelled,
            WEIGHTS.cycles(&span),
        ),
    ]
}
