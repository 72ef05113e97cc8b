// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file says becomes groups and rules of the kernel's.
//!
//! A rule of the kernel's has one network on each side, one range of ports, one interface and one IP version. So a rule of a file with
//! several of these becomes several: each with each. What else it asks for become conditions.

use std::collections::HashMap;
use std::path::Path;

use mprox_client::Configuration;
use mutex_abi::proxy::{
    Conditions, Label, MAX_ELEMENTS, MAX_GROUPS, MAX_RULES, MAX_SETS, MAX_UPSTREAMS,
};
use toml_mistake::{Mistake, Place};

use crate::groups::group;
use crate::lowering::Lowering;
use crate::sets::set;
use crate::shadow::shadowed;
use crate::system::System;
use crate::text::{FileText, RuleText};
use crate::values::Sort;

/// What became of a file.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) configuration: Configuration,
    // The name of each group.
    pub(crate) groups: Vec<String>,
    // The name of each set that has one, and what is in it.
    pub(crate) sets: Vec<Option<(String, Sort)>>,
    // For each rule, which of the file's it is of.
    pub(crate) rules: Vec<usize>,
}

pub(crate) fn mistake(at: &[Place], message: impl Into<String>) -> Mistake {
    Mistake {
        at: at.to_vec(),
        message: message.into(),
    }
}

pub(crate) fn key(text: &str) -> Place {
    Place::Key(text.to_owned())
}

pub(crate) const TOO_MANY: &str = "with this rule's networks and ports, each with each, there are more than 4096 rules for the kernel";

/// What the kernel is told.
pub(crate) fn lower(
    file: &FileText,
    directory: &Path,
    system: &dyn System,
) -> Result<Lowered, Mistake> {
    let mut lowered = Lowered {
        configuration: Configuration::default(),
        groups: Vec::new(),
        sets: Vec::new(),
        rules: Vec::new(),
    };
    if file.upstreams.len() > MAX_GROUPS {
        let message = format!("there are more than {MAX_GROUPS} groups of upstreams");
        return Err(mistake(&[key("upstreams")], message));
    }
    for (number, (name, text)) in (0..=u8::MAX).zip(&file.upstreams) {
        let at = [key("upstreams"), key(name)];
        lowered.groups.push(name.clone());
        lowered
            .configuration
            .groups
            .push(group(&at, number, name, text)?);
    }
    if file.sets.len() > MAX_SETS {
        let message = format!("there are more than {MAX_SETS} sets");
        return Err(mistake(&[key("sets")], message));
    }
    for (name, text) in &file.sets {
        let at = [key("sets"), key(name)];
        let (sort, set) = set(&at, name, text, directory, system)?;
        lowered.sets.push(Some((name.clone(), sort)));
        lowered.configuration.sets.push(set);
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    // Of a file that was cut short, or is being written.
    let Some(texts) = &file.rule else {
        let message = "there is no rule, and so nothing would be redirected: say `rule = []` if that is meant";
        return Err(mistake(&[], message));
    };
    for (number, text) in texts.iter().enumerate() {
        let at = [key("rule"), Place::Element(number)];
        let mut taken = |name| Some((name, names.insert(name, number)?));
        if let Some((name, first)) = text.name.as_deref().and_then(&mut taken) {
            let at = [&at[..], &[key("name")]].concat();
            let message = format!("the {} rule is called `{name}`, too", ordinal(first + 1));
            return Err(mistake(&at, message));
        }
        let lowering = Lowering {
            at: &at,
            system,
            lowered: &mut lowered,
            conditions: Conditions::NONE,
        };
        for rule in { lowering }.rules(text)? {
            if lowered.rules.len() == MAX_RULES {
                return Err(mistake(&at, TOO_MANY));
            }
            lowered.configuration.rules.push(rule);
            lowered.rules.push(number);
        }
    }
    let upstreams = lowered
        .configuration
        .groups
        .iter()
        .map(|group| group.upstreams.len());
    if upstreams.sum::<usize>() > MAX_UPSTREAMS {
        let message = format!("all upstreams together have more than {MAX_UPSTREAMS} servers");
        return Err(mistake(&[key("upstreams")], message));
    }
    let elements = lowered
        .configuration
        .sets
        .iter()
        .map(|set| set.elements.len());
    if elements.sum::<usize>() > MAX_ELEMENTS {
        let message = format!(
            "all sets and long lists together have more than {MAX_ELEMENTS} elements: neighbouring networks are one"
        );
        return Err(mistake(&[key("sets")], message));
    }
    let Configuration { rules, sets, .. } = &lowered.configuration;
    if let Some((rule, by)) = shadowed(rules, sets, &lowered.rules) {
        let by: Vec<_> = by.into_iter().collect();
        let message = format!(
            "this rule can never match: all of its connections are those of {}",
            told(&by, texts)
        );
        return Err(mistake(&[key("rule"), Place::Element(rule)], message));
    }
    Ok(lowered)
}

// Rules, by their places in the file.
fn told(rules: &[usize], texts: &[RuleText]) -> String {
    // Who reads of more looks for them anyway.
    const TOLD: usize = 3;
    let name = |rule: usize| {
        let name = texts.get(rule).and_then(|text| text.name.as_deref());
        name.map(|name| format!(", `{name}`")).unwrap_or_default()
    };
    if let [rule] = rules {
        return format!("the {} rule before it{}", ordinal(rule + 1), name(*rule));
    }
    let shown = rules.iter().take(TOLD);
    let mut all: Vec<_> = shown
        .map(|rule| format!("the {}{}", ordinal(rule + 1), name(*rule)))
        .collect();
    match rules.len().saturating_sub(TOLD) {
        0 => {}
        1 => all.push("and 1 other".to_owned()),
        others => all.push(format!("and {others} others")),
    }
    format!("{} rules before it: {}", rules.len(), all.join("; "))
}

fn ordinal(number: usize) -> String {
    let end = match (number % 10, number % 100) {
        (1, teen) if teen != 11 => "st",
        (2, teen) if teen != 12 => "nd",
        (3, teen) if teen != 13 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

pub(crate) fn label(at: &[Place], name: &str) -> Result<Label, Mistake> {
    Label::new(name.as_bytes())
        .ok_or_else(|| mistake(at, "a name has at most 31 bytes, and no control characters"))
}

pub(crate) fn in_list(at: &[Place], place: Option<usize>, message: String) -> Mistake {
    let mistake = mistake(at, message);
    match place {
        Some(place) => mistake.element(place),
        None => mistake,
    }
}
