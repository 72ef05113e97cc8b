// SPDX-License-Identifier: MIT OR Apache-2.0

//! The schemas of what commands print.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::ValueEnum;
use mutexlab::commands::document::Document;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn the_schemas_in_the_repository_are_current() {
    let mut files = BTreeSet::new();
    for document in Document::value_variants() {
        let path = repository().join(document.schema_file());
        let there = fs::read_to_string(&path).unwrap_or_default();
        let text = document.schema_text().unwrap();
        assert!(there == text, "{}: run `just schema`", path.display());
        files.insert(path);
    }
    for entry in fs::read_dir(repository().join("docs/json")).unwrap() {
        let path = entry.unwrap().path();
        assert!(files.contains(&path), "{} is of nothing", path.display());
    }
}
