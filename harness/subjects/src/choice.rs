// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parameters of a subject: those that it declares, each with the value that it has unless told, and what
//! a cell says instead.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use minijinja::Value;

use mutexlab_scenario::{nearest, Mistake, ParameterValue};

/// What a subject declares.
pub type Declared = BTreeMap<String, ParameterValue>;

/// The first of the declared that templates could not name.
///
/// # Errors
/// With its place.
pub fn check(declared: &Declared) -> Result<(), Mistake> {
    for name in declared.keys() {
        let mut letters = name.chars();
        let begins = letters
            .next()
            .is_some_and(|letter| letter.is_ascii_lowercase());
        let is_name =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if !begins || !letters.all(is_name) {
            let message = format!(
                "{name:?} is no name of a parameter: small letters, digits and `_`, beginning with a letter"
            );
            return Err(Mistake::at(&format!("parameters.{name}"), message));
        }
    }
    Ok(())
}

/// Why `value` cannot be one of the parameter `name`; `None` if it can.
pub fn refusal(declared: &Declared, name: &str, value: &ParameterValue) -> Option<String> {
    let Some(usual) = declared.get(name) else {
        let hint = nearest(name, declared.keys().map(String::as_str))
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default();
        return Some(format!("it declares no parameter `{name}`{hint}"));
    };
    let kind = |value: &ParameterValue| match value {
        ParameterValue::Bool(_) => "true or false",
        ParameterValue::Integer(_) => "a number",
        ParameterValue::Text(_) => "a text",
    };
    (kind(usual) != kind(value))
        .then(|| format!("`{name}` is {}, and not {}", kind(usual), kind(value)))
}

/// All parameters as templates know them, with the values that a cell has for some.
///
/// # Errors
/// If a cell has one that is not declared, or of another kind.
pub fn values(declared: &Declared, chosen: &BTreeMap<String, String>) -> Result<Value> {
    let mut all: BTreeMap<&str, Value> = BTreeMap::new();
    for (name, usual) in declared {
        let value = match (usual, chosen.get(name)) {
            (ParameterValue::Bool(usual), None) => Value::from(*usual),
            (ParameterValue::Integer(usual), None) => Value::from(*usual),
            (ParameterValue::Text(usual), None) => Value::from(usual.as_str()),
            (ParameterValue::Bool(_), Some(text)) => Value::from(text == "Y"),
            (ParameterValue::Integer(_), Some(text)) => {
                let number: i64 = text
                    .parse()
                    .with_context(|| format!("{name}={text} is no number"))?;
                Value::from(number)
            }
            (ParameterValue::Text(_), Some(text)) => Value::from(text.as_str()),
        };
        all.insert(name, value);
    }
    if let Some(name) = chosen.keys().find(|name| !declared.contains_key(*name)) {
        anyhow::bail!("no parameter `{name}` is declared");
    }
    Ok(Value::from_pairs(all))
}
