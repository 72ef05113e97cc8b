// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as each record of the interface: refused, or read to the last byte, so that they
//! can be written again.

use mutex_abi::bytes::{Reader, Writer};
use mutex_abi::probe::{self, Report};
use mutex_abi::proxy::{Action, Config, ConfigHeader, Group, Invalid, Rule, Stats, Upstream};
use mutex_abi::proxy::{MAX_GROUPS, MAX_RULES, MAX_UPSTREAMS};

pub fn run(data: &[u8]) {
    header(data);
    config(data);
    if let Ok(rule) = Rule::decode(data) {
        assert_eq!(rule.encode(), data[..Rule::SIZE]);
    }
    if let Ok(upstream) = Upstream::decode(data) {
        assert_eq!(upstream.encode(), data[..Upstream::SIZE]);
    }
    if let Ok(group) = Group::decode(data) {
        assert_eq!(group.encode(), data[..Group::SIZE]);
    }
    if let Some(stats) = Stats::decode(data) {
        assert_eq!(stats.encode(), data[..Stats::SIZE]);
    }
    if let Some(filter) = probe::Filter::decode(data) {
        assert_eq!(filter.encode(), data);
    }
    let read = Report::decode(&mut Reader::new(data));
    assert_eq!(read.is_some(), data.len() >= Report::SIZE);
    if let Some(report) = read {
        let mut again = [0; Report::SIZE];
        assert_eq!(report.encode(&mut Writer::new(&mut again)), Some(()));
        assert_eq!(again, data[..Report::SIZE]);
    }
}

fn header(data: &[u8]) {
    match ConfigHeader::decode(data) {
        Ok(header) => assert_eq!(header.encode(), data[..ConfigHeader::SIZE]),
        Err(Invalid::Length) => assert!(data.len() < ConfigHeader::SIZE),
        Err(_) => {}
    }
}

fn config(data: &[u8]) {
    let Ok(config) = Config::decode(data) else {
        return;
    };
    let groups: Vec<_> = config.groups().collect();
    let upstreams: Vec<_> = config.upstreams().collect();
    let rules: Vec<_> = config.rules().collect();
    assert!(groups.len() <= MAX_GROUPS);
    assert!(upstreams.len() <= MAX_UPSTREAMS && rules.len() <= MAX_RULES);
    let members: Vec<Vec<Upstream>> = config
        .members()
        .map(|(_, members)| members.collect())
        .collect();
    assert_eq!(members.iter().flatten().count(), upstreams.len());
    for rule in rules.iter().filter(|rule| rule.action == Action::Redirect) {
        let group = &members[usize::from(rule.group)];
        assert!(group.iter().any(|one| one.family == rule.family));
    }
    let header = ConfigHeader {
        groups: groups.len() as u16,
        upstreams: upstreams.len() as u16,
        rules: rules.len() as u16,
    };
    let mut again = header.encode().to_vec();
    again.extend(groups.iter().flat_map(Group::encode));
    again.extend(upstreams.iter().flat_map(Upstream::encode));
    again.extend(rules.iter().flat_map(Rule::encode));
    assert_eq!(again, data);
}
