// SPDX-License-Identifier: MIT OR Apache-2.0

//! What commands print with `--json` is what the schemas in the repository say. The program itself prints each
//! document here; where it needs guests, they are scripts that say what an agent would.

mod guests;
mod images;
#[path = "../faults/lab.rs"]
#[expect(dead_code, reason = "nothing goes wrong here")]
mod lab;
#[path = "../sample/mod.rs"]
mod sample;
mod seen;
mod stored;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use mutexlab::cli::Cli;
use mutexlab::commands::document::Document;
use serde_json::Value;

use crate::seen::Seen;

/// Says where what a command prints is validated: by a function, which a test of its name calls.
macro_rules! validated {
    ($($command:literal: $module:ident::$name:ident,)*) => {
        /// The commands that print JSON, as [`Document::printed_by`] has them.
        const VALIDATED: &[&str] = &[$($command),*];

        $(#[test]
        fn $name() {
            let mut seen = Seen::default();
            $module::$name(&mut seen);
            assert!(seen.has($command), "nothing of {:?} is validated", $command);
        })*
    };
}

validated! {
    "bench": guests::bench,
    "bench --plan": guests::plan,
    "bench --tree": guests::trees,
    "series": guests::series,
    "compare": stored::compare,
    "bisect": stored::bisect,
    "golden": stored::golden,
    "matrix": guests::matrix,
    "merge": stored::merge,
    "report": stored::report,
    "claims": guests::claims,
    "lens": guests::lens,
    "lens --diff": stored::lens_diff,
    "test": guests::test,
    "test --list": guests::test_list,
    "reproduce": guests::reproduce,
    "selfcheck": guests::selfcheck,
    "boot": guests::boot,
    "image build": images::build,
    "image path": images::path,
    "image list": images::list,
    "image key": images::key,
    "image verify": images::verify,
    "image pack": images::pack,
    "image unpack": images::unpack,
    "image prune": images::prune,
    "doctor": stored::doctor,
    "schema": stored::schema,
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_document_is_validated_and_there_is_no_other() {
    let printed = Document::value_variants().iter();
    let printed = printed.flat_map(|document| document.printed_by().iter().copied());
    assert_eq!(
        VALIDATED.iter().copied().collect::<BTreeSet<_>>(),
        printed.collect()
    );
}

/// The commands below `command` that have `--json`.
fn with_json(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    if command.get_arguments().any(|arg| arg.get_id() == "json") {
        found.insert(path.to_owned());
    }
    for below in command.get_subcommands() {
        let name = below.get_name();
        let path = match path {
            "" => name.to_owned(),
            path => format!("{path} {name}"),
        };
        with_json(below, &path, found);
    }
}

#[test]
fn every_command_with_json_has_a_schema() {
    let mut commands = BTreeSet::new();
    with_json(&Cli::command(), "", &mut commands);
    let printed = Document::value_variants().iter();
    let printed = printed.flat_map(|document| document.printed_by());
    // An option makes another document of the same command.
    let words = printed.map(|command| command.split(" --").next().unwrap_or_default().to_owned());
    assert_eq!(commands, words.collect());
}

/// Where a schema allows properties that it does not name.
fn open(schema: &Value, path: &str, found: &mut Vec<String>) {
    let has = |key: &str| schema.get(key).is_some();
    if has("properties") && !has("additionalProperties") && !has("unevaluatedProperties") {
        found.push(path.to_owned());
    }
    // What is flattened into an object is closed with it.
    let closed = has("unevaluatedProperties");
    let below: Box<dyn Iterator<Item = (String, &Value)>> = match schema {
        Value::Object(object) => Box::new(object.iter().map(|(key, value)| (key.clone(), value))),
        Value::Array(list) => Box::new((0..).map(|at: u32| at.to_string()).zip(list)),
        _ => return,
    };
    for (key, value) in below.filter(|(key, _)| !(closed && key == "oneOf")) {
        open(value, &format!("{path}/{key}"), found);
    }
}

#[test]
fn what_a_schema_does_not_name_is_in_no_document() {
    for document in Document::value_variants() {
        let mut found = Vec::new();
        open(&document.schema().to_value(), "", &mut found);
        assert!(found.is_empty(), "{document:?} is open at {found:?}");
    }
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
