// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an analysis says as metrics, of the spans of packets and for each packet.

use super::analysis::Analysis;
use super::cycles::WEIGHTS;
pub use mutexlab_results::lens_metrics::{
    CYCLES, INSTRUCTIONS, L1D_MISSES, L1I_MISSES, L2_MISSES, LAST_MISSES, OURS_LAST_MISSES,
    OURS_LINES, OURS_SHARED_WRITTEN, TRANSFERS,
};
use mutexlab_results::metric::{Better, Kind, Metric, Unit};

/// All of them; none if no packet was seen. What is counted is `exact`, unless what packets do is another matter in
/// each boot: then it is of that kind, and so is what is modelled.
pub fn of(analysis: &Analysis, exact: Kind) -> Vec<Metric> {
    if analysis.packets == 0 {
        return Vec::new();
    }
    let model = match exact {
        Kind::Exact => Kind::Modelled,
        other => other,
    };
    let span = analysis.span();
    let ours = |count: fn(&super::analysis::Object) -> u64| analysis.ours().map(count).sum::<u64>();
    let metric = |name: &str, unit, kind, count| Metric {
        name: name.to_owned(),
        unit,
        better: Better::Lower,
        kind,
        value: analysis.per_packet(count),
    };
    let counted = |name, count| metric(name, Unit::PerPacket, exact, count);
    let modelled = |name, count| metric(name, Unit::PerPacket, model, count);
    vec![
        metric(
            INSTRUCTIONS,
            Unit::InstructionsPerPacket,
            exact,
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
        metric(CYCLES, Unit::CyclesPerPacket, model, WEIGHTS.cycles(&span)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::example;

    #[test]
    fn metrics_are_for_each_packet() {
        let metrics = of(&example(|_| ()), Kind::Exact);
        let metric = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
        // Ten packets took 400 instructions; each used three lines of the proxy, of which one is written
        // and shared, and of which five accesses missed.
        for (name, kind, value) in [
            (INSTRUCTIONS, Kind::Exact, 40.0),
            (OURS_LINES, Kind::Exact, 3.0),
            (OURS_SHARED_WRITTEN, Kind::Exact, 1.0),
            (OURS_LAST_MISSES, Kind::Modelled, 1.5),
            (CYCLES, Kind::Modelled, 40.0),
        ] {
            assert_eq!(
                (metric(name).kind, metric(name).value),
                (kind, value),
                "{name}"
            );
        }
        assert_eq!(
            of(&example(|recording| recording.packets = 0), Kind::Exact),
            []
        );
        let sampled = of(&example(|_| ()), Kind::Sampled);
        assert!(sampled.iter().all(|metric| metric.kind == Kind::Sampled));
    }
}
