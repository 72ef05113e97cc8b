// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::branches::branches;
use crate::functions::{rows, View};
use crate::sample::*;

fn own(analysis: &Analysis, view: View, name: &str) -> (u64, u64) {
    let rows = rows(analysis, view);
    let row = rows.iter().find(|row| row.function.name == name).unwrap();
    (row.own.instructions, row.inclusive)
}

#[test]
fn instructions_are_those_of_functions() {
    let analysis = analyse(&recording()).unwrap();
    assert_eq!(analysis.span().instructions, 400);
    assert_eq!(analysis.window().instructions, 1000);
    assert_eq!(analysis.per_packet(400), 40.0);
    for (view, name, expected) in [
        (View::Spans, "proxy::run", (200, 300)),
        (View::Spans, "proxy::find", (100, 100)),
        (View::Spans, "nf_hook_slow", (100, 400)),
        (View::Spans, "net_rx", (0, 400)),
        (View::Window, "nf_hook_slow", (150, 450)),
        (View::Window, "net_rx", (500, 950)),
        (View::Window, "timer", (50, 50)),
    ] {
        assert_eq!(own(&analysis, view, name), expected, "{name} in {view:?}");
    }
}

#[test]
fn what_was_jumped_to_is_below_what_was_called() {
    let analysis = analyse(&recording()).unwrap();
    let find = analysis
        .frames
        .iter()
        .find(|frame| analysis.name(frame) == "proxy::find")
        .unwrap();
    assert_eq!(find.entry, Reached::Jump);
    assert_eq!(
        analysis.name(&analysis.frames[find.parent as usize]),
        "proxy::run"
    );
}

#[test]
fn a_tree_of_spans_begins_where_they_do() {
    let analysis = analyse(&recording()).unwrap();
    let name = |index: u32| analysis.functions[index as usize].name.as_str();
    let spans = branches(&analysis, View::Spans);
    // One caller above the outermost function.
    assert_eq!(spans.len(), 1);
    assert_eq!(
        (name(spans[0].function), spans[0].own, spans[0].total),
        ("net_rx", 0, 400)
    );
    let hook = &spans[0].children[0];
    assert_eq!(
        (name(hook.function), hook.own, hook.total),
        ("nf_hook_slow", 100, 400)
    );
    let window = branches(&analysis, View::Window);
    let totals: Vec<_> = window
        .iter()
        .map(|branch| (name(branch.function), branch.total))
        .collect();
    assert_eq!(totals, [("net_rx", 950), ("timer", 50)]);
}

#[test]
fn recursion_is_counted_once() {
    let mut recording = recording();
    recording.nodes.push(node(3, Entry::Call, 0x9000, 10));
    recording.code.push(code(5, 0x9004, true, 30));
    recording.instructions[0] += 30;
    let analysis = analyse(&recording).unwrap();
    assert_eq!(own(&analysis, View::Spans, "proxy::run"), (230, 330));
}

#[test]
fn code_without_a_symbol_is_told_as_such() {
    let mut recording = recording();
    recording.nodes.push(node(0, Entry::Unseen, 0x50_0000, 1));
    recording.code.push(code(5, 0x50_0000, false, 7));
    // Behind the last function, but in its section.
    recording.code.push(code(3, 0x91f0, true, 3));
    recording.instructions[1] += 10;
    let analysis = analyse(&recording).unwrap();
    assert_eq!(own(&analysis, View::Window, "[unknown]"), (7, 7));
    assert_eq!(own(&analysis, View::Spans, "[no symbol]"), (3, 3));
}

#[test]
fn memory_is_named_and_ours_is_told_apart() {
    let analysis = analyse(&recording()).unwrap();
    let find = |name: &str| {
        let objects = &analysis.objects;
        objects
            .iter()
            .find(|object| object.identity.name == name)
            .unwrap_or_else(|| panic!("no {name} in {objects:#?}"))
    };
    let flow = find("mutex_flow_v4 +64");
    assert!(flow.identity.ours);
    assert_eq!(
        (flow.lines, flow.used, flow.written, flow.shared_written),
        (1, 10, 10, 0)
    );
    assert!(find("kmalloc-64, first used by proxy::run").identity.ours);
    let kernels = find("kmalloc-64, first used by nf_hook_slow");
    assert!(!kernels.identity.ours);
    assert_eq!(kernels.shared_written, 10);
    let keys = find("proxy::KEYS");
    assert!(keys.identity.ours);
    assert_eq!((keys.shared, keys.shared_written), (1, 10));
    assert!(!find("jiffies").identity.ours);
    assert_eq!(analysis.ours().map(|object| object.used).sum::<u64>(), 30);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |change: fn(&mut Recording), part: &str| {
        let mut recording = recording();
        change(&mut recording);
        let error = format!("{:#}", analyse(&recording).unwrap_err());
        assert!(error.contains(part), "{error}");
    };
    refused(
        |recording| recording.instructions[1] += 1,
        "1001 instructions were executed in the window, but 1000 are in",
    );
    refused(
        |recording| recording.nodes[1].parent = 2,
        "before its caller",
    );
    refused(|recording| recording.code[0].node = 9, "no node 9");
    refused(
        |recording| recording.code[0].node = 0,
        "root has instructions",
    );
    refused(|recording| recording.version += 1, "version");
}

#[test]
fn an_analysis_survives_its_file() {
    let analysis = analyse(&recording()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    analysis.write(&path).unwrap();
    assert_eq!(Analysis::read(&path).unwrap(), analysis);
    let damaged = Analysis {
        instructions: vec![1],
        ..analysis
    };
    damaged.write(&path).unwrap();
    assert!(Analysis::read(&path).is_err());
}
