// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parameters of the module on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{bail, Result};

use mutexlab_scenario::nearest;

/// A parameter and its value: `max_flows=1000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    name: String,
    value: String,
}

impl FromStr for Parameter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => bail!("a parameter is given as NAME=VALUE, such as max_flows=1000"),
        }
    }
}

/// The values by name; the last one of a name counts.
///
/// # Errors
/// If one is none of those that are `there`: the message says which it was probably meant to be.
pub fn by_name(given: &[Parameter], there: &[String]) -> Result<BTreeMap<String, String>> {
    for Parameter { name, .. } in given {
        if !there.contains(name) {
            let hint = match nearest(name, there.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("it has {}", there.join(", ")),
            };
            bail!("the module has no parameter `{name}`; {hint}");
        }
    }
    let pairs = given
        .iter()
        .map(|one| (one.name.clone(), one.value.clone()));
    Ok(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts() {
        let given = ["a=1", "b==", "a=2"].map(|text| text.parse().unwrap());
        let there = ["a", "b"].map(str::to_owned);
        let by_name = by_name(&given, &there).unwrap();
        assert_eq!(by_name["a"], "2");
        assert_eq!(by_name["b"], "=");
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_one() {
        let there = ["max_flows", "hash_seed"].map(str::to_owned);
        let error = |text: &str| {
            let given = [text.parse().unwrap()];
            by_name(&given, &there).unwrap_err().to_string()
        };
        assert!(error("max_flow=1").ends_with("did you mean `max_flows`?"));
        assert!(error("x=1").ends_with("it has max_flows, hash_seed"));
        assert!("max_flows".parse::<Parameter>().is_err());
        assert!("=1".parse::<Parameter>().is_err());
    }
}
