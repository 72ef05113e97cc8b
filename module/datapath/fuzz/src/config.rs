// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as each record of the interface: refused, or read to the last byte, so that they
//! can be written again.

use mutex_abi::bytes::{Reader, Writer};
use mutex_abi::probe::{self, Report};
use mutex_abi::proxy::{Config, ConfigHeader, Invalid, Rule, Stats, Upstream};
use mutex_abi::proxy::{MAX_RULES, MAX_UPSTREAMS};

pub fn run(data: &[u8]) {
    header(data);
    config(data);
    if let Ok(rule) = Rule::decode(data) {
        assert_eq!(rule.encode(), data[..Rule::SIZE]);
    }
    if let Ok(upstream) = Upstream::decode(data) {
        assert_eq!(upstream.encode(), data[..Upstream::SIZE]);
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
    let upstreams: Vec<_> = config.upstreams().collect();
    let rules: Vec<_> = config.rules().collect();
    assert!(upstreams.len() <= MAX_UPSTREAMS && rules.len() <= MAX_RULES);
    for rule in &rules {
        let usable: Vec<_> = config.upstreams_of(rule).collect();
        assert_eq!(usable.is_empty(), rule.upstreams == 0);
        assert!(usable.iter().all(|one| one.family == rule.family));
    }
    let header = ConfigHeader {
        upstreams: upstreams.len() as u8,
        rules: rules.len() as u16,
        selection: config.selection,
    };
    let mut again = header.encode().to_vec();
    again.extend(upstreams.iter().flat_map(Upstream::encode));
    again.extend(rules.iter().flat_map(Rule::encode));
    assert_eq!(again, data);
}
