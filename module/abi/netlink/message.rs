// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Numbers of commands, and of the attributes that stand in messages themselves.

use core::ffi::CStr;

/// Name of the family.
pub const FAMILY: &str = "mutex-proxy";
/// Name of the multicast group of events.
pub const EVENTS: &str = "events";
/// Its version.
pub const VERSION: u8 = 1;

/// What a message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// Adds to the configuration that the socket prepares.
    Stage = 1,
    /// Puts what is staged in the place of a context's configuration.
    Commit = 2,
    /// Tells of a context, or of all that have names.
    ContextGet = 3,
    /// Deletes a context.
    ContextDel = 4,
    /// Dumps a context's groups.
    GroupGet = 5,
    /// Dumps a context's upstreams.
    UpstreamGet = 6,
    /// Dumps a context's rules.
    RuleGet = 7,
    /// Tells the namespace's counters.
    StatisticsGet = 8,
    /// Tells where a connection wanted to go.
    OriginalGet = 9,
    /// Dumps a context's sets.
    SetGet = 10,
    /// Dumps flows.
    FlowGet = 11,
    /// Forgets flows.
    FlowDel = 12,
    /// An event: an upstream has failed.
    UpstreamFailed = 13,
    /// An event: an upstream works again.
    UpstreamBack = 14,
    /// An event: packets were dropped because the table of flows is full.
    TableFull = 15,
    /// An event: a context with a name was deleted.
    ContextGone = 16,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Stage,
        Self::Commit,
        Self::ContextGet,
        Self::ContextDel,
        Self::GroupGet,
        Self::UpstreamGet,
        Self::RuleGet,
        Self::StatisticsGet,
        Self::OriginalGet,
        Self::SetGet,
        Self::FlowGet,
        Self::FlowDel,
        Self::UpstreamFailed,
        Self::UpstreamBack,
        Self::TableFull,
        Self::ContextGone,
    ];

    /// From its number in a message.
    pub fn from_number(number: u8) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|command| *command as u8 == number)
    }
}

/// Types of the attributes.
pub mod kind {
    /// Name of a context.
    pub const CONTEXT: u16 = 1;
    /// What was staged before is forgotten.
    pub const BEGIN: u16 = 2;
    /// A group of upstreams.
    pub const GROUP: u16 = 3;
    /// A rule.
    pub const RULE: u16 = 4;
    /// Nothing is changed.
    pub const DRY_RUN: u16 = 5;
    /// How often a context was configured.
    pub const GENERATION: u16 = 6;
    /// How many groups it has.
    pub const GROUPS: u16 = 7;
    /// How many upstreams.
    pub const UPSTREAMS: u16 = 8;
    /// How many rules.
    pub const RULES: u16 = 9;
    /// Counters.
    pub const STATISTICS: u16 = 10;
    /// A connection.
    pub const CONNECTION: u16 = 11;
    /// An upstream.
    pub const UPSTREAM: u16 = 12;
    /// The number of its group.
    pub const UPSTREAM_GROUP: u16 = 13;
    /// A set, or a part of it.
    pub const SET: u16 = 14;
    /// How many sets a context has.
    pub const SETS: u16 = 15;
    /// The place of a rule.
    pub const RULE_NUMBER: u16 = 16;
    /// How many connections it was the first to match.
    pub const CONNECTIONS: u16 = 17;
    /// A flow.
    pub const FLOW: u16 = 18;
    /// Which flows are meant.
    pub const FILTER: u16 = 19;
    /// How many flows.
    pub const FLOWS: u16 = 20;
    /// How many packets.
    pub const PACKETS: u16 = 21;
}

/// Of an attribute that has no meaning where it stands.
pub const UNKNOWN: &CStr = c"no attribute of this type is known here";

#[cfg(test)]
pub(super) mod tests {
    use super::super::attribute::{NoRoom, Writer};
    use super::*;

    /// What `write` writes.
    pub fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 13];
        let mut writer = Writer::new(&mut bytes);
        write(&mut writer).unwrap();
        let length = writer.written();
        bytes.truncate(length);
        bytes
    }

    /// What the kernel's generator makes of the specification.
    const HEADER: &str = include_str!("../generated/include/uapi/linux/mutex_proxy.h");

    /// The names that begin with `prefix` and number an anonymous enum of the header from 1 on, without the prefix.
    pub fn specified(prefix: &str) -> Vec<String> {
        let bodies = HEADER.split("enum {").skip(1);
        let names = |text: &str| {
            let body = text.split('}').next().unwrap_or_default();
            let lines = body.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.contains("MAX"));
            let names = lines.map(|line| line.split([',', ' ']).next().unwrap_or_default());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut enums = bodies.map(names);
        let found = enums.find(|names| names.iter().all(|name| name.starts_with(prefix)));
        let found = found.unwrap_or_else(|| panic!("the header has no {prefix}"));
        let without = |name: String| name[prefix.len()..].to_owned();
        found.into_iter().map(without).collect()
    }

    #[test]
    fn numbers_are_those_of_the_specification() {
        let commands = Command::ALL.map(|command| format!("{command:?}"));
        let expected = specified("MUTEX_PROXY_CMD_");
        assert_eq!(
            commands.map(|name| name.to_uppercase()).to_vec(),
            expected
                .iter()
                .map(|name| name.replace('_', ""))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            Command::ALL.map(|command| command as u8),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
        );
        let attributes = [
            ("CONTEXT", kind::CONTEXT),
            ("BEGIN", kind::BEGIN),
            ("GROUP", kind::GROUP),
            ("RULE", kind::RULE),
            ("DRY_RUN", kind::DRY_RUN),
            ("GENERATION", kind::GENERATION),
            ("GROUPS", kind::GROUPS),
            ("UPSTREAMS", kind::UPSTREAMS),
            ("RULES", kind::RULES),
            ("STATISTICS", kind::STATISTICS),
            ("CONNECTION", kind::CONNECTION),
            ("UPSTREAM", kind::UPSTREAM),
            ("UPSTREAM_GROUP", kind::UPSTREAM_GROUP),
            ("SET", kind::SET),
            ("SETS", kind::SETS),
            ("RULE_NUMBER", kind::RULE_NUMBER),
            ("CONNECTIONS", kind::CONNECTIONS),
            ("FLOW", kind::FLOW),
            ("FILTER", kind::FILTER),
            ("FLOWS", kind::FLOWS),
            ("PACKETS", kind::PACKETS),
        ];
        let names = specified("MUTEX_PROXY_A_PROXY_");
        assert_eq!(attributes.map(|(name, _)| name).to_vec(), names);
        assert!(attributes.iter().map(|(_, number)| *number).eq(1..=21));
        assert!(HEADER.contains(&format!("FAMILY_NAME\t\t\"{FAMILY}\"")));
        assert!(HEADER.contains(&format!("FAMILY_VERSION\t{VERSION}\n")));
        let statistics = specified("MUTEX_PROXY_A_STATISTICS_");
        let names = super::super::super::proxy::Stats::NAMES.iter();
        let names: Vec<_> = names.map(|name| name.to_uppercase()).collect();
        assert_eq!(names, statistics);
        for command in Command::ALL {
            assert_eq!(Command::from_number(command as u8), Some(command));
        }
        assert_eq!(Command::from_number(0), None);
        assert_eq!(Command::from_number(17), None);
    }

    const SPECIFICATION: &str = include_str!("../mutex_proxy.yaml");

    /// Names in a section of the specification, at a depth of so many spaces, as the header writes them.
    fn named(section: &str, depth: usize) -> Vec<String> {
        let prefix = format!("{}name: ", " ".repeat(depth));
        let lines = section.lines();
        let names = lines.filter_map(|line| line.strip_prefix(&prefix));
        names
            .map(|name| name.to_uppercase().replace('-', "_"))
            .collect()
    }

    /// Who changes the specification has to make the header anew, by the kernel's generator.
    #[test]
    fn the_header_is_of_the_specification() {
        let (_, sets) = SPECIFICATION.split_once("\nattribute-sets:\n").unwrap();
        let (sets, operations) = sets.split_once("\noperations:\n").unwrap();
        let (operations, groups) = operations.split_once("\nmcast-groups:\n").unwrap();
        let mut count = 0;
        for set in sets.split("\n  -\n") {
            let names = named(set.trim_start_matches("  -\n"), 4);
            let prefix = format!("MUTEX_PROXY_A_{}_", names[0]);
            assert_eq!(named(set, 8), specified(&prefix), "{prefix}");
            count += 1;
        }
        assert_eq!(count, HEADER.matches("_MAX - 1)").count() - 1);
        assert_eq!(named(operations, 6), specified("MUTEX_PROXY_CMD_"));
        assert_eq!(named(groups, 6), [EVENTS.to_uppercase()]);
        assert!(HEADER.contains(&format!("MCGRP_EVENTS\t\"{EVENTS}\"")));
        for (name, value) in named(SPECIFICATION, 4)
            .into_iter()
            .filter(|name| name.ends_with("_MAX"))
            .zip(
                SPECIFICATION
                    .lines()
                    .filter_map(|line| line.strip_prefix("    value: ")),
            )
        {
            let defined = HEADER
                .lines()
                .filter_map(|line| line.strip_prefix("#define MUTEX_PROXY_"))
                .any(|line| line.split_whitespace().eq([name.as_str(), value]));
            assert!(defined, "{name} {value}");
        }
    }
}
