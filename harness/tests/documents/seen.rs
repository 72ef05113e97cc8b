// SPDX-License-Identifier: MIT OR Apache-2.0

//! Documents that were seen, each valid by its schema.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::ValueEnum;
use mutexlab::commands::document::Document;
use serde_json::Value;

use crate::repository;

/// The commands of which documents were seen.
#[derive(Debug, Default)]
pub struct Seen(BTreeSet<&'static str>);

impl Seen {
    /// Whether a document of this command was.
    pub fn has(&self, command: &str) -> bool {
        self.0.contains(command)
    }

    /// Runs mutexlab, whatever its exit code, and demands of what it prints that it is one document, which is
    /// as the schema of this command's says, and would not be with a property more.
    pub fn document(&mut self, mutexlab: &mut Command) -> Value {
        let (document, command) = of(mutexlab);
        let output = mutexlab.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let printed = String::from_utf8_lossy(&output.stdout);
            panic!("{command} prints no JSON ({error}): {printed}{said}")
        });
        let path = repository().join(document.schema_file());
        let schema = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<_> = (schema.iter_errors(&value))
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        let path = path.display();
        assert!(errors.is_empty(), "{command} is not by {path}: {errors:#?}");
        assert!(
            !schema.is_valid(&with_more(&value)),
            "{path} says too little"
        );
        self.0.insert(command);
        value
    }
}

/// What a command line prints: of several that its words fit, what has the most of them.
fn of(mutexlab: &Command) -> (Document, &'static str) {
    let words: Vec<_> = mutexlab.get_args().collect();
    assert!(words.iter().any(|word| *word == "--json"), "{words:?}");
    let documents = Document::value_variants().iter();
    let printed = documents.flat_map(|&document| {
        let commands = document.printed_by().iter();
        commands.map(move |&command| (document, command))
    });
    let fits = |command: &str| {
        let mut parts = command.split(' ').enumerate();
        parts.all(|(at, part)| match part.starts_with("--") {
            true => words.iter().any(|word| *word == part),
            false => words.get(at).is_some_and(|word| *word == part),
        })
    };
    let fitting = printed.filter(|(_, command)| fits(command));
    let most = fitting.max_by_key(|(_, command)| command.split(' ').count());
    most.unwrap_or_else(|| panic!("nothing is known of {words:?}"))
}

/// The document with a property that it has not; of a list, its first element.
fn with_more(value: &Value) -> Value {
    let mut value = value.clone();
    let object = match &mut value {
        Value::Array(list) => list.first_mut().expect("the list is empty"),
        other => other,
    };
    let object = object.as_object_mut().expect("it is no object");
    object.insert("a property that nobody told of".to_owned(), 1.into());
    value
}
