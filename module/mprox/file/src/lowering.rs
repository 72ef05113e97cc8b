// SPDX-License-Identifier: MIT OR Apache-2.0

//! One rule of a file becomes some of the kernel's.

use mprox_client::Set;
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{
    Action, Condition, Conditions, Family, Field, Label, Protocol, Rule, ValueKind, Values,
    HOOK_LOCAL_OUT, HOOK_PRE_ROUTING, MAX_CONDITIONS, MAX_RULES, MAX_SETS, NAME_SIZE,
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
    fn below(&self, name: &str) -> Vec<Place> {
        [self.at, &[key(name)]].concat()
    }

    fn add(&mut self, field: Field, not: bool, values: Values) -> Result<(), Mistake> {
        self.add_masked(field, not, values, u32::MAX)
    }

    fn add_masked(
        &mut self,
        field: Field,
        not: bool,
        values: Values,
        mask: u32,
    ) -> Result<(), Mistake> {
        let condition = Condition {
            field,
            not,
            mask,
            values,
        };
        match self.conditions.push(condition) {
            true => Ok(()),
            false => Err(mistake(
                self.at,
                format!("the rule asks for more than the kernel takes of one, {MAX_CONDITIONS} conditions"),
            )),
        }
    }

    // A set without a name.
    fn set(&mut self, kind: ValueKind, elements: Vec<Element>) -> Result<u16, Mistake> {
        let number = self.lowered.configuration.sets.len();
        if number >= MAX_SETS {
            let message = format!("with this rule's lists there are more than {MAX_SETS} sets");
            return Err(mistake(self.at, message));
        }
        self.lowered.configuration.sets.push(Set {
            label: Label::NONE,
            kind,
            elements,
        });
        self.lowered.sets.push(None);
        u16::try_from(number).map_err(|_| mistake(self.at, "there are too many sets"))
    }

    // The set that a list names, if it does.
    fn named<T>(
        &self,
        at: &[Place],
        sort: Sort,
        list: &OneOrMany<T>,
        text: impl Fn(&T) -> Option<&str>,
    ) -> Result<Option<u16>, Mistake> {
        let all = list.all();
        let name = |one: &T| text(one).and_then(|text| text.strip_prefix('@').map(str::to_owned));
        let Some((place, name)) = all
            .iter()
            .find_map(|(place, one)| Some((*place, name(one)?)))
        else {
            return Ok(None);
        };
        if all.len() > 1 {
            let message = "a set stands alone: put the others into it".to_owned();
            return Err(in_list(at, place, message));
        }
        let named = self.lowered.sets.iter().zip(0_u16..);
        let named = named.filter_map(|(set, number)| Some((set.as_ref()?, number)));
        match named.clone().find(|((other, _), _)| *other == name) {
            Some(((_, of), number)) if *of == sort => Ok(Some(number)),
            Some(((_, of), _)) => Err(in_list(
                at,
                place,
                format!(
                    "the set `{name}` has {}, and here are {} asked for",
                    of.name(),
                    sort.name()
                ),
            )),
            None => {
                let hint = hint(&name, named.map(|((name, _), _)| name.as_str()));
                Err(in_list(
                    at,
                    place,
                    format!("no set is called `{name}`{hint}"),
                ))
            }
        }
    }

    fn numbers(
        &mut self,
        name: &str,
        (field, sort, not): (Field, Sort, bool),
        list: Option<&OneOrMany<NumberText>>,
    ) -> Result<(), Mistake> {
        let Some(list) = list else {
            return Ok(());
        };
        let at = self.below(name);
        let text = |one: &NumberText| match one {
            NumberText::Text(text) => Some(text.clone()),
            NumberText::One(_) => None,
        };
        let texts = list.map(|one| text(one).unwrap_or_default());
        if let Some(set) = self.named(&at, sort, &texts, |text| Some(text.as_str()))? {
            return self.add(field, not, Values::Set(set));
        }
        let ranges = values::numbers(&at, sort, list, self.system)?;
        self.ranges(field, not, &ranges)
    }

    fn ranges(&mut self, field: Field, not: bool, ranges: &[(u64, u64)]) -> Result<(), Mistake> {
        let values = match ranges {
            [(first, last)] => Values::Range {
                first: *first,
                last: *last,
            },
            many => {
                let elements = many
                    .iter()
                    .map(|&(first, last)| Element::Number([first, last]));
                Values::Set(self.set(ValueKind::Numbers, elements.collect())?)
            }
        };
        self.add(field, not, values)
    }

    fn names(
        &mut self,
        name: &str,
        (field, sort, not): (Field, Sort, bool),
        list: Option<&OneOrMany<String>>,
    ) -> Result<(), Mistake> {
        let Some(list) = list else {
            return Ok(());
        };
        let at = self.below(name);
        if let Some(set) = self.named(&at, sort, list, |text| Some(text.as_str()))? {
            return self.add(field, not, Values::Set(set));
        }
        if sort == Sort::ControlGroups {
            let numbers = values::control_groups(&at, list, self.system)?;
            return self.ranges(field, not, &numbers);
        }
        let values = match &values::names(&at, sort, list)?[..] {
            [one] => Values::Name(*one),
            many => {
                let elements = many.iter().copied().map(Element::Name);
                Values::Set(self.set(ValueKind::Names, elements.collect())?)
            }
        };
        self.add(field, not, values)
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
    fn excluded(
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

    // What more is asked for than where connections come from and go.
    fn conditions(&mut self, text: &RuleText, families: &[Family]) -> Result<(), Mistake> {
        self.excluded("not-from", Field::Source, text.not_from.as_ref(), families)?;
        self.excluded("not-to", Field::Destination, text.not_to.as_ref(), families)?;
        let ports = (Field::SourcePort, Sort::Ports, false);
        self.numbers("source-ports", ports, text.source_ports.as_ref())?;
        let ports = (Field::DestinationPort, Sort::Ports, true);
        self.numbers("not-ports", ports, text.not_ports.as_ref())?;
        let others = (Field::Interface, Sort::Interfaces, true);
        self.names("not-interface", others, text.not_interface.as_ref())?;
        if let Some(text) = &text.mark {
            let (mark, mask) =
                values::mark(text).map_err(|why| mistake(&self.below("mark"), why))?;
            let only = Values::Range {
                first: mark.into(),
                last: mark.into(),
            };
            self.add_masked(Field::Mark, false, only, mask)?;
        }
        if let Some(text) = &text.dscp {
            let point = values::dscp(text).map_err(|why| mistake(&self.below("dscp"), why))?;
            self.ranges(Field::Dscp, false, &[(point.into(), point.into())])?;
        }
        let users = |not| (Field::User, Sort::Users, not);
        self.numbers("users", users(false), text.users.as_ref())?;
        self.numbers("not-users", users(true), text.not_users.as_ref())?;
        let groups = |not| (Field::Group, Sort::Groups, not);
        self.numbers("groups", groups(false), text.groups.as_ref())?;
        self.numbers("not-groups", groups(true), text.not_groups.as_ref())?;
        let cgroups = |not| (Field::ControlGroup, Sort::ControlGroups, not);
        self.names("cgroups", cgroups(false), text.cgroups.as_ref())?;
        self.names("not-cgroups", cgroups(true), text.not_cgroups.as_ref())?;
        if let Some(number) = text.process {
            let process = self.system.process(number);
            let process = process.map_err(|why| mistake(&self.below("process"), why))?;
            self.ranges(Field::Process, false, &[(process, process)])?;
        }
        let programs = |not| (Field::Program, Sort::Programs, not);
        self.names("programs", programs(false), text.programs.as_ref())?;
        self.names("not-programs", programs(true), text.not_programs.as_ref())
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

fn hint<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> String {
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
