// SPDX-License-Identifier: MIT OR Apache-2.0

//! One rule of a file becomes some of the kernel's.

use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{
    Action, Conditions, Family, Field, Label, Protocol, Rule, ValueKind, Values, HOOK_LOCAL_OUT,
    HOOK_PRE_ROUTING, MAX_RULES, NAME_SIZE,
};
use toml_mistake::{nearest, Mistake, Place};

use crate::networks::Network;
use crate::rules::{in_list, key, label, mistake, Lowered, TOO_MANY};
use crate::system::System;
use crate::text::{ActionText, DirectionText, NumberText, OneOrMany, ProtocolText, RuleText};
use crate::values::{self, Sort};

// Of a longer list of networks or ports the kernel is told a set, and of a shorter one a rule for each, which takes it less time.
const FEW: usize = 16;

// Where connections of one IP version come from or go.
#[derive(Clone)]
enum Side {
    Networks(Vec<Network>),
    // All, of which a condition says more.
    Set(u16),
}

/// A rule, as it becomes some of the kernel's.
pub(crate) struct Lowering<'a> {
    /// Where the rule is.
    pub(crate) at: &'a [Place],
    /// Where its names are looked up.
    pub(crate) system: &'a dyn System,
    /// What came before it.
    pub(crate) lowered: &'a mut Lowered,
    /// What it asks for beside what a rule of the kernel's has a place for.
    pub(crate) conditions: Conditions,
}

impl Lowering<'_> {
    pub(crate) fn below(&self, name: &str) -> Vec<Place> {
        [self.at, &[key(name)]].concat()
    }

    // What a list says of an IP version that the rule is not for would say nothing; classes have networks of both.
    fn of_families(
        &self,
        at: &[Place],
        list: &OneOrMany<String>,
        families: &[Family],
    ) -> Result<(), Mistake> {
        for (place, text) in list.all() {
            let read = Network::parse(text).ok();
            if let Some(other) = read.filter(|read| !families.contains(&read.family)) {
                let message = format!(
                    "{other} is of IPv{}, {}",
                    other.family as u8,
                    only(families)
                );
                return Err(in_list(at, place, message));
            }
        }
        Ok(())
    }

    // Of which of these IP versions a set has addresses.
    fn families_of(&self, set: u16, families: &[Family]) -> Vec<bool> {
        let set = self.lowered.configuration.sets.get(usize::from(set));
        let has = |family: &Family| {
            let elements = set.map_or(&[][..], |set| &set.elements);
            // In order, those of IPv4 first.
            match family {
                Family::V4 => matches!(elements.first(), Some(Element::V4(_))),
                Family::V6 => matches!(elements.last(), Some(Element::V6(_))),
            }
        };
        families.iter().map(has).collect()
    }

    // Where connections must not come from, or go.
    pub(crate) fn excluded(
        &mut self,
        name: &str,
        field: Field,
        list: Option<&OneOrMany<String>>,
        families: &[Family],
    ) -> Result<(), Mistake> {
        let Some(list) = list else {
            return Ok(());
        };
        let at = self.below(name);
        let set = match self.named(&at, Sort::Networks, list, |text| Some(text.as_str()))? {
            Some(set) => set,
            None => {
                let elements = values::elements(&values::networks(&at, list)?);
                self.of_families(&at, list, families)?;
                self.set(ValueKind::Addresses, elements)?
            }
        };
        self.add(field, true, Values::Set(set))
    }

    // Where connections of each of these IP versions come from, or go; nothing of a version of which there is no network.
    fn side(
        &mut self,
        name: &str,
        list: Option<&OneOrMany<String>>,
        families: &[Family],
    ) -> Result<Vec<Option<Side>>, Mistake> {
        let Some(list) = list else {
            let all = families.iter().map(|family| Network::all(*family));
            return Ok(all.map(|all| Some(Side::Networks(vec![all]))).collect());
        };
        let at = self.below(name);
        if let Some(set) = self.named(&at, Sort::Networks, list, |text| Some(text.as_str()))? {
            let has = self.families_of(set, families);
            if !has.contains(&true) {
                let message = format!(
                    "the set has no network that it could match, {}",
                    only(families)
                );
                return Err(mistake(&at, message));
            }
            let sides = has.into_iter().map(|has| has.then_some(Side::Set(set)));
            return Ok(sides.collect());
        }
        let networks = values::networks(&at, list)?;
        self.of_families(&at, list, families)?;
        let count = |family| {
            networks
                .iter()
                .filter(move |one| one.family == family)
                .count()
        };
        let mut set = None;
        let mut sides = Vec::new();
        for &family in families {
            sides.push(match count(family) {
                0 => None,
                1..=FEW => {
                    let of_family = networks.iter().filter(|one| one.family == family);
                    Some(Side::Networks(of_family.copied().collect()))
                }
                _ => {
                    let number = match set {
                        Some(number) => number,
                        None => self.set(ValueKind::Addresses, values::elements(&networks))?,
                    };
                    set = Some(number);
                    Some(Side::Set(number))
                }
            });
        }
        Ok(sides)
    }

    // The directions, of which those that no forwarded connection has what is asked for leave only one.
    fn hooks(&self, text: &RuleText) -> Result<u8, Mistake> {
        let is_local = self.conditions.iter().any(|one| one.field.is_local());
        match text.direction {
            Some(DirectionText::Forwarded) if is_local => Err(mistake(
                &self.below("direction"),
                "whose connections are forwarded nobody knows: users, groups, cgroups, processes and programs are asked for only of \"local\" ones",
            )),
            Some(DirectionText::Forwarded) => Ok(HOOK_PRE_ROUTING),
            Some(DirectionText::Local) => Ok(HOOK_LOCAL_OUT),
            None if is_local => Ok(HOOK_LOCAL_OUT),
            None => Ok(HOOK_PRE_ROUTING | HOOK_LOCAL_OUT),
        }
    }

    // What becomes of the connections, and the group to which they are redirected.
    fn target(&self, text: &RuleText) -> Result<(Action, Option<u8>), Mistake> {
        match (&text.via, text.action) {
            (Some(name), None) => {
                let group = via(&self.below("via"), name, self.lowered)?;
                Ok((Action::Redirect, Some(group)))
            }
            (None, Some(ActionText::Direct)) => Ok((Action::Direct, None)),
            (None, Some(ActionText::Drop)) => Ok((Action::Drop, None)),
            (None, Some(ActionText::Reject)) => Ok((Action::Reject, None)),
            (Some(_), Some(_)) => {
                let message = "the rule has `via`, which redirects, and an action";
                Err(mistake(&self.below("action"), message))
            }
            (None, None) => Err(mistake(
                self.at,
                "the rule does nothing: it needs `via = \"…\"`, or `action = \"direct\"`, `\"drop\"` or `\"reject\"`",
            )),
        }
    }

    fn has_version(&self, group: u8, family: Family) -> Result<(), Mistake> {
        let group = &self.lowered.configuration.groups[usize::from(group)];
        if group.upstreams.iter().any(|one| one.family == family) {
            return Ok(());
        }
        let version = family as u8;
        Err(mistake(
            &self.below("via"),
            format!(
                "`{}` has no server with an address of IPv{version}, and the rule is for connections over that, too, which would go \
                 where they go: say `ip = {}` if that is meant",
                group.label.as_str(),
                10 - version
            ),
        ))
    }

    // The rules of the kernel's that a rule of the file's becomes.
    pub(crate) fn rules(&mut self, text: &RuleText) -> Result<Vec<Rule>, Mistake> {
        let (action, group) = self.target(text)?;
        let families = match text.ip {
            None => vec![Family::V4, Family::V6],
            Some(number) => match Family::from_number(number) {
                Some(family) => vec![family],
                None => return Err(mistake(&self.below("ip"), "an IP version is 4 or 6")),
            },
        };
        self.conditions(text, &families)?;
        let from = self.side("from", text.from.as_ref(), &families)?;
        let to = self.side("to", text.to.as_ref(), &families)?;
        let ports = self.ports(text.ports.as_ref())?;
        let interfaces = self.interfaces(text.interface.as_ref())?;
        let like = Rule {
            label: match &text.name {
                Some(name) => label(&self.below("name"), name)?,
                None => Label::NONE,
            },
            protocol: text.protocol.map(|protocol| match protocol {
                ProtocolText::Tcp => Protocol::Tcp,
                ProtocolText::Udp => Protocol::Udp,
            }),
            hooks: self.hooks(text)?,
            action,
            group: group.unwrap_or_default(),
            ..Rule::any(Family::V4)
        };
        let asked = self.conditions;
        let mut all = Vec::new();
        for (family, sides) in families.into_iter().zip(from.into_iter().zip(to)) {
            let (Some(from), Some(to)) = sides else {
                continue;
            };
            if let Some(group) = group {
                self.has_version(group, family)?;
            }
            self.conditions = asked;
            let from = self.restrict(Field::Source, from, family)?;
            let to = self.restrict(Field::Destination, to, family)?;
            let counts = [from.len(), to.len(), ports.len(), interfaces.len()];
            if counts.into_iter().fold(1, usize::saturating_mul) > MAX_RULES {
                return Err(mistake(self.at, TOO_MANY));
            }
            for (source, destination) in from
                .iter()
                .flat_map(|source| to.iter().map(move |to| (source, to)))
            {
                for (&(port_first, port_last), &interface) in ports
                    .iter()
                    .flat_map(|range| interfaces.iter().map(move |name| (range, name)))
                {
                    all.push(Rule {
                        family,
                        source: source.address,
                        source_prefix: source.prefix,
                        destination: destination.address,
                        destination_prefix: destination.prefix,
                        port_first,
                        port_last,
                        interface,
                        conditions: self.conditions,
                        ..like
                    });
                }
            }
        }
        match all.is_empty() {
            true => Err(mistake(
                self.at,
                "this rule can never match: its networks and its IP version have nothing in common",
            )),
            false => Ok(all),
        }
    }

    // The networks, or all and a condition.
    fn restrict(
        &mut self,
        field: Field,
        side: Side,
        family: Family,
    ) -> Result<Vec<Network>, Mistake> {
        match side {
            Side::Networks(networks) => Ok(networks),
            Side::Set(number) => {
                self.add(field, false, Values::Set(number))?;
                Ok(vec![Network::all(family)])
            }
        }
    }

    fn ports(&mut self, list: Option<&OneOrMany<NumberText>>) -> Result<Vec<(u16, u16)>, Mistake> {
        const ALL: (u16, u16) = (0, u16::MAX);
        let Some(list) = list else {
            return Ok(vec![ALL]);
        };
        let at = self.below("ports");
        let is_name =
            |one: &NumberText| matches!(one, NumberText::Text(text) if text.starts_with('@'));
        if list.all().iter().any(|(_, one)| is_name(one)) {
            let field = (Field::DestinationPort, Sort::Ports, false);
            self.numbers("ports", field, Some(list))?;
            return Ok(vec![ALL]);
        }
        let ranges = values::numbers(&at, Sort::Ports, list, self.system)?;
        if ranges.len() > FEW {
            self.ranges(Field::DestinationPort, false, &ranges)?;
            return Ok(vec![ALL]);
        }
        let narrow = |number| u16::try_from(number).unwrap_or(u16::MAX);
        Ok(ranges
            .into_iter()
            .map(|(first, last)| (narrow(first), narrow(last)))
            .collect())
    }

    fn interfaces(
        &mut self,
        list: Option<&OneOrMany<String>>,
    ) -> Result<Vec<[u8; NAME_SIZE]>, Mistake> {
        let Some(list) = list else {
            return Ok(vec![[0; NAME_SIZE]]);
        };
        if list.all().iter().any(|(_, name)| name.starts_with('@')) {
            let field = (Field::Interface, Sort::Interfaces, false);
            self.names("interface", field, Some(list))?;
            return Ok(vec![[0; NAME_SIZE]]);
        }
        values::names(&self.below("interface"), Sort::Interfaces, list)
    }
}

// Said of a rule for one IP version.
fn only(families: &[Family]) -> String {
    let version = families.first().map_or(0, |family| *family as u8);
    format!("and the rule is for IPv{version} alone")
}

pub(crate) fn hint<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> String {
    let near = nearest(name, others);
    near.map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}

fn via(at: &[Place], name: &str, so_far: &Lowered) -> Result<u8, Mistake> {
    let names = so_far.groups.iter();
    match (0..=u8::MAX)
        .zip(names.clone())
        .find(|(_, one)| *one == name)
    {
        Some((number, _)) => Ok(number),
        None => {
            let hint = hint(name, names.map(String::as_str));
            Err(mistake(
                at,
                format!("no upstreams are called `{name}`{hint}"),
            ))
        }
    }
}
