// SPDX-License-Identifier: GPL-2.0

//! Any bytes, read as the attributes of each message: refused at a place that is there, or read, and then what is written of
//! it reads the same.

use mutex_abi::netlink::attribute::{Attributes, NoRoom, Writer};
use mutex_abi::netlink::configuration::{write_group, write_rule, ToldUpstream};
use mutex_abi::netlink::context::{read_which, write_which, Commit, ContextInfo};
use mutex_abi::netlink::flow::{FlowsMeant, ToldFlow};
use mutex_abi::netlink::message::kind;
use mutex_abi::netlink::refusal::Refusal;
use mutex_abi::proxy::{
    Action, Connection, Stats, MAX_GROUPS, MAX_MEMBERS, MAX_RULES, MAX_UPSTREAMS,
};
use mutex_datapath::configuration::{Configuration, StageError};
use mutex_datapath::host::HostHeap;

pub fn run(data: &[u8]) {
    survives(data, Commit::read, Commit::write);
    survives(data, read_which, |name, to| write_which(to, name.as_ref()));
    survives(data, ContextInfo::read, ContextInfo::write);
    survives(data, Connection::read, Connection::write);
    survives(data, Stats::read, Stats::write);
    survives(data, ToldUpstream::read, ToldUpstream::write);
    survives(data, ToldFlow::read, ToldFlow::write);
    survives(data, FlowsMeant::read, FlowsMeant::write);
    staged(data);
}

fn is_inside(refusal: &Refusal, data: &[u8]) {
    // What lacks an attribute lacks it from the beginning on.
    assert!(refusal.offset < data.len().max(1), "{refusal:?}");
}

fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut bytes = vec![0xff; 1 << 17];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer).expect("there is room");
    let length = writer.written();
    bytes.truncate(length);
    bytes
}

fn survives<T: PartialEq + core::fmt::Debug>(
    data: &[u8],
    read: impl Fn(Attributes<'_>) -> Result<T, Refusal>,
    write: impl Fn(&T, &mut Writer<'_>) -> Result<(), NoRoom>,
) {
    match read(Attributes::new(data)) {
        Err(refusal) => is_inside(&refusal, data),
        Ok(value) => {
            let bytes = written(|to| write(&value, to));
            assert_eq!(read(Attributes::new(&bytes)), Ok(value));
        }
    }
}

fn stage(data: &[u8]) -> Result<Configuration<HostHeap>, Refusal> {
    let Ok(mut staged) = Configuration::new();
    match staged.stage(Attributes::new(data)) {
        Ok(()) => Ok(staged),
        Err(StageError::Refused(refusal)) => Err(refusal),
    }
}

fn staged(data: &[u8]) {
    let configuration = match stage(data) {
        Ok(configuration) => configuration,
        Err(refusal) => return is_inside(&refusal, data),
    };
    let (rules, upstreams) = (configuration.rules(), configuration.upstreams());
    assert!(rules.len() <= MAX_RULES && upstreams.len() <= MAX_UPSTREAMS);
    let members: Vec<_> = configuration.members().collect();
    assert!(members.len() <= MAX_GROUPS);
    assert!(members.iter().all(|(_, all)| all.len() <= MAX_MEMBERS));
    let of_groups = members.iter().flat_map(|(_, all)| *all);
    assert!(of_groups.eq(upstreams));
    for rule in rules.iter().filter(|rule| rule.action == Action::Redirect) {
        let (_, members) = members[usize::from(rule.group)];
        assert!(members.iter().any(|one| one.family == rule.family));
    }
    let bytes = written(|to| {
        for (group, upstreams) in &members {
            write_group(to, kind::GROUP, group, upstreams.iter().copied())?;
        }
        rules
            .iter()
            .try_for_each(|rule| write_rule(to, kind::RULE, rule))
    });
    let again = stage(&bytes).expect("what was taken is taken again");
    assert_eq!(again.rules(), rules);
    assert_eq!(again.upstreams(), upstreams);
    assert!(again.groups().eq(configuration.groups()));
}
