// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules that can never match, since one before them matches all that they are for.

use mutex_abi::proxy::{Rule, NAME_SIZE};

use crate::networks::Network;

// Whether `first` matches every connection that `second` does.
fn covers(first: &Rule, second: &Rule) -> bool {
    let network = |rule: &Rule, address, prefix| Network {
        family: rule.family,
        address,
        prefix,
    };
    let source = |rule: &Rule| network(rule, rule.source, rule.source_prefix);
    let destination = |rule: &Rule| network(rule, rule.destination, rule.destination_prefix);
    first.family == second.family
        && (first.protocol.is_none() || first.protocol == second.protocol)
        && first.hooks & second.hooks == second.hooks
        && first.port_first <= second.port_first
        && second.port_last <= first.port_last
        && source(first).has(&source(second))
        && destination(first).has(&destination(second))
        && (first.interface == [0; NAME_SIZE] || first.interface == second.interface)
        // What the first asks for, the second does, too.
        && first
            .conditions
            .iter()
            .all(|one| second.conditions.iter().any(|other| one == other))
}

/// The first rule of the file's all of whose rules are covered, each by a single rule of those before it; and of which of these the
/// last of them is. `of` says for each rule of which of the file's it is.
pub(crate) fn shadowed(rules: &[Rule], of: &[usize]) -> Option<(usize, usize)> {
    let all = || rules.iter().zip(of.iter().copied());
    for parts in of.chunk_by(|one, next| one == next) {
        let number = parts[0];
        let by = |part: &Rule| {
            let mut before = all().take_while(|(_, other)| *other < number);
            before.find(|(rule, _)| covers(rule, part))
        };
        let mut last = None;
        let is_covered = all()
            .filter(|(_, other)| *other == number)
            .all(|(part, _)| {
                by(part)
                    .map(|(_, other)| last = last.max(Some(other)))
                    .is_some()
            });
        if let (true, Some(last)) = (is_covered, last) {
            return Some((number, last));
        }
    }
    None
}
