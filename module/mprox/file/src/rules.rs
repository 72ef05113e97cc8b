// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file says becomes groups and rules of the kernel's.
//!
//! A rule of the kernel's has one network on each side, one range of ports and one IP version. So a rule of a file with
//! several of these becomes several: each with each.

use std::net::{IpAddr, SocketAddr};

use mprox_client::{Configuration, Group};
use mutex_abi::proxy::rule::is_name;
use mutex_abi::proxy::{
    Action, Family, Label, Protocol, Rule, Selection, Upstream, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING,
    MAX_GROUPS, MAX_MEMBERS, MAX_RULES, NAME_SIZE,
};
use toml_mistake::{nearest, Mistake, Place};

use crate::networks::{parts, Network};
use crate::shadow::shadowed;
use crate::text::{
    ActionText, DirectionText, FileText, OneOrMany, PortText, ProtocolText, RuleText, SelectText,
    UpstreamsText,
};

/// What became of a file.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) configuration: Configuration,
    // The name of each group.
    pub(crate) groups: Vec<String>,
    // For each rule, which of the file's it is of.
    pub(crate) rules: Vec<usize>,
}

fn mistake(at: &[Place], message: impl Into<String>) -> Mistake {
    Mistake {
        at: at.to_vec(),
        message: message.into(),
    }
}

fn key(text: &str) -> Place {
    Place::Key(text.to_owned())
}

const TOO_MANY: &str = "with this rule's networks and ports, each with each, there are more than 4096 rules for the kernel";

/// What the kernel is told.
pub(crate) fn lower(file: &FileText) -> Result<Lowered, Mistake> {
    let mut lowered = Lowered {
        configuration: Configuration::default(),
        groups: Vec::new(),
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
    let mut names: Vec<(&str, usize)> = Vec::new();
    // Of a file that was cut short, or is being written.
    let Some(texts) = &file.rule else {
        let message = "there is no rule, and so nothing would be redirected: say `rule = []` if that is meant";
        return Err(mistake(&[], message));
    };
    for (number, text) in texts.iter().enumerate() {
        let at = [key("rule"), Place::Element(number)];
        if let Some(name) = &text.name {
            if let Some((_, first)) = names.iter().find(|(other, _)| other == name) {
                let at = [&at[..], &[key("name")]].concat();
                let message = format!("the {} rule is called `{name}`, too", ordinal(*first + 1));
                return Err(mistake(&at, message));
            }
            names.push((name, number));
        }
        for rule in rules(&at, text, &lowered)? {
            if lowered.rules.len() == MAX_RULES {
                return Err(mistake(&at, TOO_MANY));
            }
            lowered.configuration.rules.push(rule);
            lowered.rules.push(number);
        }
    }
    if let Some((rule, by)) = shadowed(&lowered.configuration.rules, &lowered.rules) {
        let message = format!(
            "this rule can never match: all of its connections are those of the {} rule before it{}",
            ordinal(by + 1),
            match &texts[by].name {
                Some(name) => format!(", `{name}`"),
                None => String::new(),
            }
        );
        return Err(mistake(&[key("rule"), Place::Element(rule)], message));
    }
    Ok(lowered)
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

fn label(at: &[Place], name: &str) -> Result<Label, Mistake> {
    Label::new(name.as_bytes())
        .ok_or_else(|| mistake(at, "a name has at most 31 bytes, and no control characters"))
}

fn group(at: &[Place], number: u8, name: &str, text: &UpstreamsText) -> Result<Group, Mistake> {
    let servers = [at, &[key("servers")]].concat();
    if text.servers.is_empty() {
        return Err(mistake(&servers, "there is no server"));
    }
    if text.servers.len() > MAX_MEMBERS {
        let message = format!("there are more than {MAX_MEMBERS} servers");
        return Err(mistake(&servers, message));
    }
    let upstream = |(place, server): (usize, &crate::text::ServerText)| {
        let (address, port) =
            server_place(&server.0).map_err(|message| mistake(&servers, message).element(place))?;
        let (family, address) = parts(address);
        Ok(Upstream {
            family,
            // Of a group by failover the first is preferred.
            priority: u8::try_from(place).unwrap_or(u8::MAX),
            port,
            group: number,
            address,
        })
    };
    let upstreams = text.servers.iter().enumerate().map(upstream);
    Ok(Group {
        label: label(at, name)?,
        selection: match text.select {
            SelectText::RoundRobin => Selection::RoundRobin,
            SelectText::Failover => Selection::Failover,
            SelectText::Random => Selection::Random,
        },
        upstreams: upstreams.collect::<Result<_, _>>()?,
    })
}

/// Reads `192.0.2.1:80`, `[2001:db8::1]:80`, or an address alone.
fn server_place(text: &str) -> Result<(IpAddr, u16), String> {
    let (address, port) = if let Ok(place) = text.parse::<SocketAddr>() {
        if place.port() == 0 {
            return Err("port 0: leave the port out to keep the one that the client wanted".into());
        }
        (place.ip(), place.port())
    } else if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        (address, 0)
    } else {
        return Err(format!(
            "`{text}` is no address with a port, such as 192.0.2.1:8080 or [2001:db8::1]:8080"
        ));
    };
    if address.is_unspecified() {
        return Err(format!("nobody is at {address}"));
    }
    Ok((address, port))
}

// The rules of the kernel's that a rule of the file's becomes.
fn rules(at: &[Place], text: &RuleText, so_far: &Lowered) -> Result<Vec<Rule>, Mistake> {
    let below = |name: &str| [at, &[key(name)]].concat();
    let mut like = Rule {
        label: match &text.name {
            Some(name) => label(&below("name"), name)?,
            None => Label::NONE,
        },
        protocol: text.protocol.map(|protocol| match protocol {
            ProtocolText::Tcp => Protocol::Tcp,
            ProtocolText::Udp => Protocol::Udp,
        }),
        hooks: match text.direction {
            None => HOOK_PRE_ROUTING | HOOK_LOCAL_OUT,
            Some(DirectionText::Forwarded) => HOOK_PRE_ROUTING,
            Some(DirectionText::Local) => HOOK_LOCAL_OUT,
        },
        interface: interface(&below("interface"), text.interface.as_deref())?,
        ..Rule::any(Family::V4)
    };
    let target = match (&text.via, text.action) {
        (Some(name), None) => Some(via(&below("via"), name, so_far)?),
        (None, Some(ActionText::Direct)) => None,
        (Some(_), Some(_)) => {
            let message = "the rule has `via`, which redirects, and an action";
            return Err(mistake(&below("action"), message));
        }
        (None, None) => {
            let message = "the rule does nothing: it needs `via = \"…\"`, or `action = \"direct\"`";
            return Err(mistake(at, message));
        }
    };
    if let Some(group) = target {
        (like.action, like.group) = (Action::Redirect, group);
    }
    let families = match text.ip {
        None => vec![Family::V4, Family::V6],
        Some(number) => match Family::from_number(number) {
            Some(family) => vec![family],
            None => return Err(mistake(&below("ip"), "an IP version is 4 or 6")),
        },
    };
    let from = networks(&below("from"), text.from.as_ref())?;
    let to = networks(&below("to"), text.to.as_ref())?;
    let ports = ports(&below("ports"), text.ports.as_ref())?;
    let mut all = Vec::new();
    for family in families {
        let of_family = |networks: &Option<Vec<Network>>| match networks {
            None => vec![Network::all(family)],
            Some(networks) => {
                let mut networks = networks.clone();
                networks.retain(|network| network.family == family);
                networks
            }
        };
        let (from, to) = (of_family(&from), of_family(&to));
        if from.is_empty() || to.is_empty() {
            continue;
        }
        if let Some(group) = target {
            let group = &so_far.configuration.groups[usize::from(group)];
            if !group.upstreams.iter().any(|one| one.family == family) {
                let version = family as u8;
                return Err(mistake(
                    &below("via"),
                    format!(
                        "`{}` has no server with an address of IPv{version}, and the rule is for connections over that, too, which would go \
                         where they go: say `ip = {}` if that is meant",
                        group.label.as_str(),
                        10 - version
                    ),
                ));
            }
        }
        let product = from
            .len()
            .saturating_mul(to.len())
            .saturating_mul(ports.len());
        if product > MAX_RULES {
            return Err(mistake(at, TOO_MANY));
        }
        for source in &from {
            for destination in &to {
                for &(port_first, port_last) in &ports {
                    all.push(Rule {
                        family,
                        source: source.address,
                        source_prefix: source.prefix,
                        destination: destination.address,
                        destination_prefix: destination.prefix,
                        port_first,
                        port_last,
                        ..like
                    });
                }
            }
        }
    }
    if all.is_empty() {
        let message =
            "this rule can never match: its networks and its IP version have nothing in common";
        return Err(mistake(at, message));
    }
    Ok(all)
}

fn via(at: &[Place], name: &str, so_far: &Lowered) -> Result<u8, Mistake> {
    let names = so_far.groups.iter();
    match (0..=u8::MAX)
        .zip(names.clone())
        .find(|(_, one)| *one == name)
    {
        Some((number, _)) => Ok(number),
        None => {
            let hint = nearest(name, names.map(String::as_str))
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_default();
            Err(mistake(
                at,
                format!("no upstreams are called `{name}`{hint}"),
            ))
        }
    }
}

fn interface(at: &[Place], name: Option<&str>) -> Result<[u8; NAME_SIZE], Mistake> {
    let mut bytes = [0; NAME_SIZE];
    let Some(name) = name else {
        return Ok(bytes);
    };
    let fits = name.len() < NAME_SIZE && !name.is_empty();
    if fits {
        bytes[..name.len()].copy_from_slice(name.as_bytes());
    }
    match fits && is_name(&bytes) {
        true => Ok(bytes),
        false => Err(mistake(at, format!("no interface can be called `{name}`"))),
    }
}

fn networks(
    at: &[Place],
    texts: Option<&OneOrMany<String>>,
) -> Result<Option<Vec<Network>>, Mistake> {
    let Some(texts) = texts else {
        return Ok(None);
    };
    let mut all: Vec<Network> = Vec::new();
    for (place, text) in texts.all() {
        let networks = Network::parse_all(text).map_err(|message| in_list(at, place, message))?;
        for network in networks {
            // What is in another one need not be asked for.
            if !all.iter().any(|other| other.has(&network)) {
                all.retain(|other| !network.has(other));
                all.push(network);
            }
        }
    }
    match all.is_empty() {
        true => Err(mistake(
            at,
            "the list is empty, so the rule can never match",
        )),
        false => Ok(Some(all)),
    }
}

fn in_list(at: &[Place], place: Option<usize>, message: String) -> Mistake {
    let mistake = mistake(at, message);
    match place {
        Some(place) => mistake.element(place),
        None => mistake,
    }
}

fn ports(at: &[Place], texts: Option<&OneOrMany<PortText>>) -> Result<Vec<(u16, u16)>, Mistake> {
    let Some(texts) = texts else {
        return Ok(vec![(0, u16::MAX)]);
    };
    let mut all = Vec::new();
    for (place, text) in texts.all() {
        all.push(range(text).map_err(|message| in_list(at, place, message))?);
    }
    if all.is_empty() {
        return Err(mistake(
            at,
            "the list is empty, so the rule can never match",
        ));
    }
    all.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

fn range(text: &PortText) -> Result<(u16, u16), String> {
    let text = match text {
        PortText::One(port) => return Ok((*port, *port)),
        PortText::Range(text) => text,
    };
    let wrong = || format!("`{text}` is no port such as 80, and no range such as \"8000-8099\"");
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = match text.split_once('-') {
        None => (port(text)?, port(text)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!("the range `{text}` ends before it begins")),
    }
}
