// SPDX-License-Identifier: MIT OR Apache-2.0

//! The page as a whole: what a browser would trip over, and what a reader would miss.

use std::collections::BTreeSet;

use roxmltree::{Document, Node, ParsingOptions};

use super::archive::{Archive, Warning};
use super::golden::Golden;
use super::history::History;
use super::page::Page;
use super::synthetic;

fn archive() -> Archive {
    let mut archive = Archive::default();
    for commit in 0..4 {
        archive.add(synthetic::run(&synthetic::quick(commit)));
    }
    for file in [
        synthetic::ablation(),
        synthetic::flows(),
        synthetic::latency(),
        synthetic::scaling(),
    ] {
        archive.add(synthetic::run(&file));
    }
    archive.files = 8;
    archive.warnings = vec![Warning::new("<script>alert(1)</script>", "\"cut\" & short")];
    archive
}

fn page_of(archive: &Archive, history: &History) -> String {
    let golden: &[Golden] = &[];
    Page {
        archive,
        golden,
        history,
        order: &["quick", "ablation"],
        warnings: &[],
    }
    .html()
}

fn page() -> String {
    page_of(&archive(), &synthetic::history())
}

/// The page as XML, whose parsers forgive nothing. Only `meta` has no end in what is written.
fn with_document<T>(page: &str, look: impl FnOnce(&Document<'_>) -> T) -> T {
    let mut closed = String::new();
    for (index, part) in page.split("<meta").enumerate() {
        if index > 0 {
            let (meta, rest) = part.split_once('>').expect("an end of the meta");
            closed.push_str(&format!("<meta{meta}/>{rest}"));
        } else {
            closed.push_str(part);
        }
    }
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    look(&Document::parse_with_options(&closed, options).expect("well-formed XML"))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter_map(|node| node.text().filter(|_| node.is_text()))
        .collect()
}

fn has_class(node: &Node<'_, '_>, class: &str) -> bool {
    node.attribute("class")
        .is_some_and(|classes| classes.split(' ').any(|own| own == class))
}

#[test]
fn the_page_is_well_formed_and_ids_are_unique() {
    with_document(&page(), |document| {
        let mut ids = BTreeSet::new();
        for node in document.descendants() {
            if let Some(id) = node.attribute("id") {
                assert!(ids.insert(id), "{id} occurs twice");
            }
        }
        for node in document.descendants().filter(|node| node.has_tag_name("a")) {
            let target = node.attribute("href").unwrap();
            let id = target.strip_prefix('#').expect("a place on the page");
            assert!(ids.contains(id), "{target} leads nowhere");
        }
        for node in document.descendants() {
            for id in node
                .attribute("aria-labelledby")
                .into_iter()
                .flat_map(|ids| ids.split(' '))
            {
                assert!(ids.contains(id), "{id} labels, but is not there");
            }
        }
    });
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = page();
    for part in [
        "<script",
        "<link",
        "<img",
        "<iframe",
        "@import",
        "url(",
        " src=",
        "javascript:",
    ] {
        assert!(!page.contains(part), "{part}");
    }
    // The name of SVG is no address that anyone asks.
    let others = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!others.contains("://"));
}

#[test]
fn every_plot_can_be_read_without_seeing_it() {
    with_document(&page(), |document| {
        let figures: Vec<_> = document
            .descendants()
            .filter(|node| node.tag_name().name() == "figure")
            .collect();
        assert!(figures.len() > 15, "{}", figures.len());
        for figure in figures {
            let find = |name: &str| {
                figure
                    .descendants()
                    .find(|node| node.tag_name().name() == name)
            };
            assert!(find("figcaption").is_some_and(|node| !text(node).is_empty()));
            let table = find("table").expect("the numbers");
            assert!(table
                .descendants()
                .any(|node| node.has_tag_name("td") && !text(node).is_empty()));
            for svg in figure
                .descendants()
                .filter(|node| node.tag_name().name() == "svg")
            {
                let child = |name: &str| {
                    svg.children()
                        .find(|node| node.tag_name().name() == name)
                        .map(text)
                        .unwrap_or_default()
                };
                assert!(!child("title").is_empty());
                assert!(
                    child("desc").chars().any(|char| char.is_ascii_digit()),
                    "{}",
                    child("desc")
                );
                assert!(svg.attribute("viewBox").is_some());
                let axes: Vec<String> = svg
                    .descendants()
                    .filter(|node| has_class(node, "axis-name"))
                    .map(text)
                    .collect();
                assert!(!axes.is_empty(), "{}", child("title"));
                let unit = axes
                    .iter()
                    .any(|name| name.contains('[') && name.ends_with(']'));
                assert!(unit, "{axes:?} name no unit");
                let ticks = svg.descendants().filter(|node| has_class(node, "tick"));
                assert!(ticks.count() >= 2);
            }
        }
    });
}

#[test]
fn nothing_is_drawn_outside_of_a_plot() {
    with_document(&page(), |document| {
        for svg in document
            .descendants()
            .filter(|node| node.tag_name().name() == "svg")
        {
            let size: Vec<f64> = svg
                .attribute("viewBox")
                .unwrap()
                .split(' ')
                .map(|number| number.parse().unwrap())
                .collect();
            for node in svg.descendants() {
                for (names, limit) in [(["x", "x1", "x2"], size[2]), (["y", "y1", "y2"], size[3])] {
                    for value in names.iter().filter_map(|name| node.attribute(*name)) {
                        let value: f64 = value.parse().unwrap();
                        assert!(
                            (0.0..=limit).contains(&value),
                            "{value} of {limit}: {:?}",
                            node
                        );
                    }
                }
                if node.tag_name().name() == "text" {
                    let wide =
                        mutexlab_draw::chart::text::width(&text(node), mutexlab_draw::chart::FONT);
                    let x: f64 = node.attribute("x").unwrap().parse().unwrap();
                    let (from, to) = match node.attribute("text-anchor") {
                        Some("end") => (x - wide, x),
                        Some("middle") => (x - wide / 2.0, x + wide / 2.0),
                        _ => (x, x + wide),
                    };
                    assert!(
                        from >= -0.1 && to <= size[2] + 0.1,
                        "{:?} from {from} to {to} of {}",
                        text(node),
                        size[2]
                    );
                }
            }
        }
    });
}

#[test]
fn what_comes_from_files_is_escaped() {
    let page = page();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("Change &lt;3&gt; &amp; more"));
    assert!(page.contains("version 7.2 &lt;&amp;&gt;"));
    let mut file = synthetic::quick(0);
    for name in ["subject", "id"] {
        for cell in file["cells"].as_array_mut().unwrap() {
            let evil = format!("7.3/1cpu/\"><b>/<i>{}", cell["id"]);
            cell[name] = evil.into();
        }
    }
    file["scenario"] = "<b>\" onload=".into();
    let mut archive = Archive::default();
    archive.add(synthetic::run(&file));
    let page = page_of(&archive, &synthetic::history());
    with_document(&page, |document| {
        assert!(!document.descendants().any(|node| node.has_tag_name("i")));
        assert!(document
            .descendants()
            .all(|node| node.attribute("onload").is_none()));
    });
}

#[test]
fn the_same_results_give_the_same_page() {
    assert_eq!(page(), page());
    // In whichever order they are found.
    let mut reversed = archive();
    reversed.runs.reverse();
    reversed
        .runs
        .sort_by(|a, b| (&a.started, &a.scenario).cmp(&(&b.started, &b.scenario)));
    let mut sorted = archive();
    sorted
        .runs
        .sort_by(|a, b| (&a.started, &a.scenario).cmp(&(&b.started, &b.scenario)));
    let history = synthetic::history();
    assert_eq!(page_of(&reversed, &history), page_of(&sorted, &history));
}

#[test]
fn the_page_says_what_matters() {
    with_document(&page(), |document| {
        let all = text(document.root_element());
        for part in [
            // The newest commit's, beside the others.
            "182 – 222",
            "× ours",
            "What each setting changes alone",
            "15 less than their sum",
            "What does the number of flows cost?",
            "−7 in 3 of 3",
            "not one number of none and nft-dnat moved over 4 commits",
            "memory_per_flow",
            "How long do packets take?",
            "latency.p99 [ns]",
            "Zero in every cell: loss.",
            "99.9 %",
            "every packet accounted for",
            "\"cut\" & short",
        ] {
            assert!(all.contains(part), "{part:?} is not on the page");
        }
    });
}

#[test]
fn no_results_are_a_page_too() {
    let page = page_of(&Archive::default(), &History::default());
    with_document(&page, |document| {
        assert!(text(document.root_element()).contains("./just report"));
    });
}

#[test]
fn bad_ends_have_no_numbers_and_are_told() {
    let mut file = synthetic::quick(1);
    file["cells"][2]["verdict"] = "splat".into();
    file["cells"][2]["reason"] = "WARNING: at nowhere".into();
    file["cells"][2]["metrics"] = serde_json::json!([]);
    file["cells"][4]["delivery"]["replies"] = 1.into();
    let mut archive = Archive::default();
    archive.add(synthetic::run(&file));
    let page = page_of(&archive, &synthetic::history());
    with_document(&page, |document| {
        let all = text(document.root_element());
        for part in [
            "WARNING: at nowhere",
            "8 of 9",
            "no number (splat)",
            "no: 9,531 arrived, 8,473 answered",
        ] {
            assert!(all.contains(part), "{part:?} is not on the page");
        }
    });
}
