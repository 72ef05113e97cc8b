// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sets that have names.

use std::path::Path;

use mprox_client::Set;
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::ValueKind;
use toml_mistake::{Mistake, Place};

use crate::rules::{key, label, mistake};
use crate::system::System;
use crate::text::SetText;
use crate::values::{self, Sort};

fn ranges(all: &[(u64, u64)]) -> Vec<Element> {
    all.iter()
        .map(|&(first, last)| Element::Number([first, last]))
        .collect()
}

/// What the kernel is told of a set, and what is in it.
pub(crate) fn set(
    at: &[Place],
    name: &str,
    text: &SetText,
    directory: &Path,
    system: &dyn System,
) -> Result<(Sort, Set), Mistake> {
    let below = |name: &str| [at, &[key(name)]].concat();
    let mut found: Vec<(Sort, ValueKind, Vec<Element>)> = Vec::new();
    let mut networks = Vec::new();
    if let Some(list) = &text.networks {
        networks.extend(values::networks(&below("networks"), list)?);
    }
    if let Some(file) = &text.networks_file {
        let at = below("networks-file");
        let path = directory.join(file);
        let bytes = system.read(&path);
        let bytes = bytes
            .map_err(|error| mistake(&at, format!("cannot read {}: {error}", path.display())))?;
        let lines = values::network_lines(&bytes);
        networks.extend(lines.map_err(|(line, column, message)| {
            let place = format!("{}:{line}:{column}", path.display());
            mistake(&at, format!("{place}: {message}"))
        })?);
    }
    if text.networks.is_some() || text.networks_file.is_some() {
        let elements = values::elements(&values::apart(networks));
        found.push((Sort::Networks, ValueKind::Addresses, elements));
    }
    for (key, sort, list) in [
        ("ports", Sort::Ports, &text.ports),
        ("users", Sort::Users, &text.users),
        ("groups", Sort::Groups, &text.groups),
    ] {
        if let Some(list) = list {
            let numbers = values::numbers(&below(key), sort, list, system)?;
            found.push((sort, ValueKind::Numbers, ranges(&numbers)));
        }
    }
    if let Some(list) = &text.cgroups {
        let numbers = values::control_groups(&below("cgroups"), list, system)?;
        found.push((Sort::ControlGroups, ValueKind::Numbers, ranges(&numbers)));
    }
    for (key, sort, list) in [
        ("interfaces", Sort::Interfaces, &text.interfaces),
        ("programs", Sort::Programs, &text.programs),
    ] {
        if let Some(list) = list {
            let names = values::names(&below(key), sort, list)?;
            let elements = names.into_iter().map(Element::Name).collect();
            found.push((sort, ValueKind::Names, elements));
        }
    }
    match found.pop() {
        None => Err(mistake(at, "there is nothing in the set: it needs networks, ports, interfaces, users, groups, cgroups or programs")),
        Some(_) if !found.is_empty() => Err(mistake(at, "a set is of one sort of things")),
        Some((sort, kind, elements)) => Ok((
            sort,
            Set {
                label: label(at, name)?,
                kind,
                elements,
            },
        )),
    }
}
