// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the numbers depend on, so that whoever doubts them can make them again.

use maud::{html, Markup};
use serde_json::Value;

use super::run::Run;
use mutexlab_draw::figure;

/// A run's file, closure and scenario.
pub fn folded(run: &Run) -> Markup {
    let mut leaves = Vec::new();
    flatten("", &run.closure, &mut leaves);
    figure::folded(
        "Where these numbers come from",
        &html! {
            (figure::scroll(&html! {
                table class="text" {
                    tbody {
                        tr { th scope="row" { "file" } td class="words" { code { (run.file) } } }
                        tr { th scope="row" { "began" } td class="words" { (run.started) } }
                        @if let Some(filter) = &run.filter {
                            tr { th scope="row" { "cells chosen" } td class="words" { code { (filter) } } }
                        }
                        @for (name, value) in &leaves {
                            tr { th scope="row" { (name) } td class="words" { code { (value) } } }
                        }
                    }
                }
            }))
            @if !run.scenario_text.is_empty() {
                pre class="scroll" tabindex="0" { (run.scenario_text) }
            }
        },
    )
}

/// Every leaf with the way to it.
fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&path, value, leaves);
            }
        }
        Value::String(text) => leaves.push((path.to_owned(), text.clone())),
        other => leaves.push((path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_named_by_their_way() {
        let mut leaves = Vec::new();
        let value = serde_json::json!({"a": {"b": "x", "c": 2}, "d": true});
        flatten("", &value, &mut leaves);
        let leaves: Vec<_> = leaves
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(leaves, [("a.b", "x"), ("a.c", "2"), ("d", "true")]);
    }
}
