// SPDX-License-Identifier: MIT OR Apache-2.0

//! No modules of a crate use each other in a circle: what a file needs can be read before it.
//!
//! Read off the `use` lines, and the paths that begin with `crate` or `super`; tests, and what is made for them, left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by their paths, each with the modules that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// What is there for tests.
const OF_TESTS: [&str; 3] = ["tests", "sample", "synthetic"];

#[test]
fn modules_use_each_other_in_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut crates = Vec::new();
    sources(root, &mut crates);
    assert!(crates.len() >= 20, "{crates:?}");
    for source in crates {
        let circle = circle(&graph(&modules(&source)));
        assert!(circle.is_empty(), "{}: {circle:?}", source.display());
    }
}

#[test]
fn a_circle_is_found() {
    let files = |b: &str| {
        BTreeMap::from([
            (
                String::new(),
                "pub mod a;\npub mod b;\nuse a::A;\n".to_owned(),
            ),
            ("a".to_owned(), "use crate::{b::{self, B}, c};\n".to_owned()),
            ("b".to_owned(), b.to_owned()),
            ("b::d".to_owned(), "use super::super::c::C;\n".to_owned()),
            ("c".to_owned(), String::new()),
        ])
    };
    let fine = "mod d;\nuse d::D;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
    assert_eq!(circle(&graph(&files(fine))), Vec::<String>::new());
    let by_use = "use std::fmt;\nuse crate::a::A;\n";
    assert_eq!(circle(&graph(&files(by_use))), ["a", "b"]);
    let by_path = "fn b() { super::a::a() }\n";
    assert_eq!(circle(&graph(&files(by_path))), ["a", "b"]);
}

/// The `src` directories below a directory.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("src") {
            found.push(path);
        } else if path.is_dir() {
            sources(&path, found);
        }
    }
}

/// The text of each module of a crate, by its path; the root's is empty.
fn modules(source: &Path) -> BTreeMap<String, String> {
    fn collect(directory: &Path, path: &[String], found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let below = [path, std::slice::from_ref(&name)].concat();
            if file.is_dir() {
                collect(&file, &below, found);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                let path = match name.as_str() {
                    "lib" if path.is_empty() => Vec::new(),
                    "main" if path.is_empty() => continue,
                    "mod" => path.to_vec(),
                    _ => below,
                };
                found.insert(path.join("::"), fs::read_to_string(&file).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(source, &[], &mut found);
    found
}

fn graph(modules: &BTreeMap<String, String>) -> Graph {
    let used = |(path, text): (&String, &String)| {
        let here: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
        let is_of_tests = here.last().is_some_and(|name| OF_TESTS.contains(name));
        let paths = if is_of_tests { Vec::new() } else { paths(text) };
        let resolved = paths
            .iter()
            .filter_map(|used| resolve(used, &here, modules));
        (path.clone(), resolved.filter(|used| used != path).collect())
    };
    modules.iter().map(used).collect()
}

/// All paths that a module names in `use` lines, and those elsewhere that begin with `crate` or `super`.
fn paths(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n");
    let end = ["mod tests {", "pub mod tests {", "pub(crate) mod tests {"]
        .iter()
        .filter_map(|tests| code.find(&format!("#[cfg(test)]\n{tests}")))
        .min();
    let mut rest = &code[..end.unwrap_or(code.len())];
    let mut found = Vec::new();
    while let Some(at) = ["use ", "crate::", "super::"]
        .iter()
        .filter_map(|start| rest.find(start))
        .min()
    {
        let is_word =
            rest[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        rest = &rest[at..];
        let length = match rest.strip_prefix("use ") {
            Some(tree) if !is_word => {
                let length = tree.find(';').unwrap_or(tree.len());
                expand("", &tree[..length], &mut found);
                length + 4
            }
            Some(_) => 4,
            None => {
                let is_path = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
                let length = rest.find(|char| !is_path(char)).unwrap_or(rest.len());
                if !is_word {
                    found.push(rest[..length].to_owned());
                }
                length
            }
        };
        rest = &rest[length..];
    }
    found
}

/// The paths of a tree of `use`.
fn expand(before: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((start, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        found.push(format!("{before}{}", path.trim()));
        return;
    };
    let inside = rest.strip_suffix('}').unwrap_or(rest);
    let before = format!("{before}{start}");
    let (mut depth, mut from) = (0, 0);
    for (at, char) in inside.char_indices().chain([(inside.len(), ',')]) {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[from..at].trim().is_empty() {
                    expand(&before, &inside[from..at], found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The module that a path names something of, if it is one of this crate.
fn resolve(path: &str, here: &[&str], modules: &BTreeMap<String, String>) -> Option<String> {
    let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut base: Vec<&str> = here.to_vec();
    match *parts.first()? {
        "crate" => {
            base.clear();
            parts.remove(0);
        }
        "super" | "self" => {
            while let Some(&("super" | "self")) = parts.first() {
                if parts.remove(0) == "super" {
                    base.pop();
                }
            }
        }
        // A child's name, or another crate's.
        child => {
            let child = [here, &[child]].concat().join("::");
            modules.contains_key(&child).then_some(())?;
        }
    }
    let full = [base, parts].concat();
    (0..=full.len())
        .rev()
        .map(|length| full[..length].join("::"))
        .find(|module| modules.contains_key(module))
}

/// Modules that use each other in a circle, in order; empty if none do.
fn circle(graph: &Graph) -> Vec<String> {
    // Whoever uses nothing that is left, and whoever is used by nobody that is left, is in no circle.
    let mut left: BTreeSet<&String> = graph.keys().collect();
    loop {
        let uses = |module: &String| graph[module].iter().any(|used| left.contains(used));
        let is_used = |module: &String| left.iter().any(|user| graph[*user].contains(module));
        let stay: BTreeSet<&String> = left
            .iter()
            .copied()
            .filter(|module| uses(module) && is_used(module))
            .collect();
        if stay.len() == left.len() {
            return stay.into_iter().cloned().collect();
        }
        left = stay;
    }
}
