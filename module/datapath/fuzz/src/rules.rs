// SPDX-License-Identifier: GPL-2.0

//! Configurations of several contexts, and where new connections go: as a naive reading of the rules
//! says, one condition after the other.

use std::num::NonZeroU8;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use mutex_abi::netlink::attribute::{Attributes, Writer};
use mutex_abi::netlink::configuration::{write_group, write_rule};
use mutex_abi::netlink::message::kind;
use mutex_abi::proxy::{
    Action, Conditions, Family, Group, Label, Protocol, Rule, Selection, Upstream, HOOK_LOCAL_OUT,
    HOOK_PRE_ROUTING, NAME_SIZE,
};
use mutex_datapath::configuration::Configuration;
use mutex_datapath::host::HostHeap;
use mutex_datapath::rules::{self, Decision, Name, Rules, Scope, Search};
use mutex_datapath::tuple::{Address, Ports, Tuple, V4, V6};
use mutex_datapath::upstream::{Moment, UpstreamNumber, UpstreamPool};

use super::input::Input;
use super::upstream::Model;

struct Context {
    rules: Vec<Rule>,
    groups: Vec<Model>,
    closed: bool,
}

// A new connection.
struct Connection {
    hook: u8,
    scope: Scope,
    interface: Name,
    protocol: Protocol,
    source: [u8; 16],
    destination: [u8; 16],
    ports: [u16; 2],
}

// One of few addresses, so that rules, upstreams and packets meet.
fn address(family: Family, byte: u8) -> [u8; 16] {
    let mut bytes = [[0, 0x80, 0x81, 1][usize::from(byte & 3)]; 16];
    bytes[3] = byte >> 2 & 7;
    if family == Family::V4 {
        bytes[4..].fill(0);
    }
    bytes
}

fn interface(byte: u8) -> Name {
    let mut name = [0; NAME_SIZE];
    match byte & 3 {
        0 | 1 => {}
        2 => name[..4].copy_from_slice(b"eth0"),
        _ => name[..5].copy_from_slice(b"eth01"),
    }
    name
}

fn protocol(byte: u8) -> Option<Protocol> {
    match byte & 3 {
        0 | 1 => None,
        2 => Some(Protocol::Tcp),
        _ => Some(Protocol::Udp),
    }
}

fn upstream(input: &mut Input<'_>) -> Upstream {
    let how = input.u8();
    let family = if how & 1 == 0 { Family::V4 } else { Family::V6 };
    let mut address = address(family, input.u8());
    address[0] |= 1;
    Upstream {
        weight: NonZeroU8::MIN,
        family,
        priority: how >> 1 & 3,
        port: u16::from(how >> 3 & 3),
        group: 0,
        address,
    }
}

fn rule(input: &mut Input<'_>, family: Family) -> Rule {
    let how = input.u8();
    let kinds = input.u8();
    let action = match (how & 3, kinds >> 4 & 1) {
        (0, _) => Action::Direct,
        (1, 0) => Action::Drop,
        (1, _) => Action::Reject,
        _ => Action::Redirect,
    };
    let prefix = |byte: u8| match byte & 1 {
        0 => 0,
        _ => (byte >> 1) % (family.bits() + 1),
    };
    let ports = [input.u8() & 7, input.u8() & 7].map(u16::from);
    Rule {
        label: Label::NONE,
        family,
        protocol: protocol(kinds),
        hooks: 1 + (how >> 2) % 3,
        action,
        destination_prefix: prefix(input.u8()),
        source_prefix: prefix(input.u8()),
        group: match action {
            Action::Redirect => input.u8() & 3,
            _ => 0,
        },
        port_first: ports[0].min(ports[1]),
        port_last: ports[0].max(ports[1]),
        destination: address(family, input.u8()),
        source: address(family, input.u8()),
        interface: interface(kinds >> 2),
        conditions: Conditions::NONE,
    }
}

fn group(input: &mut Input<'_>) -> Model {
    let selection = match input.below(3) {
        0 => Selection::RoundRobin,
        1 => Selection::Failover,
        _ => Selection::Random,
    };
    let upstreams = (0..input.below(4)).map(|_| upstream(input)).collect();
    Model::new(selection, upstreams)
}

// A context whose configuration the interface takes; what it does not is left out.
fn context(input: &mut Input<'_>, family: Family) -> Context {
    let groups: Vec<_> = (0..input.below(4)).map(|_| group(input)).collect();
    let rules: Vec<_> = (0..input.below(5))
        .map(|_| rule(input, family))
        .filter(|rule| is_taken(&groups, rule))
        .collect();
    Context {
        rules,
        groups,
        closed: false,
    }
}

fn is_taken(groups: &[Model], rule: &Rule) -> bool {
    let mut bytes = [0; 1024];
    let mut writer = Writer::new(&mut bytes);
    for model in groups {
        let group = Group {
            label: Label::NONE,
            selection: model.selection(),
        };
        let upstreams = model.upstreams().iter().copied();
        write_group(&mut writer, kind::GROUP, &group, upstreams).expect("there is room");
    }
    write_rule(&mut writer, kind::RULE, rule).expect("there is room");
    let length = writer.written();
    let group = groups.get(usize::from(rule.group));
    let mut members = group.into_iter().flat_map(Model::upstreams);
    let usable = members.any(|one| one.family == rule.family);
    let Ok(mut staged) = Configuration::<HostHeap>::new();
    let taken = staged.stage(Attributes::new(&bytes[..length])).is_ok();
    assert_eq!(taken, usable || rule.action != Action::Redirect);
    taken
}

fn has_prefix(network: &[u8; 16], prefix: u8, address: &[u8; 16]) -> bool {
    let bit = |bytes: &[u8; 16], at: u8| bytes[usize::from(at / 8)] >> (7 - at % 8) & 1;
    (0..prefix).all(|at| bit(network, at) == bit(address, at))
}

// Whether protocol and destination port are the rule's.
fn serves(rule: &Rule, protocol: Protocol, port: u16) -> bool {
    rule.protocol.is_none_or(|one| one == protocol)
        && (rule.port_first..=rule.port_last).contains(&port)
}

fn matches(rule: &Rule, connection: &Connection) -> bool {
    let Connection { hook, protocol, .. } = *connection;
    rule.hooks & hook != 0
        && serves(rule, protocol, connection.ports[1])
        && has_prefix(
            &rule.destination,
            rule.destination_prefix,
            &connection.destination,
        )
        && has_prefix(&rule.source, rule.source_prefix, &connection.source)
        && (rule.interface == [0; NAME_SIZE] || rule.interface == connection.interface)
}

// Whether packets to this address and port are on the way to an upstream.
fn is_upstream(
    contexts: &[Context],
    family: Family,
    protocol: Protocol,
    address: &[u8; 16],
    port: u16,
) -> bool {
    contexts.iter().filter(|one| !one.closed).any(|context| {
        let kept = |group| {
            let mut rules = context.rules.iter();
            rules.any(|rule| {
                rule.action == Action::Redirect
                    && rule.group == group
                    && serves(rule, protocol, port)
            })
        };
        (0..).zip(&context.groups).any(|(group, model)| {
            let mut here = model
                .upstreams()
                .iter()
                .filter(|one| one.family == family && one.address == *address);
            here.any(|one| one.port == port || one.port == 0 && kept(group))
        })
    })
}

// What becomes of a connection.
#[derive(Debug, PartialEq)]
enum Fate {
    // The context and the number of its upstream.
    Redirected(usize, UpstreamNumber),
    Direct,
    Blocked { tells: bool },
}

fn choose<A: Address>(contexts: &mut [Context], connection: &Connection, moment: &Moment) -> Fate {
    choose_rule::<A>(contexts, connection, moment).unwrap_or(Fate::Direct)
}

// `None`: no rule, or no upstream, is for it.
fn choose_rule<A: Address>(
    contexts: &mut [Context],
    connection: &Connection,
    moment: &Moment,
) -> Option<Fate> {
    let (at, rule) = contexts
        .iter()
        .enumerate()
        .filter(|(_, context)| !context.closed)
        .flat_map(|(at, context)| context.rules.iter().map(move |rule| (at, *rule)))
        .find(|(_, rule)| matches(rule, connection))?;
    let protocol = connection.protocol;
    let [source, destination] = connection.ports;
    let there = |address, port| is_upstream(contexts, A::FAMILY, protocol, address, port);
    let to_upstream = there(&connection.destination, destination);
    let from_upstream = protocol == Protocol::Udp && there(&connection.source, source);
    let blocks = matches!(rule.action, Action::Drop | Action::Reject);
    match connection.scope {
        Scope::Block if !blocks => return None,
        Scope::Redirect if rule.action != Action::Redirect => return None,
        _ => {}
    }
    match rule.action {
        Action::Drop => return Some(Fate::Blocked { tells: false }),
        Action::Reject => return Some(Fate::Blocked { tells: true }),
        Action::Direct => return None,
        Action::Redirect if to_upstream || from_upstream => return None,
        Action::Redirect => {}
    }
    let model = &mut contexts[at].groups[usize::from(rule.group)];
    let member = model.select(A::FAMILY, protocol, moment)? as u8;
    let number = UpstreamNumber {
        group: rule.group,
        member,
    };
    Some(Fate::Redirected(at, number))
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        agree::<V4>(input);
    } else {
        agree::<V6>(input);
    }
}

fn agree<A: Address>(mut input: Input<'_>) {
    let mut contexts: Vec<_> = (0..1 + input.below(3))
        .map(|_| context(&mut input, A::FAMILY))
        .collect();
    let described = (1..).zip(&contexts).map(|(owner, context)| {
        let groups = context.groups.iter().map(|model| {
            let group = Group {
                label: Label::NONE,
                selection: model.selection(),
            };
            (group, model.upstreams())
        });
        let Ok(pool) = UpstreamPool::<A, HostHeap>::new(owner, groups);
        let matches = context.rules.iter().map(|_| AtomicU64::new(0));
        rules::Context {
            pool: Box::new(pool),
            rules: &context.rules,
            sets: &[],
            matches: Arc::new(matches.collect()),
        }
    });
    let Ok(compiled) = Rules::new(described);
    while !input.is_empty() {
        let how = input.u8();
        if how & 15 == 15 {
            let at = usize::from(how >> 4) % contexts.len();
            compiled.disable(1 + at as u32);
            contexts[at].closed = true;
            continue;
        }
        let [source, destination] = [input.u8(), input.u8()];
        let connection = Connection {
            hook: if how & 1 == 0 {
                HOOK_PRE_ROUTING
            } else {
                HOOK_LOCAL_OUT
            },
            scope: match how >> 5 & 3 {
                2 => Scope::Block,
                3 => Scope::Redirect,
                _ => Scope::All,
            },
            interface: interface(2 | how >> 1),
            protocol: protocol(2 | how >> 2).expect("one of the two"),
            source: address(A::FAMILY, source),
            destination: address(A::FAMILY, destination),
            ports: [source >> 5, destination >> 5].map(u16::from),
        };
        let moment = Moment {
            now: 0,
            second: 1,
            retry: 1,
            client: 0,
            random: u32::from(how >> 3),
        };
        let search = if how & 0x80 == 0 {
            Search::Indexed
        } else {
            Search::Linear
        };
        one(&compiled, &mut contexts, search, &connection, &moment);
    }
}

fn one<A: Address>(
    rules: &Rules<A, HostHeap, Box<UpstreamPool<A, HostHeap>>>,
    contexts: &mut [Context],
    search: Search,
    connection: &Connection,
    moment: &Moment,
) {
    let [source, destination] = [connection.source, connection.destination].map(A::from_bytes);
    let [from, to] = connection.ports.map(u16::to_be);
    let ports = Ports::new(from, to);
    let tuple = Tuple::new(connection.protocol, source, destination, ports);
    let interface = || connection.interface;
    let decision = rules.choose(
        search,
        connection.hook,
        connection.scope,
        &tuple,
        &interface,
        |_| *moment,
    );
    let expected = choose::<A>(contexts, connection, moment);
    let found = match decision {
        Decision::Redirect(choice) => {
            let owner = choice.owner;
            Fate::Redirected(owner.context as usize - 1, owner.upstream)
        }
        Decision::Direct => Fate::Direct,
        Decision::Block { tells } => Fate::Blocked { tells },
    };
    assert_eq!(found, expected);
    if let (Decision::Redirect(choice), Fate::Redirected(at, number)) = (decision, expected) {
        let model = &contexts[at].groups[usize::from(number.group)];
        let expected = model.tuple(usize::from(number.member), &tuple);
        assert_eq!(choice.upstream, expected);
    }
}
