// SPDX-License-Identifier: MIT OR Apache-2.0

//! What metrics are called and mean. Units, directions and kinds are the data's; the words are made
//! of a name's parts, so that a metric that this program does not know is explained as far as may be.

use std::collections::{BTreeMap, BTreeSet};

use maud::{html, Markup};

use super::run::Run;
use mutexlab_draw::figure;
use mutexlab_lens_analysis::metrics as lens;
use mutexlab_results::metric::{
    FIRST_PACKET, FIRST_PACKET_P10, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN, PATH_OVER_NONE,
};
use mutexlab_results::travel::{
    B2B_CORRECTED, B2B_IMPLIED, B2B_LOSSY, B2B_MEAN, B2B_TESTS, DUPLICATES, FLOWS_REPLACED,
    GENERATOR_LIMIT, GENERATOR_SHARE, LOSS, REORDERED, THROUGHPUT_GBIT, THROUGHPUT_PPS,
};

/// A metric's title for a person; its own name if there is none.
pub fn title(name: &str) -> String {
    match name {
        HOOK_MEAN => "Hook cost, mean of both directions".to_owned(),
        FIRST_PACKET => "First packet of a flow, in the hooks".to_owned(),
        FIRST_PACKET_P10 => "First packet of a flow, in the hooks, 10th percentile".to_owned(),
        MEMORY_PER_FLOW => "Kernel memory of a flow".to_owned(),
        PATH_MEAN => "Whole path of a packet".to_owned(),
        PATH_OVER_NONE => "Whole path, beyond bare forwarding".to_owned(),
        "latency.p50" => "Latency there and back, median".to_owned(),
        "latency.p99" => "Latency there and back, p99".to_owned(),
        THROUGHPUT_PPS => "Packets that were answered".to_owned(),
        THROUGHPUT_GBIT => "Bits that were answered".to_owned(),
        LOSS => "Packets that were not answered".to_owned(),
        lens::CYCLES => "Cycles in the hooks, as the lens estimates them".to_owned(),
        lens::TRANSFERS => "Cache lines from other CPUs, in the hooks".to_owned(),
        lens::LAST_MISSES => "Cache lines from memory, in the hooks".to_owned(),
        lens::OURS_LINES => "Cache lines of the module's that a packet uses".to_owned(),
        B2B_MEAN => "Longest burst without a loss".to_owned(),
        B2B_CORRECTED => "Corrected DUT Buffer Time".to_owned(),
        _ => name.to_owned(),
    }
}

/// What histograms and metrics of this name are of: `hook.original` is the hook cost from client
/// to server.
pub fn span(name: &str) -> String {
    let mut words = Vec::new();
    for part in name.split('.') {
        words.push(match part {
            "hook" => "hook cost".to_owned(),
            "path" => "whole path".to_owned(),
            "latency" => "latency there and back".to_owned(),
            "lateness" => "by how much packets were sent too late".to_owned(),
            "original" => "client to server".to_owned(),
            "reply" => "server to client".to_owned(),
            other => other.replace('_', " "),
        });
    }
    words.join(", ")
}

/// What a metric means.
pub fn definition(name: &str) -> String {
    let known = match name {
        B2B_MEAN => "frames of the longest burst that got through without a loss, mean of all searches (RFC 9004, section 6.3)",
        B2B_IMPLIED => "the time that such a burst takes at its rate (RFC 9004, section 6.4)",
        B2B_CORRECTED => "the same without the frames that were passed on while the burst was sent (RFC 9004, section 6.4)",
        B2B_TESTS => "searches of the longest burst",
        B2B_LOSSY => "searches that a loss ended; the others were ended by the generator, or by the longest burst that was to be tried",
        HOOK_MEAN => "what a packet spends from a hook before all others to one behind them, added up over netfilter's places on its way, the probe's own cost taken off; the mean of the means of both directions",
        FIRST_PACKET => "the same, of the packet that makes a flow; the median over several flows",
        FIRST_PACKET_P10 => "the same, the 10th percentile over several flows: with connection tracking, whose random key moves the median, the same in every boot",
        MEMORY_PER_FLOW => "the kernel's memory that many established flows take, divided by their number",
        PATH_MEAN => "all that happens from one packet to the next, the generator, both links and the receivers included; says little by itself",
        PATH_OVER_NONE => "the whole path less that of bare forwarding of the same traffic: what the subject causes or saves anywhere",
        THROUGHPUT_PPS => "packets of the client that were answered, a second of the guest's clock",
        THROUGHPUT_GBIT => "bits of their frames, a second of the guest's clock",
        LOSS => "packets of the client that were not answered",
        REORDERED => "answers that came after one to a later packet",
        DUPLICATES => "answers that had come before",
        FLOWS_REPLACED => "new flows that took the place of others",
        GENERATOR_LIMIT => "what the generator is capable of by itself",
        lens::INSTRUCTIONS => "instructions within the hooks, counted one by one; the probe's own are among them",
        lens::OURS_LINES => "lines of memory of the module's that a packet uses within the hooks",
        lens::OURS_SHARED_WRITTEN => "of these, those that the packet writes and another CPU uses, too",
        lens::OURS_LAST_MISSES => "accesses to the module's lines that no cache answers",
        lens::L1I_MISSES => "fetches of code that the first level does not answer",
        lens::L1D_MISSES => "accesses to data that the first level does not answer",
        lens::L2_MISSES => "accesses that neither of the CPU's own caches answers",
        lens::LAST_MISSES => "accesses that no cache answers",
        lens::TRANSFERS => "lines that come from another CPU's cache, or that another CPU has to give up",
        lens::CYCLES => "an estimate: a cycle for each instruction, and the time of where each access is answered from; nothing overlaps",
        GENERATOR_SHARE => "the rate that was asked for or achieved, in percent of what the generator is capable of: near 100, the result is the generator's",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let (of, statistic) = name.rsplit_once('.').unwrap_or(("", name));
    // p99.9 has a point of its own.
    let (of, statistic) = match of.rsplit_once('.') {
        Some((rest, nines))
            if is_percentile(nines) && statistic.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (rest, format!("{nines}.{statistic}"))
        }
        _ => (of, statistic.to_owned()),
    };
    let statistic = match statistic.as_str() {
        "mean" => "mean".to_owned(),
        "max" => "maximum".to_owned(),
        "min" => "minimum".to_owned(),
        percentile if is_percentile(percentile) => format!(
            "{} % of the packets took at most this (nearest rank)",
            percentile.trim_start_matches('p')
        ),
        other => other.replace('_', " "),
    };
    if of.is_empty() {
        statistic
    } else {
        format!("{}: {statistic}", span(of))
    }
}

fn is_percentile(word: &str) -> bool {
    word.strip_prefix('p')
        .is_some_and(|digits| digits.starts_with(|first: char| first.is_ascii_digit()))
}

/// A unit in full, for axes.
pub fn unit(unit: &str) -> String {
    match unit {
        "instructions/packet" => "instructions per packet".to_owned(),
        "ns/packet" => "ns per packet".to_owned(),
        "cycles/packet" => "cycles per packet".to_owned(),
        "bytes/flow" => "bytes per flow".to_owned(),
        other => other.to_owned(),
    }
}

/// Every metric of the runs.
pub fn section(runs: &[&Run]) -> Markup {
    #[derive(Default)]
    struct Entry<'a> {
        units: BTreeSet<&'a str>,
        better: BTreeSet<&'a str>,
        kinds: BTreeSet<&'a str>,
    }
    let mut entries: BTreeMap<&str, Entry<'_>> = BTreeMap::new();
    for metric in runs
        .iter()
        .flat_map(|run| &run.cells)
        .flat_map(|cell| &cell.metrics)
    {
        let entry = entries.entry(&metric.name).or_default();
        entry.units.insert(&metric.unit);
        entry.better.insert(&metric.better);
        entry.kinds.insert(&metric.kind);
    }
    let all = |words: &BTreeSet<&str>| words.iter().copied().collect::<Vec<_>>().join(" or ");
    html! {
        section id="glossary" {
            h2 { "Every metric" }
            p {
                b { "Exact" } " metrics must be the same in every repetition, to the last digit; "
                b { "modelled" } " ones are a model's answer to what was counted (docs/lens.md); "
                b { "repeatable" } " ones are the same in each boot of the same seed and cells, and move a little with "
                "whatever was before them in their boot; " b { "sampled" } " ones may vary. A metric that is one or the other is exact where the "
                "cell has a single flow."
            }
            (figure::scroll(&html! {
                table class="text" {
                    thead { tr {
                        th scope="col" { "metric" } th scope="col" { "unit" } th scope="col" { "better" }
                        th scope="col" { "kind" } th scope="col" { "what it is" }
                    } }
                    tbody {
                        @for (name, entry) in &entries {
                            tr {
                                th scope="row" { code { (name) } }
                                td { (all(&entry.units)) }
                                td { (all(&entry.better)) }
                                td { (all(&entry.kinds)) }
                                td class="words" { (definition(name)) }
                            }
                        }
                    }
                }
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        for (name, text) in [
            (
                "hook.original.p99.9",
                "hook cost, client to server: 99.9 % of the packets took at most this (nearest rank)",
            ),
            ("hook.reply.pre_routing.mean", "hook cost, server to client, pre routing: mean"),
            ("latency.max", "latency there and back: maximum"),
            ("cache.hit_rate", "cache: hit rate"),
            ("throughput", "throughput"),
        ] {
            assert_eq!(definition(name), text);
        }
        assert!(definition("hook.mean").contains("taken off"));
    }
}
