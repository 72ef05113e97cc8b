// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a rule of a file asks for becomes conditions of the kernel's, and long lists sets.

use mprox_client::Set;
use mutex_abi::proxy::set::Element;
use mutex_abi::proxy::{
    Condition, Family, Field, Label, ValueKind, Values, MAX_CONDITIONS, MAX_SETS,
};
use toml_mistake::{Mistake, Place};

use crate::lowering::{hint, Lowering};
use crate::rules::{in_list, mistake};
use crate::text::{NumberText, OneOrMany, RuleText};
use crate::values::{self, Sort};

impl Lowering<'_> {
    pub(crate) fn add(&mut self, field: Field, not: bool, values: Values) -> Result<(), Mistake> {
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
    pub(crate) fn set(&mut self, kind: ValueKind, elements: Vec<Element>) -> Result<u16, Mistake> {
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
    pub(crate) fn named<T>(
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

    pub(crate) fn numbers(
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

    pub(crate) fn ranges(
        &mut self,
        field: Field,
        not: bool,
        ranges: &[(u64, u64)],
    ) -> Result<(), Mistake> {
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

    pub(crate) fn names(
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

    // What more is asked for than where connections come from and go.
    pub(crate) fn conditions(
        &mut self,
        text: &RuleText,
        families: &[Family],
    ) -> Result<(), Mistake> {
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
}
